// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

const benchExchanges = 20000 // of a round

// BenchmarkHealth measures what the programs take of a TCP connection between two
// namespaces, opened, accepted and closed at both ends, and of a byte that is sent there
// and back over one, which is an RTT callback at either end; both in turns with cgroups
// that they are not attached to.
func BenchmarkHealth(b *testing.B) {
	// No agent reckons what is gone: without limits each connection makes its entries.
	c, without := connect(b, newSocketsBy(b, sized(1<<16, none, none))), ktest.NewCgroup(b)
	for _, bench := range []struct {
		name string
		of   int
		run  func(net.Listener) error
	}{{"connection", benchSockets, connectionsTo}, {"exchange", benchExchanges, exchangesWith}} {
		b.Run(bench.name, func(b *testing.B) {
			least := map[bool]time.Duration{}
			for b.Loop() {
				for range benchRounds {
					for _, followed := range []bool{true, false} {
						client, server := c.a, c.b
						if !followed {
							client, server = without, without
						}
						took, err := c.across(client, server, bench.run)
						if err := errors.Join(err, c.clear()); err != nil {
							b.Fatal(err)
						}
						if known, ok := least[followed]; !ok || took < known {
							least[followed] = took
						}
					}
				}
			}
			with, alone := least[true], least[false]
			b.ReportMetric(float64(with.Nanoseconds())/float64(bench.of), "ns/with")
			b.ReportMetric(float64(alone.Nanoseconds())/float64(bench.of), "ns/without")
			b.ReportMetric(float64(with)/float64(alone), "ratio")
			runs, took := c.programs(b, bench.run)
			b.ReportMetric(float64(runs)/float64(bench.of), "runs")
			b.ReportMetric(float64(took.Nanoseconds())/float64(bench.of), "ns/programs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// programs are the runs of the program of TCP in a round, and how long they took by the
// kernel's own account.
func (c *connected) programs(b *testing.B, run func(net.Listener) error) (runs uint64, took time.Duration) {
	b.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	before, err := c.objects.PodmeterTcp.Stats()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.across(c.a, c.b, run); err != nil {
		b.Fatal(err)
	}
	after, err := c.objects.PodmeterTcp.Stats()
	if err := errors.Join(err, c.clear()); err != nil {
		b.Fatal(err)
	}
	return after.RunCount - before.RunCount, after.Runtime - before.Runtime
}

// clear empties the maps, as drains do.
func (c *connected) clear() error {
	return errors.Join(emptyMap(c.objects.Health0), emptyMap(c.objects.Sockets))
}

// emptyMap deletes what it has found first: the next key after none is looked for from the
// map's beginning.
func emptyMap(m *ebpf.Map) error {
	var keys [][]byte
	var key any
	for {
		next := make([]byte, m.KeySize())
		err := m.NextKey(key, next)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return err
		}
		keys, key = append(keys, next), next
	}
	for _, key := range keys {
		if err := m.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// across times what a client does with a listener on the other side.
func (c *connected) across(client, server *ktest.Cgroup, run func(net.Listener) error) (took time.Duration, err error) {
	var l net.Listener
	err = server.Do(c.there, func() (err error) {
		l, err = net.Listen("tcp4", there4+":0")
		return err
	})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return timed(client, c.pod, func() error { return run(l) })
}

// dial returns both ends of a connection.
func dial(l net.Listener) (client, server net.Conn, err error) {
	if client, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = l.Accept()
	return client, server, err
}

func connectionsTo(l net.Listener) error {
	for range benchSockets {
		client, server, err := dial(l)
		if err != nil {
			return err
		}
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			return err
		}
	}
	return nil
}

func exchangesWith(l net.Listener) error {
	client, server, err := dial(l)
	if err != nil {
		return err
	}
	defer client.Close()
	defer server.Close()
	b := make([]byte, 1)
	for range benchExchanges {
		for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
			if err := deliver(way.from, way.to, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliver sends bytes and waits for them at the other end.
func deliver(from, to net.Conn, b []byte) error {
	if _, err := from.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(to, b)
	return err
}
