// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

// port is that of the traffic program's servers.
const port = "9000"

// world applies a file of pods that run the traffic program, and waits for its
// controllers.
func (c *cluster) world(t *testing.T, namespace string) {
	t.Helper()
	c.namespace(t, namespace)
	c.apply(t, namespace, "traffic.yaml")
	for _, controller := range []string{"deployment/echo", "statefulset/store", "deployment/client", "deployment/host"} {
		c.rolledOut(t, namespace, controller)
	}
	c.translated(t, namespace, "echo")
}

// translated waits until kube-proxy leads to the endpoints of a Service: until then the node
// refuses what is sent to it, or drops it.
func (c *cluster) translated(t *testing.T, namespace, service string) {
	t.Helper()
	for n, address := range c.service(t, namespace, service) {
		family := []string{"ip", "ip6"}[n]
		ktest.AwaitWithin(t, patience, "endpoints of "+address, func() string {
			out, err := exec.CommandContext(t.Context(), "nft", "list", "map", family, "kube-proxy", "service-ips").CombinedOutput()
			for _, protocol := range []string{"tcp", "udp"} {
				if err != nil || !strings.Contains(string(out), address+" . "+protocol+" . 7 : goto") {
					return fmt.Sprintf("%v: %s", err, out)
				}
			}
			return ""
		})
	}
}

// outside are addresses beyond the node's uplink, IPv4 first.
var outside = []string{"198.51.100.7", "2001:db8:ffff::7"}

// internet lets them answer.
func internet(t *testing.T) {
	t.Helper()
	server := exec.Command("ip", "netns", "exec", "internet", os.Getenv("PODMETER_E2E_TRAFFIC"),
		"serve", net.JoinHostPort(outside[0], port), net.JoinHostPort(outside[1], port))
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatalf("start a server in the internet: %v", err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	ktest.AwaitWithin(t, patience, "a server in the internet", func() string {
		connection, err := net.DialTimeout("tcp", net.JoinHostPort(outside[0], port), time.Second)
		if err != nil {
			return err.Error()
		}
		_ = connection.Close()
		return ""
	})
}

// traffic runs the traffic program in a pod, and returns what it printed.
func (c *cluster) traffic(t *testing.T, namespace, pod string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := c.trafficIn(ctx, container(t, namespace, pod), args...)
	if err != nil {
		t.Fatalf("in %s/%s: traffic %s: %v: %s", namespace, pod, strings.Join(args, " "), err, out)
	}
	return out
}

// background starts the traffic program in a pod, and returns what waits for its
// end.
func (c *cluster) background(t *testing.T, namespace, pod string, args ...string) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	in, ended := container(t, namespace, pod), make(chan error, 1)
	go func() {
		out, err := c.trafficIn(ctx, in, args...)
		if err != nil {
			err = fmt.Errorf("in %s/%s: traffic %s: %w: %s", namespace, pod, strings.Join(args, " "), err, out)
		}
		ended <- err
	}()
	return func() {
		t.Helper()
		defer cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// trafficIn runs it in a container. It asks containerd, as the API server may be away.
func (c *cluster) trafficIn(ctx context.Context, container string, args ...string) (string, error) {
	id := fmt.Sprintf("e2e-%d", time.Now().UnixNano())
	command := exec.CommandContext(ctx, "ctr", append([]string{"tasks", "exec", "--exec-id", id, container, "/bin/traffic"}, args...)...)
	out, err := command.CombinedOutput()
	return string(out), err
}

// container returns the id of the running container of a pod with one.
func container(t *testing.T, namespace, pod string) string {
	t.Helper()
	return task(t, namespace, pod, `"io.cri-containerd.kind"==container`)
}

// containerOf returns the id of a pod's running container of this name.
func containerOf(t *testing.T, namespace, pod, name string) string {
	t.Helper()
	return task(t, namespace, pod, `"io.kubernetes.container.name"==`+name)
}

// sandbox returns the id of the container that holds the pod's network.
func sandbox(t *testing.T, namespace, pod string) string {
	t.Helper()
	return task(t, namespace, pod, `"io.cri-containerd.kind"==sandbox`)
}

// task returns the id of the running container of a pod with a label.
func task(t *testing.T, namespace, pod, label string) (found string) {
	t.Helper()
	filter := fmt.Sprintf(`labels."io.kubernetes.pod.namespace"==%q,labels."io.kubernetes.pod.name"==%q,labels.%s`, namespace, pod, label)
	ktest.AwaitWithin(t, patience, "a container of "+namespace+"/"+pod+" with "+label, func() string {
		all, running := ctr(t, "containers", "list", "--quiet", filter), ctr(t, "tasks", "list")
		for line := range strings.Lines(running) {
			fields := strings.Fields(line)
			if len(fields) == 3 && fields[2] == "RUNNING" && slices.Contains(strings.Fields(all), fields[0]) {
				found = fields[0]
				return ""
			}
		}
		return "containers: " + all + "; tasks: " + running
	})
	return found
}

func ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ctr", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// datagrams are so many, each of so many bytes and echoed.
type datagrams struct{ count, size int }

// to returns the arguments of the traffic program.
func (d datagrams) to(address string) []string {
	return []string{"udp", address, fmt.Sprint(d.count), fmt.Sprint(d.size)}
}

// request is a TCP connection with so many bytes each way.
type request struct{ sent, wanted int }

// to returns the arguments of the traffic program.
func (r request) to(address string) []string {
	return []string{"tcp", address, fmt.Sprint(r.sent), fmt.Sprint(r.wanted)}
}

// carriedBy reports whether packets hold it, and few headers besides.
func (r request) carriedBy(c counters) bool {
	holds := func(bytes float64, payload int) bool {
		return bytes > float64(payload) && bytes < 1.2*float64(payload)
	}
	return holds(c.transmitBytes, r.sent) && holds(c.receiveBytes, r.wanted)
}

// counters returns what they are on a pod's interface, with headers.
func (d datagrams) counters(address string) counters {
	headers := 14 + 20 + 8
	if strings.Contains(address, ":") {
		headers = 14 + 40 + 8
	}
	bytes, packets := float64(d.count*(d.size+headers)), float64(d.count)
	return counters{bytes, packets, bytes, packets}
}
