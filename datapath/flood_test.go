// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const (
	floodPorts = 20_000
	floodFlip  = 50 * time.Millisecond
)

// Two senders flood 20,000 ports while the epoch flips every 50 ms: no epoch
// loses a byte, and all of them together are what the interface counted.
func TestFloodIsExact(t *testing.T) {
	lasting := scanFor(t, 10*time.Second, time.Minute)
	d, objects := newTestDrainer(t, Capacity(DefaultMapMemory, 2))
	w := newWire(t)
	if err := d.createPoint(uint32(w.index)); err != nil {
		t.Fatal(err)
	}
	h := attachTo(t, w, newAttacher(AttachAuto, &objects.MeterObjects, testPins(t)))
	before := w.counters(t)
	var senders sync.WaitGroup
	stop := time.Now().Add(lasting)
	for sender := range 2 {
		senders.Go(func() { flood(t, w.pod, 20_000+20_000*sender, stop) })
	}
	var got tally
	drains := drainUntilDone(t, d, &got, &senders)
	want := w.ended(t).sub(before)
	if err := w.host.Do(h.detach); err != nil {
		t.Fatalf("detach: %v", err)
	}
	drainTwice(t, d, &got)
	var sum flows.Counters
	for _, c := range want {
		sum.Add(c)
	}
	t.Logf("20,000 ports from two senders: %d drains, %d records, %d packets", drains, got.records, got.total.Packets)
	named := got.placed
	named.Add(got.residue)
	named.Add(got.unplaced)
	if got.total != sum || named != sum || sum.Packets < floodPorts {
		t.Errorf("got total %+v, named %+v, want the interface's %+v", got.total, named, sum)
	}
	if got.failed != 0 || named != got.placed && !effort.NoRoom() {
		t.Errorf("got %+v, want no conservation error, residue or unplaced", got)
	}
}

// drainUntilDone drains at every flip until the senders are done; each epoch by
// itself must conserve.
func drainUntilDone(t *testing.T, d *drainer, got *tally, senders *sync.WaitGroup) (drains int) {
	done := make(chan struct{})
	go func() { senders.Wait(); close(done) }()
	ticker := time.NewTicker(floodFlip)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return drains
		case <-ticker.C:
			if err := d.drain(got); err != nil {
				t.Fatalf("drain: %v", err)
			}
			if got.failed != 0 {
				t.Fatalf("drain %d: got a conservation error of %d bytes, want 0", drains, got.failed)
			}
			drains++
		}
	}
}

// flood sends datagrams to one port after the other until the time is over.
func flood(t *testing.T, from *ktest.Namespace, firstPort int, until time.Time) {
	err := from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: netip.MustParseAddr("198.51.100.1").As4()}
		payload := make([]byte, 18)
		for time.Now().Before(until) {
			for port := range floodPorts {
				to.Port = firstPort + port
				// What the receiver refuses has been sent and counted all the same.
				if err := unix.Sendto(fd, payload, 0, to); err != nil && err != unix.ECONNREFUSED {
					return fmt.Errorf("send: %w", err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("flood: %v", err)
	}
}
