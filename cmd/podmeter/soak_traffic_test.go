// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/ktest"
)

const (
	// soakBeat is the time between two rounds of a pod's traffic.
	soakBeat = 100 * time.Millisecond
	// soakPatience is how long an answer is waited for.
	soakPatience = 2 * time.Second
	soakPort     = ":7"
)

// soakTraffic is what pods and the node say to each other. Nothing is asserted of
// it: a packet may be lost, and is counted or not like any other.
type soakTraffic struct {
	mu        sync.Mutex
	addresses []string // of pods that last
}

// serve answers on the node until the test ends: TCP is sent back, UDP is taken.
func (s *soakTraffic) serve(t *testing.T, node *ktest.Namespace) {
	t.Helper()
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	err := node.Do(func() error {
		listener, err := net.Listen("tcp", soakPort)
		if err != nil {
			return err
		}
		t.Cleanup(func() { listener.Close() })
		serving.Go(func() { echoAll(&serving, listener) })
		packets, err := net.ListenPacket("udp", soakPort)
		if err != nil {
			return err
		}
		t.Cleanup(func() { packets.Close() })
		serving.Go(func() { swallow(packets) })
		return nil
	})
	if err != nil {
		t.Fatalf("serve on the node: %v", err)
	}
}

func echoAll(serving *sync.WaitGroup, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		serving.Go(func() {
			defer hangUp(conn)
			buffer := make([]byte, 16<<10)
			for {
				conn.SetDeadline(time.Now().Add(soakPatience))
				n, err := conn.Read(buffer)
				if err == nil {
					_, err = conn.Write(buffer[:n])
				}
				if err != nil {
					return
				}
			}
		})
	}
}

func swallow(packets net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		if _, _, err := packets.ReadFrom(buffer); err != nil {
			return // closed
		}
	}
}

// hangUp leaves nothing of a connection that the kernel would send again later.
func hangUp(conn net.Conn) {
	if tcp, is := conn.(*net.TCPConn); is {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// talk makes a pod talk until ctx is done: short flows of all kinds, and one
// connection that lasts.
func (s *soakTraffic) talk(ctx context.Context, p *soakPod) {
	if p.lasting {
		s.mu.Lock()
		s.addresses = append(s.addresses, p.address())
		s.mu.Unlock()
	}
	p.talking.Go(func() {
		p.namespace.Do(func() error { // which keeps the goroutine on a thread inside
			if packets, err := net.ListenPacket("udp", soakPort); err == nil {
				defer packets.Close()
				p.talking.Go(func() { swallow(packets) })
			}
			long, err := net.Dial("tcp", soakNode4+soakPort)
			if err == nil {
				defer hangUp(long)
			}
			beats(ctx, func() {
				s.shortFlows()
				if err == nil {
					err = askEcho(long, 32<<10)
				}
			})
			return nil
		})
	})
}

// beats calls f again and again until ctx is done.
func beats(ctx context.Context, f func()) {
	ticker := time.NewTicker(soakBeat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// shortFlows makes a few flows that never come again, of IPv4 and IPv6.
func (s *soakTraffic) shortFlows() {
	s.mu.Lock()
	other := s.addresses[rand.IntN(len(s.addresses))]
	s.mu.Unlock()
	for _, address := range []string{soakNode4, "[" + soakNode6 + "]", other} {
		with("udp", address+soakPort, func(conn net.Conn) {
			for range 5 {
				conn.Write(make([]byte, 1+rand.IntN(1400)))
			}
		})
	}
	for _, address := range []string{soakNode4, "[" + soakNode6 + "]"} {
		with("tcp", address+soakPort, func(conn net.Conn) { askEcho(conn, 1+rand.IntN(4096)) })
	}
	// Echo requests; the checksum of ICMP is of these bytes, that of ICMPv6 the kernel's.
	with("ip4:icmp", soakNode4, func(conn net.Conn) { conn.Write([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}) })
	with("ip6:ipv6-icmp", soakNode6, func(conn net.Conn) { conn.Write([]byte{128, 0, 0, 0, 0, 0, 0, 0}) })
}

// with connects from the thread's namespace.
func with(network, address string, f func(net.Conn)) {
	conn, err := net.DialTimeout(network, address, soakPatience)
	if err != nil {
		return
	}
	defer hangUp(conn)
	f(conn)
}

// askEcho sends bytes and waits for as many.
func askEcho(conn net.Conn, size int) error {
	conn.SetDeadline(time.Now().Add(soakPatience))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	_, err := io.CopyN(io.Discard, conn, int64(size))
	if writing := <-sent; err == nil {
		err = writing
	}
	return err
}
