// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// What is exported is the interface's own count, with what passed before: of an agent
// that has counted a while, and of the next one, to which it left its checkpoint.
func TestVerifyOfARunningAgent(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			h := newHost(t)
			h.exchange(t, 7, 5)
			p := start(t, h.node, nil, h.resting("--attach", attach)...)
			h.awaitMetered(t, p)
			h.exchange(t, 40, 30)
			proof := h.verify(t)
			proof.check(t, "veth0", bothEqual, 30)
			sent := proof.row(t, "veth0", flows.Transmit)
			packets, bytes := h.counters(t)
			if got := sent.Kernel; float64(got.Packets) != packets || float64(got.Bytes) != bytes || sent.Before.Packets < 7 {
				t.Errorf("got %+v of the kernel, %+v before, want %v bytes in %v packets, 7 at least before", got, sent.Before, bytes, packets)
			}
			p.terminate(t)
			h.exchange(t, 20, 20) // while none runs
			p = start(t, h.node, nil, h.resting("--attach", attach)...)
			h.awaitMetered(t, p)
			h.exchange(t, 3, 3)
			h.verify(t).check(t, "veth0", bothEqual, 50)
			table := h.verifying(t)
			if table.code != 0 || !strings.Contains(table.stdout.String(), "\nAll equal: ") || table.stderr.Len() > 0 {
				t.Errorf("as a table: got code %d, %s%s", table.code, &table.stdout, &table.stderr)
			}
			p.terminate(t)
		})
	}
}

// One byte in one row of what is exported is found, wherever it is.
func TestVerifyFindsAFalseRow(t *testing.T) {
	t.Parallel()
	requireTestBuild(t)
	for what, want := range map[string]string{
		"a flow row":              "flow + flow_retired = pod, transmit bytes: veth0 has ",
		"a pod":                   "interfaces + earlier interfaces = pod, transmit bytes: veth0 has ",
		"an interface":            "veth0 of veth0, transmit: kernel minus podmeter is -1 / 0, not 0 / 0",
		"a pod and its interface": "veth0 of veth0, transmit: kernel minus podmeter is -1 / 0, not 0 / 0",
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			p := start(t, h.node, []string{falsify + "=" + what}, h.resting()...)
			h.awaitMetered(t, p)
			h.exchange(t, 40, 30)
			proof := h.verify(t)
			if proof.code != verify.CodeUnequal || !strings.Contains(strings.Join(proof.report.Faults(), "\n"), want) {
				t.Errorf("got code %d and faults %q, want %d and %q among them", proof.code, proof.report.Faults(), verify.CodeUnequal, want)
			}
			if said := proof.stderr.String(); !strings.HasPrefix(said, "podmeter: NOT EQUAL: ") {
				t.Errorf("got %q, want it to be told", said)
			}
			received := proof.row(t, "veth0", flows.Receive)
			if received.Verdict != verify.Equal {
				t.Errorf("receive: got %+v, want it %s", received, verify.Equal)
			}
		})
	}
}

// An interface on which packets never rest cannot be judged, and is named.
func TestVerifyWhileItMoves(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.resting()...)
	h.awaitMetered(t, p)
	stop := h.flood(t)
	proof := h.verify(t)
	for n := 0; n < 5 && proof.code == 0; n++ { // on a busy machine the sender may have rested
		proof = h.verify(t)
	}
	stop()
	sent, received := proof.row(t, "veth0", flows.Transmit), proof.row(t, "veth0", flows.Receive)
	// Refusals come to the pod, now and then one each time.
	judged := received.Verdict == verify.Equal || received.Verdict == verify.Moving
	if proof.code != verify.CodeUndecided || sent.Verdict != verify.Moving || !judged || proof.report.Tries != verify.MaxTries {
		t.Errorf("got code %d after %d tries, transmit %+v, receive %+v; want %d after %d, transmit moving", proof.code, proof.report.Tries,
			sent, received, verify.CodeUndecided, verify.MaxTries)
	}
	if said := proof.stderr.String(); !strings.Contains(said, "moving: veth0") {
		t.Errorf("got %q, want the interface that moves", said)
	}
	h.verify(t).check(t, "veth0", bothEqual, 0)
}

// flood sends from the pod without a pause until what it returns is called.
func (h *host) flood(t *testing.T) (stop func()) {
	t.Helper()
	conn, began := h.dial(t), make(chan struct{})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
				conn.Write(make([]byte, 100)) // refusals are told here, too
			}
			if n == 0 {
				close(began)
			}
		}
	}()
	<-began
	return func() {
		close(done)
		<-ended
		conn.Close()
	}
}

func (h *host) dial(t *testing.T) (conn net.Conn) {
	t.Helper()
	err := h.pod.Do(func() (err error) {
		conn, err = net.Dial("udp", "198.51.100.1:9")
		return err
	})
	if err != nil {
		t.Fatalf("open a socket in the pod: %v", err)
	}
	return conn
}

// A watch goes on until it is interrupted, also where there is no agent for a while, and
// its code is the worst round's.
func TestVerifyIsWatched(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.resting()...)
	h.awaitMetered(t, p)
	good, bad := h.watch(t), h.watch(t)
	good.await(t, "All equal: ", 2)
	if code := good.interrupt(t); code != verify.CodeEqual {
		t.Errorf("got code %d, want %d:\n%s", code, verify.CodeEqual, good.said(t))
	}
	bad.await(t, "All equal: ", 1)
	p.Process.Kill()
	p.end(t)
	bad.await(t, "\npodmeter: ", 1)
	p = start(t, h.node, nil, h.resting()...)
	h.awaitMetered(t, p)
	bad.await(t, "All equal: ", strings.Count(bad.said(t), "All equal: ")+1)
	if code := bad.interrupt(t); code != verify.CodeUnequal {
		t.Errorf("got code %d, want %d as a round had no answer:\n%s", code, verify.CodeUnequal, bad.said(t))
	}
}

// A drain is not to be had from the network.
func TestDrainIsOfTheSocketAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.resting()...)
	h.awaitMetered(t, p)
	drains := h.await(t, p, "a status", func(*agent.Status) bool { return true }).Drain.Count
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = h.node.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	response, err := client.Post("http://127.0.0.1:9739"+agent.DrainPath, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("got %s, want it refused", response.Status)
	}
	if now := h.await(t, p, "a status", func(*agent.Status) bool { return true }).Drain.Count; now != drains {
		t.Errorf("got %d drains, want the %d of before", now, drains)
	}
}

// An interface without a known pod is judged by what waits, and named.
func TestVerifyOfAnUnboundInterface(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := filepath.Join(h.dir, "pods.yaml")
	if err := os.WriteFile(file, []byte("pods:\n- {name: a, namespace: x, ips: [203.0.113.9]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, h.node, nil, h.resting("--static-file", file)...)
	h.awaitMetered(t, p)
	h.exchange(t, 40, 30)
	proof := h.verify(t)
	proof.check(t, "veth0", [flows.Directions]verify.Verdict{verify.Explained, verify.Explained}, 0)
	if len(proof.report.Unbound) != 1 || proof.report.Unbound[0].Bytes < 70*142 || proof.row(t, "veth0", flows.Transmit).Podmeter.Bytes != 0 {
		t.Errorf("got %+v, want veth0 with 70 datagrams", proof.report.Unbound)
	}
}

// An interface that was let go of and is attached to again is compared with what the
// attachments have counted together; a pod's series go on.
func TestVerifyOfAnInterfaceThatComesBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.flags("--interfaces", "veth*,x*")...)
	h.awaitMetered(t, p)
	h.exchange(t, 20, 10)
	h.rename(t, "y0") // not metered
	h.await(t, p, "veth0 has been left", func(s *agent.Status) bool { return len(s.Interfaces) == 0 })
	h.exchangeAs(t, "y0", 5, 5)
	h.rename(t, "veth0")
	h.awaitMetered(t, p)
	h.exchangeAs(t, "veth0", 3, 4)
	proof := h.verify(t)
	proof.check(t, "veth0", bothEqual, 3)
	if earlier := proof.row(t, "veth0", flows.Transmit).Before; earlier.Packets < 20 {
		t.Errorf("before: got %+v, want the 20 packets at least that the first attachment counted", earlier)
	}
}

// rename gives the host's end of the veth another name.
func (h *host) rename(t *testing.T, name string) {
	t.Helper()
	err := h.node.Do(func() error {
		l, err := netlink.LinkByIndex(h.index)
		if err == nil {
			err = netlink.LinkSetDown(l)
		}
		if err == nil {
			err = netlink.LinkSetName(l, name)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		return err
	})
	if err != nil {
		t.Fatalf("rename the interface: %v", err)
	}
}

// exchangeAs exchanges packets where the interface was down, and has forgotten its peer.
func (h *host) exchangeAs(t *testing.T, name string, transmit, receive int) {
	t.Helper()
	h.node.Introduce(t, name, "198.51.100.2", h.pod, "eth0")
	h.pod.Introduce(t, "eth0", "198.51.100.1", h.node, name)
	h.exchange(t, transmit, receive)
}

// An agent that cannot be compared with the kernel's counters here is not judged well.
func TestVerifyElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.resting()...)
	h.awaitMetered(t, p)
	h.exchange(t, 4, 3)
	other := *h
	other.node = ktest.NewNamespace(t)
	proof := other.verify(t)
	if row := proof.row(t, "veth0", flows.Transmit); proof.code != verify.CodeUndecided || row.Verdict != verify.Unknown ||
		!strings.Contains(row.Why, "another network namespace") {
		t.Errorf("got code %d and %+v, want %d and that it is elsewhere", proof.code, row, verify.CodeUndecided)
	}
}

// What crosses an uplink is checked by its own invariant, after a drain of its own.
func TestVerifyWithUplinks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.outside = ktest.NewNamespace(t)
	h.node.Veth(t, "up0", h.outside, "eth0")
	h.node.Address(t, "up0", "203.0.113.1/24")
	h.outside.Address(t, "eth0", "203.0.113.2/24")
	p := start(t, h.node, nil, h.resting("--uplinks", "up0")...)
	h.awaitMetered(t, p)
	h.await(t, p, "up0 is metered", func(s *agent.Status) bool { return len(s.Uplinks) == 1 && s.Uplinks[0].State == "attached" })
	h.exchange(t, 20, 10)
	h.outside.Send(t, "203.0.113.1:9", 100, 40)
	proof := h.verify(t)
	proof.check(t, "veth0", bothEqual, 10)
	held := 0
	for _, i := range proof.report.Invariants {
		if strings.HasPrefix(i.Name, "uplink + uplink_retired = uplink_interface, ") && i.Holders == 1 {
			held++
		}
	}
	if held != 4 || len(proof.report.NotMetered) > 0 {
		t.Errorf("got %d invariants of up0 and %q not metered, want 4 and none", held, proof.report.NotMetered)
	}
	if got := h.value(t, "podmeter_uplink_interface_receive_packets_total", "interface", "up0"); got < 40 {
		t.Errorf("up0 received %v packets, want the 40 at least that were sent before the drain", got)
	}
}
