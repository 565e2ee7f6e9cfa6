// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/geo/demodb"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	outside = "203.0.113.9" // an address of the world
	// frame is one of the datagrams of 100 bytes, from Ethernet header to end.
	frame = 14 + 20 + 8 + 100
)

// outlet is a host whose pod reaches the world by an uplink, up0.
type outlet struct {
	*host
	world *ktest.Namespace
	// bare is what the device leaves out of each packet that it receives, in bytes.
	bare uint64
}

func newOutlet(t testing.TB) *outlet {
	t.Helper()
	o := &outlet{host: newHost(t)}
	o.world = o.node.Pod(t, ktest.PodOptions{Device: "up0", Gateway: "192.0.2.1/24", Address: "192.0.2.2/24", Introduced: true}).Namespace
	o.node.Sysctl(t, "net/ipv4/ip_forward", "1")
	o.world.Address(t, "lo", outside+"/32")
	route(t, o.pod, "0.0.0.0/0", "198.51.100.1")
	route(t, o.node, "203.0.113.0/24", "192.0.2.2")
	route(t, o.world, "198.51.100.0/24", "192.0.2.1")
	return o
}

func route(t testing.TB, in *ktest.Namespace, to, gateway string) {
	t.Helper()
	_, network, err := net.ParseCIDR(to)
	if err == nil {
		err = in.Do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: network, Gw: net.ParseIP(gateway)}) })
	}
	if err != nil {
		t.Fatalf("route to %s: %v", to, err)
	}
}

// visit sends datagrams from the pod to the world.
func (o *outlet) visit(t testing.TB, count int) {
	t.Helper()
	o.pod.Send(t, outside+":9", 100, count)
}

// uplink returns what passed the uplink, as its device counted it.
func (o *outlet) uplink(t testing.TB) (c [flows.Directions]flows.Counters) {
	t.Helper()
	err := o.node.Do(func() error {
		l, err := netlink.LinkByName("up0")
		if err != nil {
			return err
		}
		s := l.Attrs().Statistics
		c[flows.Transmit] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
		c[flows.Receive] = flows.Counters{Bytes: s.RxBytes + o.bare*s.RxPackets, Packets: s.RxPackets}
		return nil
	})
	if err != nil {
		t.Fatalf("read counters: %v", err)
	}
	return c
}

func (o *outlet) awaitUplink(t *testing.T, p *process) *agent.Status {
	t.Helper()
	return o.await(t, p, "veth0 and up0 are attached", func(s *agent.Status) bool {
		return len(s.Interfaces) == 1 && s.Interfaces[0].State == "attached" && s.Interfaces[0].Pod == "veth0" &&
			len(s.Uplinks) == 1 && s.Uplinks[0].State == "attached" && s.Uplinks[0].Name == "up0"
	})
}

// geoip writes the demo's databases and returns the flag's value.
func (o *outlet) geoip(t *testing.T) string {
	t.Helper()
	city, asn := filepath.Join(o.dir, "city.mmdb"), filepath.Join(o.dir, "asn.mmdb")
	for path, content := range map[string][]byte{city: demodb.City(), asn: demodb.ASN()} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return city + "," + asn
}

// checkUplink waits until the device's counts are exported, and checks that the
// rows by peer add up to them, each direction and unit.
func (o *outlet) checkUplink(t *testing.T, p *process, want [flows.Directions]flows.Counters) {
	t.Helper()
	for d, c := range want {
		direction := flows.Direction(d).String()
		for unit, want := range map[string]uint64{"bytes": c.Bytes, "packets": c.Packets} {
			all := "podmeter_uplink_interface_" + direction + "_" + unit + "_total"
			o.await(t, p, "all of "+all, func(*agent.Status) bool {
				return o.value(t, all, "interface", "up0") >= float64(want)
			})
			for _, family := range []string{all, "podmeter_uplink_" + direction + "_" + unit + "_total"} {
				if got := o.value(t, family, "interface", "up0"); got != float64(want) {
					t.Errorf("%s: got %v, want the device's %d", family, got, want)
				}
			}
		}
	}
}

// A pod that talks to the world through an uplink is on its own series and on
// those of the uplink, both exact and neither in the other, also when the agent
// was killed meanwhile.
func TestUplinkEndToEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		xdp  string
		bare uint64
	}{{"off", 0}, {"native", 14}} { // a veth with XDP counts no Ethernet header
		t.Run("XDP "+test.xdp, func(t *testing.T) {
			t.Parallel()
			o := newOutlet(t)
			o.bare = test.bare
			o.reconcile(t, o.flags("--uplinks", "up*,!up9", "--uplinks", "up0", "--interfaces", "!up0",
				"--xdp-mode", test.xdp, "--geoip", o.geoip(t)))
		})
	}
}

func (o *outlet) reconcile(t *testing.T, flags []string) {
	t.Helper()
	p := start(t, o.node, nil, flags...)
	before := o.awaitUplink(t, p).Interfaces[0].Before[0]
	o.visit(t, 40)
	o.checkUplink(t, p, o.uplink(t))
	p.Process.Kill()
	p.end(t)
	o.visit(t, 30) // counted while no agent runs
	p = start(t, o.node, nil, flags...)
	o.awaitUplink(t, p)
	o.visit(t, 10)
	o.checkUplink(t, p, o.uplink(t))
	_, pod := o.counters(t)
	o.await(t, p, "all of the pod, which is drained apart", func(*agent.Status) bool {
		return o.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= pod-float64(before.Bytes)
	})
	for _, c := range []struct {
		family, label, is string
		want              float64
	}{
		{"podmeter_pod_transmit_bytes_total", "pod", "veth0", pod - float64(before.Bytes)},
		{"podmeter_pod_transmit_bytes_total", "namespace", "", pod - float64(before.Bytes)}, // of all pods
		{"podmeter_flow_transmit_bytes_total", "peer_kind", "external", 80 * frame},
		{"podmeter_external_transmit_bytes_total", "country", "BR", 80 * frame},
		{"podmeter_uplink_transmit_bytes_total", "country", "BR", 80 * frame},
		{"podmeter_uplink_transmit_packets_total", "country", "BR", 80},
		{"podmeter_uplink_transmit_packets_total", "asn", "64498", 80},
		{"podmeter_uplink_transmit_packets_total", "locality", "external", 80},
		{"podmeter_uplink_transmit_packets_total", "peer_kind", "unattributed", 0},
		{"podmeter_lost_bytes_total", "reason", "no_interface", 0},
	} {
		if got := o.value(t, c.family, c.label, c.is); got != c.want {
			t.Errorf("%s{%s=%q}: got %v, want %v", c.family, c.label, c.is, got, c.want)
		}
	}
	p.terminate(t)
}

// A pod's interface never gets XDP: the agent goes on without that uplink, and the
// status and a metric say so.
func TestUplinkRefused(t *testing.T) {
	t.Parallel()
	o := newOutlet(t)
	p := start(t, o.node, nil, o.flags("--uplinks", "up0", "--xdp-mode", "native")...)
	status := o.await(t, p, "up0 is refused", func(s *agent.Status) bool {
		return len(s.Interfaces) == 1 && len(s.Uplinks) == 1 && s.Uplinks[0].State == "refused"
	})
	if got := status.Uplinks[0].Problem; !strings.Contains(got, "never gets XDP") {
		t.Errorf("problem: got %q", got)
	}
	client := newClient(o.sock)
	defer client.close()
	text, err := client.metrics(t.Context())
	if want := `podmeter_uplinks{state="refused"} 1`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("metrics: got %v, want %s in them", err, want)
	}
	p.terminate(t)
}

func TestStatusTextOfUplinks(t *testing.T) {
	status := sample()
	status.Uplinks = []agent.UplinkStatus{
		{Name: "eth0", Index: 2, Attachment: "xdp+tcx", State: "attached",
			Transmit: flows.Counters{Bytes: 1 << 30, Packets: 1000}, Receive: flows.Counters{Bytes: 99, Packets: 1}},
		{Name: "eth1", Index: 3, State: "refused", Problem: "it has a program"},
	}
	const want = `
UPLINK    ATTACHMENT  STATE     TRANSMIT  PACKETS  RECEIVE  PACKETS
eth0 (2)  xdp+tcx     attached  1.0 GiB   1,000    99 B     1
eth1 (3)              refused   0 B       0        0 B      0
eth1; PROBLEM: it has a program
`
	got := new(recorder).run(t, nil, "status", "--socket", serveStatus(t, status))
	if !strings.HasSuffix(got.stdout, want) {
		t.Errorf("got %q, want it to end with %q", got.stdout, want)
	}
}

// Without --uplinks what was left of them is removed, and uninstalling removes it
// from an agent that was killed.
func TestUplinkLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	o := newOutlet(t)
	pins, checkpoint := filepath.Join(o.pins, "uplinks"), filepath.Join(o.dir, "state", "checkpoint-uplinks")
	left := func() (left []string) {
		for _, path := range []string{pins, checkpoint} {
			if _, err := os.Stat(path); err == nil {
				left = append(left, path)
			}
		}
		return left
	}
	run := func(attach string) {
		t.Helper()
		p := start(t, o.node, nil, o.flags("--uplinks", "up0", "--attach", attach)...)
		o.awaitUplink(t, p)
		o.await(t, p, "there is a checkpoint", func(*agent.Status) bool { return len(left()) == 2 })
		p.Process.Kill()
		p.end(t)
	}
	run("auto")
	p := start(t, o.node, nil, o.flags("--interfaces", "!up0")...)
	o.awaitAttached(t, p)
	if got := left(); len(got) > 0 {
		t.Errorf("after an agent without uplinks: got %v, want nothing left", got)
	}
	p.terminate(t)
	run("netlink")
	if code := start(t, o.node, nil, "uninstall", "--pin-path", o.pins, "--state-dir", filepath.Join(o.dir, "state")).end(t); code != 0 {
		t.Errorf("uninstall: got exit code %d, want 0", code)
	}
	if got := left(); len(got) > 0 {
		t.Errorf("after uninstalling: got %v, want nothing left", got)
	}
	if _, err := os.Stat(o.pins); !os.IsNotExist(err) {
		t.Errorf("pin path: got %v, want it to be gone", err)
	}
	if got := filters(t, o.node, "up0"); got != 0 {
		t.Errorf("got %d filters on the uplink, want none", got)
	}
}

func filters(t *testing.T, in *ktest.Namespace, device string) (n int) {
	t.Helper()
	err := in.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			all, err := netlink.FilterList(l, parent)
			if err != nil && err != unix.EINVAL {
				return err
			}
			n += len(all)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("list filters: %v", err)
	}
	return n
}
