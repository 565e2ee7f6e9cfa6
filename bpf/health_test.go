// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/bpf/rttbuild"
	"github.com/podmeter/podmeter/internal/ktest"
)

// connected is the second object at work on connections between two namespaces, as those
// within one are left out: a's sockets are in the one, b's in the other.
type connected struct {
	*sockets
	there *ktest.Namespace
}

const (
	here4, there4 = "198.51.100.1", "198.51.100.2"
	here6, there6 = "2001:db8::1", "2001:db8::2"
)

func newConnected(t testing.TB) *connected { return newConnectedOf(t, 1<<16) }

func newConnectedOf(t testing.TB, ends uint32) *connected {
	t.Helper()
	return connect(t, newSocketsOf(t, ends))
}

func connect(t testing.TB, s *sockets) *connected {
	t.Helper()
	c := &connected{sockets: s, there: ktest.NewNamespace(t)}
	c.pod.Veth(t, "eth0", c.there, "eth0")
	for _, address := range []string{here4 + "/24", here6 + "/64"} {
		c.pod.Address(t, "eth0", address)
	}
	for _, address := range []string{there4 + "/24", there6 + "/64"} {
		c.there.Address(t, "eth0", address)
	}
	return c
}

// listen listens in b on the other side.
func (c *connected) listen(network, address string) net.Listener {
	c.Helper()
	var l net.Listener
	err := c.b.Do(c.there, func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { l.Close() })
	return l
}

// pair makes a connection, from a to a listener of b.
func (c *connected) pair(l net.Listener) (client, server net.Conn) {
	c.Helper()
	c.in(c.a, func() (err error) {
		client, err = net.Dial("tcp", l.Addr().String())
		return err
	})
	server, err := l.Accept()
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { client.Close() })
	c.Cleanup(func() { server.Close() })
	return client, server
}

// end is an end of a connection as the health maps have it.
type end struct{ whose, local, peer string }

func endOf(whose string, connection net.Conn) end {
	return end{whose, connection.LocalAddr().String(), connection.RemoteAddr().String()}
}

// health reads a set.
func (c *connected) health(set *ebpf.Map) map[end]SocketTcpHealth {
	c.Helper()
	whose := map[uint64]string{c.a.ID: "a", c.b.ID: "b"}
	found := make(map[end]SocketTcpHealth)
	var (
		key   SocketHealthKey
		value SocketTcpHealth
	)
	entries := set.Iterate()
	for entries.Next(&key, &value) {
		found[end{whose[key.Cgroup], address(key.Socket.Local, key.Socket.LocalPort), address(key.Socket.Peer, key.Socket.PeerPort)}] = value
	}
	if err := entries.Err(); err != nil {
		c.Fatal(err)
	}
	return found
}

func samples(h SocketTcpHealth) (n uint32) {
	for _, in := range h.Rtt {
		n += in
	}
	return n
}

// failed counts the connections that failed, whatever for.
func failed(h SocketTcpHealth) (n uint32) {
	for _, of := range h.Failed {
		n += of
	}
	return n
}

// events are what an entry counted, but for its sizes.
type events struct{ opened, failed, samples uint32 }

func eventsOf(all map[end]SocketTcpHealth) map[end]events {
	found := make(map[end]events)
	for e, h := range all {
		found[e] = events{h.Opened, failed(h), samples(h)}
	}
	return found
}

// wantEvents compares the first set.
func (c *connected) wantEvents(want map[end]events) {
	c.Helper()
	if diff := cmp.Diff(want, eventsOf(c.health(c.objects.Health0)), cmp.AllowUnexported(end{}, events{})); diff != "" {
		c.Errorf("health (-want +got):\n%s", diff)
	}
}

// tcpInfo is what the kernel says of a socket; as ss -ti does.
func tcpInfo(t testing.TB, connection net.Conn) (info *unix.TCPInfo) {
	t.Helper()
	raw, err := connection.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return info
}

// transfer sends 1 MiB of which each 20th packet is lost, until all is acknowledged.
func (c *connected) transfer(client, server net.Conn) {
	c.Helper()
	c.pod.Offload(c, "eth0", unix.ETHTOOL_STSO, false) // many packets
	c.pod.Offload(c, "eth0", unix.ETHTOOL_SGSO, false)
	stop := c.b.Lose(c, 20)
	const sent = 1 << 20
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, server, sent)
		done <- err
	}()
	if _, err := client.Write(make([]byte, sent)); err != nil {
		c.Fatal(err)
	}
	if err := <-done; err != nil {
		c.Fatal(err)
	}
	stop()
	ktest.Await(c, "all is acknowledged", func() bool { return tcpInfo(c, client).Unacked == 0 })
}

// Both ends of a connection count it when it is established, and once more its RTT when
// it is closed; while it lives it is there already.
func TestHealthOfConnections(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ network, there string }{
		{"tcp4", there4 + ":8080"}, {"tcp6", "[" + there6 + "]:8080"},
	} {
		t.Run(test.network, func(t *testing.T) {
			t.Parallel()
			c := newConnected(t)
			client, server := c.pair(c.listen(test.network, test.there))
			at, other := endOf("a", client), endOf("b", server)
			c.wantEvents(map[end]events{at: {opened: 1, samples: 1}, other: {opened: 1, samples: 1}})
			client.Close()
			server.Close()
			var all map[end]SocketTcpHealth
			ktest.Await(t, "both ends are closed", func() bool {
				all = c.health(c.objects.Health0)
				return samples(all[at]) >= 2 && samples(all[other]) >= 2
			})
			// Each is one when it is established and one when it is closed, and one in
			// 25 ticks between: a busy machine takes its time to close.
			want := make(map[end]events)
			for _, e := range []end{at, other} {
				n := samples(all[e])
				if between := (all[e].Last - all[e].First) / 25; n > 2+between {
					t.Errorf("got %d samples of %v, want 2 and at most %d between", n, e, between)
				}
				want[e] = events{opened: 1, samples: n}
			}
			c.wantEvents(want)
		})
	}
}

// A socket of IPv6 that talks IPv4 is one of IPv4.
func TestHealthOfMappedAddresses(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	var client net.Conn
	l := c.listen("tcp", ":8080")
	c.in(c.a, func() (err error) {
		client, err = net.Dial("tcp", there4+":8080")
		return err
	})
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c.wantEvents(map[end]events{
		endOf("a", client): {opened: 1, samples: 1},
		{"b", there4 + ":8080", client.LocalAddr().String()}: {opened: 1, samples: 1},
	})
}

// What crosses no interface of the pod is not followed.
func TestHealthLeavesOutWhatStaysWithin(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "[::1]", here4, "[" + here6 + "]"} {
		var l net.Listener
		c.in(c.a, func() (err error) {
			if l, err = net.Listen("tcp", host+":0"); err != nil {
				return err
			}
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			server, err := l.Accept()
			return errors.Join(err, client.Close(), server.Close(), l.Close())
		})
	}
	c.wantEvents(map[end]events{})
}

// The smoothed RTT is the kernel's own, and each retransmission is counted, with its
// bytes, at the end that made it.
func TestHealthIsTheKernelsOwn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ network, there string }{
		{"tcp4", there4 + ":8080"}, {"tcp6", "[" + there6 + "]:8080"},
	} {
		t.Run(test.network, func(t *testing.T) {
			t.Parallel()
			c := newConnected(t)
			l := c.listen(test.network, test.there)
			client, server := c.pair(l)
			c.transfer(client, server)
			for _, side := range []struct {
				end        end
				connection net.Conn
			}{{endOf("a", client), client}, {endOf("b", server), server}} {
				info, got := tcpInfo(t, side.connection), c.health(c.objects.Health0)[side.end]
				if got.Segments != info.Total_retrans || got.Bytes != info.Bytes_retrans {
					t.Errorf("%v: got %d segments and %d bytes retransmitted, want %d and %d", side.end,
						got.Segments, got.Bytes, info.Total_retrans, info.Bytes_retrans)
				}
			}
			if info := tcpInfo(t, client); info.Total_retrans < 10 {
				t.Fatalf("got %d retransmissions, want many", info.Total_retrans)
			}
			// Where the machine lets an acknowledgement wait, another connection is looked at.
			const tries = 8
			for try := 1; ; try++ {
				want, got := c.rttAtTheEnd(client, server)
				if got >= want/2 && got <= want*2 {
					return
				}
				if try == tries {
					t.Fatalf("RTT at the end: got %d us, want about %d", got, want)
				}
				client, server = c.pair(l)
			}
		})
	}
}

// rttAtTheEnd closes a connection and returns what RTT the kernel had before, and what was
// sampled then: the FIN's acknowledgement moves it once more, by an eighth of the difference.
func (c *connected) rttAtTheEnd(client, server net.Conn) (want, got uint64) {
	c.Helper()
	at := endOf("a", client)
	want = uint64(tcpInfo(c, client).Rtt)
	before := c.health(c.objects.Health0)[at]
	client.Close()
	server.Close()
	ktest.Await(c, "it is closed", func() bool { return samples(c.health(c.objects.Health0)[at]) > samples(before) })
	return want, c.health(c.objects.Health0)[at].RttSum - before.RttSum
}

// The first sample is the kernel's RTT, in the bucket of that.
func TestHealthOfTheFirstRTT(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	client, _ := c.pair(c.listen("tcp4", there4+":8080"))
	info := tcpInfo(t, client)
	got := c.health(c.objects.Health0)[endOf("a", client)]
	if got.RttSum != uint64(info.Rtt) {
		t.Errorf("RTT: got %d us, want %d", got.RttSum, info.Rtt)
	}
	if want := bucketOf(info.Rtt); got.Rtt[want] != 1 || samples(got) != 1 {
		t.Errorf("got %d us in %v, want it in bucket %d", info.Rtt, got.Rtt, want)
	}
}

// Each bucket has its upper bound, and the last all that is longer.
func TestHealthBuckets(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	var objects rttbuild.RTTObjects
	if err := rttbuild.LoadRTTObjects(&objects, nil); err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	rtts := []uint32{1, 2, 15_625, 31_250, 62_500, 125_000, 250_000, 500_000, 1e6, 2e6, 64e6, 64e6 + 1, math.MaxUint32}
	for bucket := range rttBuckets {
		_, high := bounds(bucket)
		rtts = append(rtts, uint32(high*1e6), uint32(high*1e6)+1)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		rtts = append(rtts, 1+random.Uint32N(1<<random.IntN(32)))
	}
	packet := make([]byte, 14)
	for _, rtt := range rtts {
		binary.NativeEndian.PutUint32(packet, rtt)
		got, err := objects.Bucket.Run(&ebpf.RunOptions{Data: packet})
		if err != nil {
			t.Fatal(err)
		}
		if want := bucketOf(rtt); int(got) != want {
			low, high := bounds(want)
			t.Errorf("%d us: got bucket %d, want %d, from %g to %g us", rtt, got, want, low*1e6, high*1e6)
		}
	}
}

// bucketOf is the bucket of an RTT in microseconds, by its bounds.
func bucketOf(rtt uint32) (bucket int) {
	for bucket = range rttBuckets - 1 {
		if _, high := bounds(bucket); float64(rtt) <= high*1e6 {
			return bucket
		}
	}
	return rttBuckets - 1
}

// rttBuckets is how many there are.
const rttBuckets = len(SocketTcpHealth{}.Rtt)

// bounds are those of a bucket, in seconds.
func bounds(bucket int) (low, high float64) {
	if bucket == 0 {
		return 0, math.Exp2(-17)
	}
	return math.Exp2(-17 + float64(bucket-1)/2), math.Exp2(-17 + float64(bucket)/2)
}

// A connection that is refused, one that nobody answers, and one that is given up.
func TestHealthOfFailures(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	c.pod.Sysctl(t, "net/ipv4/tcp_syn_retries", "1")
	c.in(c.a, func() error {
		for _, host := range []string{there4, "[" + there6 + "]"} {
			if _, err := net.Dial("tcp", host+":1"); !errors.Is(err, unix.ECONNREFUSED) {
				return fmt.Errorf("got %w, want it refused", err)
			}
		}
		return nil
	})
	var refused uint32
	for e, h := range c.health(c.objects.Health0) {
		if e.whose != "a" || h.Opened != 0 || failed(h) != 1 || samples(h) != 0 || h.Segments != 0 {
			t.Errorf("%v: got %+v, want it failed", e, h)
		}
		refused += failed(h)
	}
	if refused != 2 {
		t.Errorf("got %d refused, want 2", refused)
	}

	l := c.listen("tcp4", there4+":8080")
	defer c.b.Lose(t, 1)()
	c.in(c.a, func() error {
		if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, unix.ETIMEDOUT) {
			return fmt.Errorf("got %w, want it to time out", err)
		}
		return nil
	})
	for e, h := range c.health(c.objects.Health0) {
		if e.peer != l.Addr().String() {
			continue
		}
		if want := c.netstat("TcpExt", "TCPSynRetrans"); h.Opened != 0 || failed(h) != 1 || h.Segments != want || want == 0 || h.Bytes != 0 {
			t.Errorf("%v: got %+v, want it failed after %d more SYNs", e, h, want)
		}
	}
}

// netstat is a counter of the namespace here.
func (c *connected) netstat(group, name string) (value uint32) {
	c.Helper()
	var file []byte
	err := c.pod.Do(func() (err error) {
		file, err = os.ReadFile("/proc/thread-self/net/netstat")
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	lines := strings.Split(string(file), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if n := slices.Index(names, name); n > 0 && names[0] == group+":" {
			if _, err := fmt.Sscan(values[n], &value); err != nil {
				c.Fatal(err)
			}
			return value
		}
	}
	c.Fatalf("no counter %s of %s", name, group)
	return 0
}

// A connection that lives on has its RTT taken down again and again, but not more often
// than the interval says.
func TestHealthOfALongConnection(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	client, server := c.pair(c.listen("tcp4", there4+":8080"))
	at := endOf("a", client)
	echo := func() {
		b := make([]byte, 1)
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, b); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, b); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 0
	begun := c.health(c.objects.Health0)[at]
	ktest.Await(t, "there are 5 samples", func() bool {
		for range 100 {
			echo()
			rounds++
		}
		return samples(c.health(c.objects.Health0)[at]) >= 5
	})
	h := c.health(c.objects.Health0)[at]
	// 25 ticks between two of them.
	if ticks := h.Last - begun.First; samples(h) > 2+ticks/25 || rounds < 100 {
		t.Errorf("got %d samples in %d ticks, want one in 25", samples(h), ticks)
	}
}

// The run belongs to the set that the epoch chose, and what finds no room is counted and
// made up for by the next event.
func TestHealthSets(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	l := c.listen("tcp4", there4+":8080")
	c.pair(l)
	if err := c.objects.Epoch.Set(SocketEpochState{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	c.pair(l)
	if zero, one := len(c.health(c.objects.Health0)), len(c.health(c.objects.Health1)); zero != 2 || one != 2 {
		t.Errorf("got %d and %d ends, want both connections' in either set", zero, one)
	}
}

func TestHealthWithoutRoom(t *testing.T) {
	t.Parallel()
	c := newConnectedOf(t, 2)
	l := c.listen("tcp4", there4+":8080")
	c.pair(l)
	client, server := c.pair(l)
	if got := c.outcome(SocketSocketOutcomeSOCKET_NO_SAMPLE_ROOM); got != 2 {
		t.Errorf("got %d samples without room, want those of both ends", got)
	}
	if n := len(c.health(c.objects.Health0)); n != 2 {
		t.Errorf("got %d entries, want 2", n)
	}
	// A retransmission for which there is no room is not forgotten.
	c.transfer(client, server)
	if err := c.objects.Epoch.Set(SocketEpochState{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	want, at := tcpInfo(t, client), endOf("a", client)
	client.Close()
	ktest.Await(t, "it is closed", func() bool { return samples(c.health(c.objects.Health1)[at]) > 0 })
	if got := c.health(c.objects.Health1)[at]; got.Segments != want.Total_retrans || got.Bytes != want.Bytes_retrans || got.Segments == 0 {
		t.Errorf("got %d segments and %d bytes, want %d and %d", got.Segments, got.Bytes, want.Total_retrans, want.Bytes_retrans)
	}
}

func (s *sockets) outcome(outcome SocketSocketOutcome) (n uint64) {
	s.Helper()
	var perCPU []uint64
	if err := s.objects.SocketOutcomes.Lookup(outcome, &perCPU); err != nil {
		s.Fatal(err)
	}
	for _, v := range perCPU {
		n += v
	}
	return n
}
