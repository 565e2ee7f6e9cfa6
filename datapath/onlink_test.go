// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/internal/ktest"
)

// Pods on a bridge discover one another, over both IP families: that is on one row of each,
// and what they say to each other on a row a pair, though no place is left for more.
func TestDiscoveryOnABridge(t *testing.T) {
	ktest.Privileged(t)
	const pods = 4
	host := ktest.NewNamespace(t)
	addBridge(t, host)
	cache := identity.NewCache(identity.CacheOptions{Node: "here"})
	table := flows.NewTable(flows.TableOptions{FlowLimit: pods * (pods - 1), FlowIdle: time.Hour, SeriesGrace: time.Hour})
	publisher := flows.NewPublisher(flows.PublisherOptions{Table: table, Directory: cache,
		Addresses: cache, Binder: flows.AddressBinder{Directory: cache}, Logger: slog.New(slog.DiscardHandler)})
	m := startMeter(t, host, func(o *Options) { o.Sink, o.Interfaces = publisher, []string{"veth*"} })
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	started := time.Now().Add(-time.Second)
	addresses, spaces := make([][]netip.Addr, pods), make([]*ktest.Namespace, pods)
	for i := range pods {
		ends := []string{fmt.Sprintf("198.51.100.%d", i+2), fmt.Sprintf("2001:db8::%d", i+2)}
		for _, end := range ends {
			addresses[i] = append(addresses[i], netip.MustParseAddr(end))
		}
		name := fmt.Sprint("veth", i)
		spaces[i], _ = bridged(t, host, name, ends[0]+"/24", ends[1]+"/64")
		m.awaitState(t, name, StateAttached)
		cache.SetPod(&identity.Pod{Pod: flows.Pod{UID: fmt.Sprint("uid", i), Namespace: "ns", Name: fmt.Sprint("pod", i), Node: "here"},
			Addresses: addresses[i], Started: started})
		for _, address := range addresses[i] {
			listen(t, spaces[i], netip.AddrPortFrom(address, 9))
		}
	}
	ktest.Await(t, "all are bound", func() bool { return len(publisher.Pods()) == pods })
	for i, from := range spaces {
		for j, ends := range addresses {
			for _, end := range ends {
				if i != j {
					from.Send(t, netip.AddrPortFrom(end, 9).String(), 100, 3)
				}
			}
		}
	}
	for i := range spaces {
		host.DeleteLink(t, fmt.Sprint("veth", i))
	}
	ktest.Await(t, "all is drained", func() bool { return len(m.Interfaces()) == 0 })
	checkDiscovery(t, table.Snapshot(), pods)
}

// listen opens a UDP socket of a namespace until the end of the test: a closed port answers.
func listen(t *testing.T, in *ktest.Namespace, at netip.AddrPort) {
	t.Helper()
	var socket io.Closer
	err := in.Do(func() (err error) {
		socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatalf("listen on %v: %v", at, err)
	}
	t.Cleanup(func() { socket.Close() })
}

// checkDiscovery checks that each pod has one row of each pair, that all other rows are of its link
// and few, and that they make up the pod together.
func checkDiscovery(t *testing.T, s *flows.Snapshot, pods int) {
	t.Helper()
	type row struct {
		pod    string
		labels flows.FlowLabels
	}
	rows, pairs, sums := make(map[row]bool), make(map[string]int), make(map[string][flows.Directions]flows.Counters)
	discovered := make(map[string]bool)
	for _, flow := range s.Flows {
		sum := sums[flow.Pod]
		for d, counters := range flow.Counters {
			sum[d].Add(counters)
		}
		sums[flow.Pod] = sum
		switch l := flow.Labels; l.PeerKind {
		case flows.PeerPod:
			pairs[flow.Pod]++
			if l.Protocol != flows.ProtoUDP || l.Peer == "other" {
				t.Errorf("%s: got a row %+v, want one a peer, of UDP alone", flow.Pod, l)
			}
		case flows.PeerLink, flows.PeerLinkLocal, flows.PeerMulticast:
			id := row{flow.Pod, flows.FlowLabels{PeerKind: l.PeerKind, Protocol: l.Protocol}}
			if rows[id] {
				t.Errorf("%s: got two rows of %v and %v, want one", flow.Pod, l.PeerKind, l.Protocol)
			}
			rows[id] = true
			discovered[flow.Pod] = discovered[flow.Pod] || l.PeerKind == flows.PeerLinkLocal && l.Protocol == flows.ProtoICMPv6
		}
	}
	for _, pod := range s.Pods {
		if pairs[pod.Pod] != pods-1 || !discovered[pod.Pod] {
			t.Errorf("%s: got %d rows of pods, discovery seen %v, want %d and discovery", pod.Pod, pairs[pod.Pod], discovered[pod.Pod], pods-1)
		}
		if sums[pod.Pod] != pod.Counters {
			t.Errorf("%s: flows: got %+v, want the pod's %+v", pod.Pod, sums[pod.Pod], pod.Counters)
		}
	}
	if len(s.Pods) != pods {
		t.Errorf("got %d pods, want %d", len(s.Pods), pods)
	}
}
