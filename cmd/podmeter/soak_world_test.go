// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// The node's own addresses, to which pods talk.
const (
	soakNode4 = "203.0.113.1"
	soakNode6 = "2001:db8::1"
)

// soakWorld is a node with pods that come and go. Pods are made and deleted by one
// goroutine.
type soakWorld struct {
	*host
	pods    map[string]*soakPod
	made    int
	slots   []int // free ones: a slot is a pod's pair of addresses
	traffic soakTraffic
}

// soakPod is a pod with a veth of its own, and what talks in it.
type soakPod struct {
	name      string
	slot      int
	namespace *ktest.Namespace
	stop      context.CancelFunc
	talking   sync.WaitGroup
	// attached is how many samples in a row had its interface attached.
	attached int
	lasting  bool
}

// newSoakWorld makes a node that routes between its pods and answers them.
func newSoakWorld(t *testing.T) *soakWorld {
	t.Helper()
	w := &soakWorld{host: newHost(t), pods: make(map[string]*soakPod)}
	for slot := range 64 {
		w.slots = append(w.slots, slot)
	}
	for setting, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/all/disable_ipv6": "0",
		"net/ipv6/conf/default/disable_ipv6": "0", "net/ipv6/conf/default/accept_dad": "0",
	} {
		w.node.Sysctl(t, setting, value)
	}
	w.node.Address(t, "lo", soakNode4+"/32")
	w.node.Address(t, "lo", soakNode6+"/128")
	w.traffic.serve(t, w.node)
	t.Cleanup(func() {
		for _, p := range w.pods {
			p.quiet()
		}
	})
	return w
}

// add makes a pod that talks at once: what passes before its interface is
// attached has to be seeded.
func (w *soakWorld) add(t *testing.T, lasting bool) {
	t.Helper()
	p := &soakPod{
		name: fmt.Sprintf("pod%07d", w.made), slot: w.slots[0], namespace: ktest.NewNamespace(t), lasting: lasting,
	}
	w.made++
	w.slots = w.slots[1:]
	p.namespace.Sysctl(t, "net/ipv6/conf/default/accept_dad", "0")
	p.namespace.Sysctl(t, "net/ipv6/conf/default/accept_ra", "0")
	w.node.Veth(t, p.name, p.namespace, "eth0")
	base4, base6 := 4*p.slot, fmt.Sprintf("2001:db8:1:%x::", p.slot)
	w.node.Address(t, p.name, fmt.Sprintf("192.0.2.%d/30", base4+1))
	w.node.Address(t, p.name, base6+"1/64")
	p.namespace.Address(t, "eth0", p.address()+"/30")
	p.namespace.Address(t, "eth0", base6+"2/64")
	gateways := []string{fmt.Sprintf("192.0.2.%d", base4+1), base6 + "1"}
	if err := p.namespace.Do(func() error { return routeAll("eth0", gateways) }); err != nil {
		t.Fatalf("route in %s: %v", p.name, err)
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	w.traffic.talk(ctx, p)
	w.pods[p.name] = p
}

func (p *soakPod) address() string { return fmt.Sprintf("192.0.2.%d", 4*p.slot+2) }

// routeAll sends everything to the gateways.
func routeAll(device string, gateways []string) error {
	l, err := netlink.LinkByName(device)
	for _, gateway := range gateways {
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
		}
	}
	return err
}

// quiet ends a pod's talk.
func (p *soakPod) quiet() {
	p.stop()
	p.talking.Wait()
}

// remove deletes a pod and returns what its interface had counted in the end.
func (w *soakWorld) remove(t *testing.T, p *soakPod) (ledger [flows.Directions]flows.Counters) {
	t.Helper()
	p.quiet()
	ledger = w.rest(t, p)
	w.node.DeleteLink(t, p.name)
	if err := p.namespace.Close(); err != nil {
		t.Errorf("close namespace of %s: %v", p.name, err)
	}
	delete(w.pods, p.name)
	w.slots = append(w.slots, p.slot)
	return ledger
}

// rest takes the interface of a pod down, when nothing crosses it any more, and
// returns its counters.
func (w *soakWorld) rest(t *testing.T, p *soakPod) (ledger [flows.Directions]flows.Counters) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		before := ledger
		if ledger = w.ledger(t, p.name, false); ledger == before && ledger[0].Packets > 0 {
			break
		}
		if time.Now().After(deadline) {
			break // something still talks to it: its interface will end that
		}
	}
	return w.ledger(t, p.name, true)
}

// ledger returns an interface's own counters, after it is taken down if asked for.
func (w *soakWorld) ledger(t *testing.T, name string, down bool) (ledger [flows.Directions]flows.Counters) {
	t.Helper()
	err := w.node.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil && down {
			if err = netlink.LinkSetDown(l); err == nil {
				l, err = netlink.LinkByName(name)
			}
		}
		if err == nil {
			s := l.Attrs().Statistics // the host's end receives what the pod transmits
			ledger[flows.Transmit] = flows.Counters{Bytes: s.RxBytes, Packets: s.RxPackets}
			ledger[flows.Receive] = flows.Counters{Bytes: s.TxBytes, Packets: s.TxPackets}
		}
		return err
	})
	if err != nil {
		t.Fatalf("read counters of %s: %v", name, err)
	}
	return ledger
}
