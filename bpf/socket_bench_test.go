// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

const benchSockets = 2000 // of a round

// BenchmarkSocket measures what the programs take of a TCP connection, opened, accepted
// and closed at both ends, and of a datagram that an unconnected socket sends, both over
// loopback and in turns with a cgroup that they are not attached to.
func BenchmarkSocket(b *testing.B) {
	s, without := newSocketsBy(b, sized(1<<16, none, none)), ktest.NewCgroup(b)
	for _, bench := range []struct {
		name string
		run  func() error
	}{{"connection", connections}, {"datagram", sends}} {
		b.Run(bench.name, func(b *testing.B) {
			least := map[*ktest.Cgroup]time.Duration{}
			for b.Loop() {
				for range benchRounds {
					for _, cgroup := range []*ktest.Cgroup{s.a, without} {
						took, err := timed(cgroup, s.pod, bench.run)
						if err != nil {
							b.Fatal(err)
						}
						if known, ok := least[cgroup]; !ok || took < known {
							least[cgroup] = took
						}
					}
				}
			}
			with, alone := least[s.a], least[without]
			b.ReportMetric(float64(with.Nanoseconds())/benchSockets, "ns/with")
			b.ReportMetric(float64(alone.Nanoseconds())/benchSockets, "ns/without")
			b.ReportMetric(float64(with)/float64(alone), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(cgroup *ktest.Cgroup, ns *ktest.Namespace, run func() error) (took time.Duration, err error) {
	err = cgroup.Do(ns, func() error {
		begin := time.Now()
		err := run()
		took = time.Since(begin)
		return err
	})
	return took, err
}

// connections opens and closes them one after the other.
func connections() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	for range benchSockets {
		client, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		server, err := l.Accept()
		if err := errors.Join(err, client.Close()); err != nil {
			return err
		}
		if err := server.Close(); err != nil {
			return err
		}
	}
	return nil
}

// sends sends datagrams to a socket that drops most of them.
func sends() error {
	sink, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer sink.Close()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: sink.LocalAddr().(*net.UDPAddr).Port}
	for range benchSockets {
		if err := unix.Sendto(socket, []byte("x"), 0, to); err != nil {
			return err
		}
	}
	return nil
}
