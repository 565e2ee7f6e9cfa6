// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

const (
	// hostilePods are pods that attack. As one may have a quarter of a table, so many fill it.
	hostilePods = 4
	// namedPods are pods elsewhere that have names, which are as many peers.
	namedPods = 1200
	// strangers are the addresses outside of the node from which connections come.
	strangers = 200

	victimName = "victim"
	// The node has the first address in each network, the other end the second.
	victimNetwork, scraperNetwork, outside = "10.1.0", "192.0.2", "203.0.113"
	// victimPeer is outside of the node, and the victim's alone, as latePeer is, to whom it
	// talks when the tables are full.
	victimPeer, latePeer = outside + ".250", outside + ".251"

	port = "9739"
)

// world is a node with pods, one of whom is the victim, and what is outside of it.
type world struct {
	node, outside, scraper *ktest.Namespace
	victim                 *ktest.Pod
	hostile                [hostilePods]*ktest.Pod
	// cgroups has a kubelet's root, and in it those of the hostile pods' containers, inside.
	// Pods are known by it if it is directly below the hierarchy's root, which is where
	// the test's own cgroup has it; known is whether that is so.
	cgroups *ktest.Cgroup
	known   bool
	inside  [hostilePods]*ktest.Cgroup
	agent   *target
	talk    *talk
	scrapes *scraper
	last    samples // after the last attack
}

func hostileNetwork(n int) string { return fmt.Sprintf("10.1.%d", n+1) }

// hostileName is the name of a hostile pod and, on the node, of its interface.
func hostileName(n int) string { return fmt.Sprintf("hostile%d", n) }

func hostileUID(n int) string { return fmt.Sprintf("11111111-2222-3333-4444-%012d", n) }

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	w := &world{node: ktest.NewNode(t), cgroups: ktest.NewCgroup(t)}
	root, err := ktest.UnifiedHierarchy()
	if err != nil {
		t.Fatal(err)
	}
	w.known = filepath.Dir(w.cgroups.Path) == root
	pods := w.cgroups.Child(t, "kubepods")
	w.node.Sysctl(t, "net/ipv4/ip_forward", "1")
	w.victim = w.pod(t, victimName, victimNetwork)
	for n := range w.hostile {
		w.hostile[n] = w.pod(t, hostileName(n), hostileNetwork(n))
		w.inside[n] = pods.Child(t, "pod"+hostileUID(n)).Child(t, fmt.Sprintf("%064d", n))
	}
	w.outside = w.stranger(t, "up0", outside)
	for n := range strangers {
		w.outside.Address(t, "eth0", fmt.Sprintf("%s.%d/32", outside, 10+n))
	}
	w.outside.Address(t, "eth0", victimPeer+"/32")
	w.outside.Address(t, "eth0", latePeer+"/32")
	w.scraper = w.stranger(t, "mon0", scraperNetwork)
	w.agent = newTarget(t, w.node, binary)
	return w
}

// pod makes a pod that sends everything to the node.
func (w *world) pod(t *testing.T, name, network string) *ktest.Pod {
	t.Helper()
	p := w.node.Pod(t, ktest.PodOptions{Device: name, Gateway: network + ".1/24", Address: network + ".2/24", Introduced: true})
	route(t, p.Namespace, p.Gateway)
	return p
}

// stranger is a namespace that is joined to the node and is no pod.
func (w *world) stranger(t *testing.T, device, network string) *ktest.Namespace {
	t.Helper()
	s := ktest.NewNode(t)
	w.node.Veth(t, device, s, "eth0")
	w.node.Address(t, device, network+".1/24")
	s.Address(t, "eth0", network+".2/24")
	route(t, s, network+".1")
	return s
}

func route(t *testing.T, from *ktest.Namespace, gateway string) {
	t.Helper()
	err := from.Do(func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}) })
	if err != nil {
		t.Fatalf("add default route: %v", err)
	}
}

// static is the content of a file that names all of it.
func (w *world) static() string {
	var b strings.Builder
	b.WriteString("node: {name: here}\nnodes:\n- {name: here, addresses: [192.0.2.1, 203.0.113.1]}\n" +
		"podCIDRs: [10.0.0.0/8]\npods:\n")
	name := func(name, address, more string) {
		fmt.Fprintf(&b, "- {namespace: ns, name: %s, ips: [%s]%s}\n", name, address, more)
	}
	name(victimName, w.victim.IP, "")
	for n, p := range w.hostile {
		name(hostileName(n), p.IP, "")
	}
	for n := range namedPods {
		name(fmt.Sprint("named-", n), namedPod(n).String(), ", node: there")
	}
	return b.String()
}

// namedPod is the address of a pod elsewhere.
func namedPod(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)}) }

// globs are the interfaces of pods.
const globs = victimName + ",hostile*"

// start starts the agent, and when it meters the victim's talk and the scraper.
func (w *world) start(t *testing.T, scheme string, change func(*http.Transport, *http.Request), flags ...string) {
	t.Helper()
	w.agent.start(t, append([]string{"--interfaces", globs, "--flow-labels", "peer_port,process", "--external-labels", "ip"}, flags...)...)
	w.agent.await(t, "all pods are metered and bound", attached)
	w.talk = newTalk(t, w)
	w.last = w.agent.metrics(t)
	w.scrapes = newScraper(t, w, scheme, change)
}
