// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	talkPayload = 100
	// talkFrame is a datagram on the wire: Ethernet, IPv4 and UDP headers before it.
	talkFrame = 14 + 20 + 8 + talkPayload
	talkPause = 5 * time.Millisecond
	talkPort  = ":7"
	// evictedShare is the part of the victim's bytes that may be unattributed under stress: a scan
	// of 20 s by a whole CPU fills a set now and then before it is read, see KNOWN_ISSUES.md.
	evictedShare = 0.005
)

// talk is what the victim sends and gets: datagrams to the node, to peers outside and from
// the node, as many of each.
type talk struct {
	w    *world
	said said

	mu    sync.Mutex // held while it speaks
	lines []*line
	stop  chan struct{}
	ended sync.WaitGroup
}

// line is what one socket sends.
type line struct {
	net.Conn
	counts *float64 // of said, the bytes on the wire
}

// said is what the victim sent to the node and to outside, and what the node sent to it, as
// the meter between them has to have it.
type said struct{ node, outside, received float64 }

// newTalk begins it, until the test ends.
func newTalk(t *testing.T, w *world) *talk {
	t.Helper()
	k := &talk{w: w, stop: make(chan struct{})}
	sink(t, w.node)
	sink(t, w.outside)
	sink(t, w.victim.Namespace)
	k.add(t, w.victim, w.victim.Gateway, &k.said.node)
	k.add(t, w.victim, victimPeer, &k.said.outside)
	k.add(t, w.node, w.victim.IP, &k.said.received)
	k.ended.Go(k.speak)
	t.Cleanup(func() {
		close(k.stop)
		k.ended.Wait()
		for _, l := range k.lines {
			l.Close()
		}
	})
	return k
}

// sink takes datagrams, so that no ICMP says that nobody does. What it has no room for is
// dropped behind all counters.
func sink(t *testing.T, in *ktest.Namespace) {
	t.Helper()
	err := in.Do(func() error {
		socket, err := net.ListenPacket("udp4", talkPort)
		if err == nil {
			t.Cleanup(func() { socket.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// add begins to talk from a namespace to an address.
func (k *talk) add(t *testing.T, from namespace, to string, counts *float64) {
	t.Helper()
	err := from.Do(func() error {
		socket, err := net.Dial("udp4", to+talkPort)
		if err == nil {
			k.mu.Lock()
			k.lines = append(k.lines, &line{socket, counts})
			k.mu.Unlock()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (k *talk) speak() {
	ticker := time.NewTicker(talkPause)
	defer ticker.Stop()
	payload := make([]byte, talkPayload)
	for {
		select {
		case <-k.stop:
			return
		case <-ticker.C:
		}
		k.mu.Lock()
		for _, l := range k.lines {
			for errors.Is(write(l, payload), unix.ENOBUFS) {
				time.Sleep(time.Millisecond)
			}
			*l.counts += talkFrame
		}
		k.mu.Unlock()
	}
}

func write(s net.Conn, payload []byte) error {
	_, err := s.Write(payload)
	return err
}

// quiet stops the talk until the function that it returns is called.
func (k *talk) quiet() (want said, resume func()) {
	k.mu.Lock()
	return k.said, k.mu.Unlock
}

// dropped is what the pod's end of the veth gave to a node without room for it. The kernel
// does not say of which datagrams.
func (k *talk) dropped(t *testing.T) (bytes float64) {
	t.Helper()
	err := k.w.victim.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			bytes = float64(l.Attrs().Statistics.TxDropped * talkFrame)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// check wants the series of the victim to have what was said, to the byte.
func (k *talk) check(t *testing.T, all samples, want said) {
	t.Helper()
	dropped := k.dropped(t)
	if dropped > 0 {
		t.Logf("%v bytes were dropped before the meter", dropped)
	}
	got := func(name string, labels ...string) float64 {
		return all.sum("podmeter_"+name+"_bytes_total", append(labels, "pod", victimName)...)
	}
	transmit, receive := got("pod_transmit"), got("pod_receive")
	if transmit != want.node+want.outside-dropped || receive != want.received {
		t.Errorf("victim's pod: got %v bytes transmitted and %v received, want %v and %v",
			transmit, receive, want.node+want.outside-dropped, want.received)
	}
	node, external := got("flow_transmit", "peer_kind", "node"), got("flow_transmit", "peer_kind", "external")
	back := got("flow_receive", "peer_kind", "node")
	// What a flood of new flows evicts before it is read is in no flow, and said to be so.
	lost, lostBack := got("flow_transmit", "peer_kind", "unattributed"), got("flow_receive", "peer_kind", "unattributed")
	if node+external+lost != transmit || back+lostBack != receive || dropped == 0 && (node > want.node || external > want.outside) {
		t.Errorf("victim's flows: got %v bytes to the node, %v to outside, %v from the node, %v and %v evicted; want %+v",
			node, external, back, lost, lostBack, want)
	}
	most := 0.0
	if effort.Stressed() {
		most = evictedShare * (transmit + receive)
	}
	if lost+lostBack > most && !effort.NoRoom() {
		t.Errorf("victim's flows: got %v and %v bytes evicted, want at most %v", lost, lostBack, most)
	}
	if foreign := got("pod_foreign_source"); foreign != 0 {
		t.Errorf("got %v bytes from foreign sources of the victim, want none", foreign)
	}
}
