// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// bandwidthPlugin is where Debian's package containernetworking-plugins has it.
const bandwidthPlugin = "/usr/lib/cni/bandwidth"

// limits ask for shaping in both directions, of more than is ever sent here.
const limits = `{"cniVersion": "0.4.0", "name": "net", "type": "bandwidth",
"ingressRate": 1000000000, "ingressBurst": 80000000, "egressRate": 1000000000, "egressBurst": 80000000,
"prevResult": {"cniVersion": "0.4.0", "interfaces": [{"name": "%s"}, {"name": "eth0", "sandbox": "%s"}],
"ips": [{"version": "4", "address": "%s/24", "interface": 1}]}}`

// requireBandwidth skips the test without the plugin, or without what it needs.
func requireBandwidth(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(bandwidthPlugin); err != nil {
		t.Skipf("CNI plugin bandwidth (package containernetworking-plugins): %v", err)
	}
	err := ktest.NewNamespace(t).Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "ifb0"
		return netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	})
	if err != nil {
		t.Skipf("the kernel makes no ifb device: %v", err)
	}
}

// limitBandwidth runs the plugin as a container runtime does when a pod is made.
func (w *wire) limitBandwidth(t testing.TB) error {
	t.Helper()
	sandbox := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.pod.FD())
	return w.host.Do(func() error {
		command := exec.Command(bandwidthPlugin) // starts in the namespace of this thread
		command.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + w.name, "CNI_NETNS=" + sandbox, "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni",
		}
		command.Stdin = strings.NewReader(fmt.Sprintf(limits, w.name, sandbox, w.address))
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("bandwidth: %w: %s", err, out)
		}
		return nil
	})
}

func mustLimitBandwidth(t testing.TB, w *wire) {
	t.Helper()
	if err := w.limitBandwidth(t); err != nil {
		t.Fatal(err)
	}
}

// With TCX the plugin may come before podmeter and after it: both work, and every
// packet is counted, those included that it takes round by another device.
func TestBandwidthPluginWithTCX(t *testing.T) {
	t.Parallel()
	ktest.RequireTCX(t)
	requireBandwidth(t)
	testStrangers(t, AttachTCX, []stranger{
		{name: "plugin before podmeter", before: mustLimitBandwidth},
		{name: "plugin after podmeter", after: mustLimitBandwidth},
	})
}

// With netlink the plugin comes first, as an interface waits for its pod. It takes
// the packets that the pod sends before we see them, and leaves no hook for those
// that the pod receives.
func TestBandwidthPluginWithNetlink(t *testing.T) {
	t.Parallel()
	requireBandwidth(t)
	host, list := ktest.NewNamespace(t), &podList{}
	a := newArchive()
	o := testOptions(t, host, nil)
	o.Attach, o.Ready = AttachNetlink, list.ready
	cleanPins(t, o)
	l := a.start(t, o)
	ktest.Await(t, "first listing", func() bool { return l.LastDrain().Count > 0 })
	w := newPod(t, host, "veth0", "198.51.100.2")
	ktest.Await(t, "the pod is asked for", func() bool { return list.times() > 0 })
	mustLimitBandwidth(t, w)
	start := takeInventory(t, host, o.PinPath)
	w.talk(t)
	list.add("198.51.100.2")
	ktest.Await(t, "veth0 is attached", l.settled(1))
	l = a.restarts(t, o, l, []*wire{w}, func(when string) {
		compareLists(t, when, takeInventory(t, host, o.PinPath).foreign, start.foreign)
	})
	want := byDirection(w.settled(t))
	ktest.Await(t, "the interface's packets are all accounted for", func() bool {
		totals, seeded := a.of("veth0")
		got := totals.add(seeded)
		sent := got[flows.Transmit].Packets
		if sent < want[flows.Transmit].Packets { // what is hidden is told, if not published
			sent += uint64(l.Interfaces()[0].Difference[flows.Transmit])
		}
		return got[flows.Receive] == want[flows.Receive] && sent == want[flows.Transmit].Packets
	})
	l.stop(t)
	uninstall(t, host, o.PinPath)
	compareLists(t, "uninstalled", takeInventory(t, host, o.PinPath).all, start.all)
}

// Why an interface has to wait: the plugin fails where a clsact is.
func TestBandwidthPluginFailsAfterClsact(t *testing.T) {
	t.Parallel()
	requireBandwidth(t)
	w := newQuietWire(t)
	w.addClsact(t)
	if err := w.limitBandwidth(t); err == nil || !strings.Contains(err.Error(), "create ingress qdisc") {
		t.Errorf("got %v, want the plugin to fail: then nobody needs to wait any more", err)
	}
}
