// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// BenchmarkFlip measures how long it takes to flip and to wait until no program
// writes the old set any more: on a machine without other work of ours, with two
// senders, and with a sender that never leaves each CPU. It is time, hardly any of
// it a CPU's.
func BenchmarkFlip(b *testing.B) {
	for _, load := range []struct {
		name    string
		senders func(b *testing.B) []func(func() error) error
	}{
		{"idle", func(*testing.B) []func(func() error) error { return nil }},
		{"two-senders", func(*testing.B) []func(func() error) error { return []func(func() error) error{anywhere, anywhere} }},
		{"sender-on-each-cpu", everywhere},
	} {
		b.Run(load.name, func(b *testing.B) {
			d, _ := newTestDrainer(b, benchCapacity)
			stop := busy(b, load.senders(b))
			defer stop()
			var longest, sum time.Duration
			for b.Loop() {
				state, err := d.state.get()
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				if err := d.flip(state); err != nil {
					b.Fatalf("flip: %v", err)
				}
				took := time.Since(began)
				longest, sum = max(longest, took), sum+took
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(sum.Microseconds())/1e3/float64(b.N), "ms/flip")
			b.ReportMetric(float64(longest.Microseconds())/1e3, "ms-longest")
		})
	}
}

// anywhere runs f where the scheduler puts it.
func anywhere(f func() error) error { return f() }

// everywhere returns for each CPU what runs a function on it.
func everywhere(b *testing.B) (on []func(func() error) error) {
	for _, cpu := range ktest.OnlineCPUs(b) {
		on = append(on, func(f func() error) error { return ktest.OnCPU(cpu, f) })
	}
	return on
}

// busy sends datagrams over a veth, with one sender for each place, until stop is
// called.
func busy(b *testing.B, places []func(func() error) error) (stop func()) {
	b.Helper()
	pod := ktest.NewNode(b).Pod(b, ktest.PodOptions{Introduced: true}).Namespace
	var sending sync.WaitGroup
	var ended atomic.Bool
	for _, place := range places {
		socket := datagramsTo(b, pod, "198.51.100.1:9")
		sending.Go(func() {
			err := place(func() error {
				payload := make([]byte, 100)
				for !ended.Load() {
					unix.Write(socket, payload) // a refusal is told to every other one
				}
				return unix.Close(socket)
			})
			if err != nil {
				b.Errorf("sender: %v", err)
			}
		})
	}
	return func() {
		ended.Store(true)
		sending.Wait()
	}
}

// datagramsTo opens a socket that is written to by system calls alone.
func datagramsTo(b *testing.B, from *ktest.Namespace, address string) (socket int) {
	b.Helper()
	to, err := net.ResolveUDPAddr("udp4", address)
	if err == nil {
		err = from.Do(func() (err error) {
			socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Connect(socket, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())})
			}
			return err
		})
	}
	if err != nil {
		b.Fatalf("open socket: %v", err)
	}
	return socket
}
