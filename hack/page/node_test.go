// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	address = "127.0.0.1:9739"
	// hostile is the name of a pod, which no API server would take: it has no angle brackets, as
	// no name that the agent knows has them.
	hostile = `" onmouseover="alert(1)" &amp;'`
	// saoPaulo is where the demo's databases have this address.
	saoPaulo = "203.0.113.20:9"
	within   = time.Minute
)

// node is a network namespace with three pods, of which one sends to another and to the
// internet, and its agent.
type node struct {
	*ktest.ServiceNode
	test                 *testing.T // whose end is the agent's, at the latest
	binary, folder, pins string
	agent                *exec.Cmd
	output               bytes.Buffer
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{ServiceNode: ktest.NewServiceNode(t), test: t, folder: t.TempDir(), pins: ktest.PinPath(t)}
	t.Cleanup(func() {
		err := n.Node.Do(func() error {
			_, err := agent.Uninstall(n.pins, n.path("state"))
			return err
		})
		if err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	n.binary = n.path("podmeter")
	build := exec.Command("go", "build", "-o", n.binary, "./cmd/podmeter")
	build.Dir = "../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build podmeter: %v: %s", err, output)
	}
	pods := "node: {name: node-a}\npods:\n" +
		"- {namespace: shop, name: client, ips: [" + ktest.Client4 + "], node: node-a}\n" +
		"- {namespace: shop, name: idle, ips: [" + ktest.Green4 + "], node: node-a}\n" +
		"- {namespace: shop, name: '" + strings.ReplaceAll(hostile, "'", "''") + "', ips: [" + ktest.Blue4 + "], node: node-a}\n"
	for name, content := range map[string][]byte{"pods.yaml": []byte(pods), "city.mmdb": demodb.City(), "asn.mmdb": demodb.ASN()} {
		if err := os.WriteFile(n.path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.folder, name) }

// start runs the agent until stop.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.agent = exec.Command(n.binary,
		"agent", "--page", "--listen", address, "--drain-interval", "500ms", "--pin-path", n.pins, "--state-dir", n.path("state"),
		"--socket", n.path("agent.sock"), "--static-file", n.path("pods.yaml"), "--geoip", n.path("city.mmdb")+","+n.path("asn.mmdb"),
		"--external-labels", "city",
	)
	n.agent.Stdout, n.agent.Stderr = &n.output, &n.output
	if err := n.Node.Do(n.agent.Start); err != nil {
		t.Fatalf("start podmeter: %v", err)
	}
	running := n.agent
	n.test.Cleanup(func() {
		if running.ProcessState == nil {
			running.Process.Kill()
			running.Wait()
		}
	})
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := n.get("/readyz"); err == nil {
			return
		}
	}
	running.Process.Kill()
	running.Wait()
	t.Fatalf("the agent is not ready; it said:\n%s", &n.output)
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if err := n.agent.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(within, func() { n.agent.Process.Kill() })
	defer timer.Stop()
	if err := n.agent.Wait(); err != nil {
		t.Fatalf("the agent ended with %v; it said:\n%s", err, &n.output)
	}
}

// get asks the agent, in its namespace.
func (n *node) get(path string) (body []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, to string) (conn net.Conn, err error) {
		err = n.Node.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, to)
			return err
		})
		return conn, err
	}}
	client := &http.Client{Transport: transport, Timeout: within}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return body, err
}

// send lets the client send until the returned function is called, which waits.
func (n *node) send(t *testing.T) (stop func()) {
	t.Helper()
	var socket net.PacketConn
	err := n.Client.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	blue, err1 := net.ResolveUDPAddr("udp4", ktest.Blue4+":8080") // which sends all back
	away, err2 := net.ResolveUDPAddr("udp4", saoPaulo)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer socket.Close()
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			socket.WriteTo(make([]byte, 1000), blue)
			socket.WriteTo(make([]byte, 500), away)
			select {
			case <-stopping:
				return
			case <-ticker.C:
			}
		}
	}()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			close(stopping)
			<-stopped
		}
	}
	t.Cleanup(stop)
	return stop
}

// books is what the page's state says of all bytes.
type books struct {
	Books struct{ Pods, Flows, External, Places uint64 }
}

func (n *node) books(t *testing.T) (b books) {
	t.Helper()
	content, err := n.get("/page/state")
	if err == nil {
		err = json.Unmarshal(content, &b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}
