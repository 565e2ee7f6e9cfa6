// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sync/errgroup"
)

// hostPodUID is what the cgroup of the tests' pod is called by.
const hostPodUID = "0b1c7f3e-0000-4000-8000-000000000001"

// hostWorld is a node with a pod in its network, and one that has its own.
type hostWorld struct {
	*wire
	// above is the parent of both others.
	above, cgroup, stranger *ktest.Cgroup
	// change, if not nil, changes the options of each meter.
	change func(*Options)
	sink   *hostBook
	*testMeter
}

// hostBook also keeps the flows by the name of their point, and the last checkpoint.
type hostBook struct {
	*book
	flows map[string]map[flows.Key]flows.Counters
	uids  map[string]string
	meter atomic.Pointer[testMeter] // nil at first
	saved *SavedState
}

func (b *hostBook) Publish(epoch *flows.Epoch) error {
	if m := b.meter.Load(); m != nil {
		b.saved = m.Save(epoch)
	}
	if err := b.book.Publish(epoch); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make(map[flows.Point]string)
	for _, i := range epoch.Interfaces {
		names[i.Point], b.uids[i.Name] = i.Name, i.PodUID
	}
	for _, r := range epoch.Records {
		name := names[r.Key.Point]
		if b.flows[name] == nil {
			b.flows[name] = make(map[flows.Key]flows.Counters)
		}
		sum := b.flows[name][r.Key]
		sum.Add(r.Counters)
		b.flows[name][r.Key] = sum
	}
	return nil
}

func newHostWorld(t *testing.T) *hostWorld { return newHostWorldWith(t, nil) }

func newHostWorldWith(t *testing.T, change func(*Options)) *hostWorld {
	t.Helper()
	w := &hostWorld{wire: newWire(t), above: ktest.NewCgroup(t), change: change}
	w.cgroup, w.stranger = w.above.Child(t, "pod"+hostPodUID), w.above.Child(t, "stranger")
	w.start(t)
	return w
}

// start starts a meter, which goes on from an earlier one if there was any.
func (w *hostWorld) start(t *testing.T) {
	t.Helper()
	earlier, ended := w.sink, w.testMeter
	w.sink = &hostBook{book: newBook(), flows: make(map[string]map[flows.Key]flows.Counters), uids: make(map[string]string)}
	w.testMeter = startMeter(t, w.host, func(o *Options) {
		o.Sink = w.sink
		if ended != nil {
			o.PinPath, o.Saved = ended.options.PinPath, func() *SavedState { return earlier.saved }
		}
		if w.change != nil {
			w.change(o)
		}
	})
	w.book = w.sink.book
	w.sink.meter.Store(w.testMeter)
}

// meterPod makes the pod of the cgroup known.
func (w *hostWorld) meterPod(t *testing.T) {
	t.Helper()
	if err := w.MeterHostPods([]HostPod{{UID: hostPodUID, Cgroup: w.cgroup.Path}}); err != nil {
		t.Fatalf("meter pod in the node's network: %v", err)
	}
}

func (w *hostWorld) name() string { return "pod" + hostPodUID }

// counted returns what was published of the pod.
func (w *hostWorld) counted() byDirection {
	totals, seeded := w.book.of(w.name())
	if seeded != (byDirection{}) {
		panic("a cgroup has no counters to be seeded from")
	}
	return totals
}

// want awaits what was counted of the pod.
func (w *hostWorld) want(t *testing.T, transmit, receive flows.Counters) {
	t.Helper()
	want := byDirection{flows.Transmit: transmit, flows.Receive: receive}
	if err := ktest.Eventually(ktest.Patience, "all that the pod's sockets sent and received", func() bool { return w.counted() == want }); err != nil {
		t.Fatalf("%v: got %+v, want %+v", err, w.counted(), want)
	}
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	if w.book.failed != 0 || w.book.residue != 0 && !effort.NoRoom() {
		t.Errorf("got a conservation error of %d bytes and a residue of %d, want none", w.book.failed, w.book.residue)
	}
}

// exchange sends so many datagrams of so many bytes from the pod's cgroup to an address
// of the node, where a socket of a stranger takes them and answers each fifth.
func (w *hostWorld) exchange(t *testing.T, address string, count, size int) {
	t.Helper()
	var server net.PacketConn
	err := w.stranger.Do(w.host, func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(address, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	err = w.cgroup.Do(w.host, func() error {
		client, err := net.Dial("udp", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		datagram := make([]byte, size)
		for n := range count {
			if _, err := client.Write(datagram); err != nil {
				return err
			}
			_, from, err := server.ReadFrom(datagram)
			if err != nil || n%5 != 0 {
				continue
			}
			if _, err := server.WriteTo(datagram, from); err != nil {
				return err
			}
			if _, err := client.Read(datagram); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func datagramsOf(count, size, headers int) flows.Counters {
	return flows.Counters{Bytes: uint64(count * (size + headers)), Packets: uint64(count)}
}

// What the sockets of a pod in the node's network send and receive is counted from the IP
// header on, exactly, and nobody else's.
func TestHostPod(t *testing.T) {
	t.Parallel()
	for _, family := range []struct {
		name, address string
		headers       int
	}{
		{"IPv4", "127.0.0.1", 20 + 8},
		{"IPv6", "::1", 40 + 8},
	} {
		t.Run(family.name, func(t *testing.T) {
			t.Parallel()
			w := newHostWorld(t)
			w.host.Sysctl(t, "net/ipv6/conf/lo/disable_ipv6", "0")
			w.meterPod(t)
			w.exchange(t, family.address, 100, 300)
			w.want(t, datagramsOf(100, 300, family.headers), datagramsOf(20, 300, family.headers))
			w.sink.mu.Lock()
			defer w.sink.mu.Unlock()
			if got := w.sink.uids[w.name()]; got != hostPodUID {
				t.Errorf("the pod's UID: got %q, want %q", got, hostPodUID)
			}
		})
	}
}

// What a pod in the node's network and one with an interface say to each other over TCP,
// both count alike, but for the Ethernet header. The last segments of who closes first
// belong to no socket any more.
func TestHostPodAndInterface(t *testing.T) {
	t.Parallel()
	if effort.NoRoom() {
		t.Skip("compares flows that are in the map alone")
	}
	w := newHostWorld(t)
	w.awaitState(t, "veth0", StateAttached)
	w.meterPod(t)
	w.talk(t, 3_000_000, 1_000_000)
	w.stop() // which publishes all
	if why := w.compare(3_000_000, 1_000_000); why != "" {
		t.Error(why)
	}
}

// talk sends bytes from the pod in the node's network to the other, which answers with
// some and closes first.
func (w *hostWorld) talk(t *testing.T, sent, answered int) {
	t.Helper()
	var listener net.Listener
	err := w.pod.Do(func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(w.address, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var group errgroup.Group
	group.Go(func() error {
		server, err := listener.Accept()
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, server, int64(sent))
		_, writeErr := server.Write(make([]byte, answered))
		return errors.Join(err, writeErr, server.Close())
	})
	group.Go(func() error {
		return w.cgroup.Do(w.host, func() error {
			client, err := net.Dial("tcp4", listener.Addr().String())
			if err != nil {
				return err
			}
			_, writeErr := client.Write(make([]byte, sent))
			_, err = io.Copy(io.Discard, client)
			return errors.Join(writeErr, err, client.Close())
		})
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// compare says how the TCP flows of both ends differ. The book is locked, or at rest.
func (w *hostWorld) compare(sent, answered int) string {
	ours, theirs := w.tcp(w.name()), w.tcp("veth0")
	for d := range ours {
		other := theirs[1-d]
		other.Bytes -= 14 * other.Packets
		if ours[d] != other {
			return fmt.Sprintf("%s: the cgroup counted %+v, the interface %+v without Ethernet headers", flows.Direction(d), ours[d], other)
		}
	}
	for d, payload := range map[flows.Direction]int{flows.Transmit: sent, flows.Receive: answered} {
		if got := ours[d].Bytes - 40*ours[d].Packets; got < uint64(payload) || got > uint64(payload)*5/4 {
			return fmt.Sprintf("%s: %+v does not carry %d bytes", d, ours[d], payload)
		}
	}
	return ""
}

func (w *hostWorld) tcp(name string) (sum byDirection) {
	for key, c := range w.sink.flows[name] {
		if key.Protocol == flows.ProtocolTCP {
			sum[key.Direction].Add(c)
		}
	}
	return sum
}

// Sockets send in each other's midst, as nothing keeps programs of cgroups from being
// interrupted: no packet is lost.
func TestHostPodOfManySenders(t *testing.T) {
	w := newHostWorld(t)
	w.meterPod(t)
	const senders, count, size = 8, 20_000, 64
	var group errgroup.Group
	for range senders {
		group.Go(func() error {
			return w.cgroup.Do(w.host, func() error {
				server, err := net.ListenPacket("udp4", "127.0.0.1:0")
				if err != nil {
					return err
				}
				defer server.Close()
				client, err := net.Dial("udp4", server.LocalAddr().String())
				if err != nil {
					return err
				}
				defer client.Close()
				for range count {
					if _, err := client.Write(make([]byte, size)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// What the socket's buffer has no room for was received all the same, as the cgroup's
	// program comes before it. A CPU that cannot keep up drops before that.
	all := datagramsOf(senders*count, size, 28)
	ktest.Await(t, "all that was sent", func() bool { return w.counted()[flows.Transmit] == all })
	w.stop()
	if got := w.counted()[flows.Receive]; got.Packets > all.Packets || got.Packets < all.Packets/2 || got.Bytes != got.Packets*(size+28) {
		t.Errorf("received: got %+v, want most of %+v", got, all)
	}
	w.want(t, all, w.counted()[flows.Receive])
}

// The programs count on when their meter ends, the next one goes on with them, and it
// knows the pod when it is told.
func TestHostPodOutlivesMeter(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t)
	w.meterPod(t)
	w.exchange(t, "127.0.0.1", 10, 100)
	w.stop()
	w.want(t, datagramsOf(10, 100, 28), datagramsOf(2, 100, 28))
	w.exchange(t, "127.0.0.1", 15, 100)
	w.start(t)
	if resumed, err := w.Resumed(); !resumed {
		t.Fatalf("got a meter that begins anew: %v", err)
	}
	w.meterPod(t)
	w.exchange(t, "127.0.0.1", 20, 100)
	w.want(t, datagramsOf(35, 100, 28), datagramsOf(7, 100, 28))
}

// Without a checkpoint the maps tell all of it again, and the pod's name is learned.
func TestHostPodWithoutCheckpoint(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t)
	w.meterPod(t)
	w.exchange(t, "127.0.0.1", 10, 100)
	w.stop()
	w.sink.saved = nil
	w.start(t)
	ktest.Await(t, "what the cgroup's programs had counted", func() bool {
		totals, _ := w.book.of("")
		return totals[flows.Transmit] == datagramsOf(10, 100, 28)
	})
	w.meterPod(t)
	w.exchange(t, "127.0.0.1", 5, 100)
	ktest.Await(t, "the pod's part", func() bool { return w.counted()[flows.Transmit] == datagramsOf(5, 100, 28) })
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	if got := w.sink.uids[w.name()]; got != hostPodUID {
		t.Errorf("the pod's UID: got %q, want %q", got, hostPodUID)
	}
}

// A pod that ends takes its point along, once all of it is published, and so does one that
// is not wanted any more; their cgroups then have no programs of ours.
func TestHostPodEnds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(*testing.T, *hostWorld)
	}{
		{"cgroup removed", func(t *testing.T, w *hostWorld) {
			ktest.Await(t, "the end of the cgroup", func() bool {
				err := os.Remove(w.cgroup.Path)
				return err == nil || errors.Is(err, os.ErrNotExist)
			})
		}},
		{"not wanted", func(*testing.T, *hostWorld) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newHostWorld(t)
			w.meterPod(t)
			w.exchange(t, "127.0.0.1", 10, 100)
			test.end(t, w)
			if err := w.MeterHostPods(nil); err != nil {
				t.Fatal(err)
			}
			ktest.Await(t, "the end of the point", func() bool { return len(w.HostPods()) == 0 })
			w.want(t, datagramsOf(10, 100, 28), datagramsOf(2, 100, 28))
			entries, err := os.ReadDir(w.options.PinPath)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if strings.HasPrefix(entry.Name(), linkPrefix+"2147") {
					t.Errorf("got pin %s, want none", entry.Name())
				}
			}
		})
	}
}

// Pods that come and go at once, as the kubelet makes them, leave nothing and lose nothing.
func TestHostPodsAtOnce(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t)
	var pods []HostPod
	for n := range 20 {
		c := w.stranger.Child(t, fmt.Sprint("pod", n))
		pods = append(pods, HostPod{UID: fmt.Sprint("uid-", n), Cgroup: c.Path})
	}
	var calls sync.WaitGroup
	for n := range 4 {
		calls.Go(func() {
			if err := w.MeterHostPods(pods[n : 17+n]); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if err := w.MeterHostPods(pods[:5]); err != nil {
		t.Fatal(err)
	}
	ktest.Await(t, "five pods", func() bool { return len(w.HostPods()) == 5 })
	if err := w.MeterHostPods(append(pods[:5:5], HostPod{UID: "gone", Cgroup: w.cgroup.Path + "/gone"})); err != nil {
		t.Errorf("a cgroup that has gone: got %v, want no error", err)
	}
}
