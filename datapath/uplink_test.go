// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// seenFromTheNode turns what [ledgerOf] says of a veth into what the host's end
// itself received and transmitted.
func seenFromTheNode(ledger byDirection) byDirection {
	return byDirection{flows.Transmit: ledger[flows.Receive], flows.Receive: ledger[flows.Transmit]}
}

// keyBook also remembers the local addresses of flows by direction.
type keyBook struct {
	*book
	lock   sync.Mutex
	locals [flows.Directions]map[netip.Addr]bool
}

func newKeyBook() *keyBook {
	return &keyBook{book: newBook(), locals: [flows.Directions]map[netip.Addr]bool{{}, {}}}
}

func (k *keyBook) Publish(epoch *flows.Epoch) error {
	k.lock.Lock()
	defer k.lock.Unlock()
	for _, record := range epoch.Records {
		if record.Key.IsIP() {
			local, _ := record.Key.Local()
			k.locals[record.Key.Direction][local] = true
		}
	}
	return k.book.Publish(epoch)
}

// asUplink makes a meter one of veth0 as an uplink.
func asUplink(mode AttachMode) func(*Options) {
	return func(o *Options) {
		o.Role, o.Uplinks, o.Attach = RoleUplinks, []string{"veth0"}, mode
	}
}

// What an uplink receives and transmits is what its device counts, from the
// attachment on, and the local side is the node's.
func TestUplinkDirectionsAreTheNodes(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newQuietWire(t)
			w.pod.Send(t, "198.51.100.1:9", 100, 10) // before anything is attached: in no count
			before := seenFromTheNode(w.settled(t))
			seen := newKeyBook()
			m := startMeter(t, w.host, func(o *Options) { asUplink(mode)(o); o.Sink = seen })
			m.awaitState(t, "veth0", StateAttached)
			w.pod.Send(t, "198.51.100.1:9", 100, 30)
			w.host.Send(t, "198.51.100.2:9", 100, 50)
			want := seenFromTheNode(w.ended(t)).sub(before)
			ktest.Await(t, "the status tells all of it", func() bool { return m.Interfaces()[0].Counted == want })
			m.stop()
			got, seeded := seen.of("veth0")
			if got != want || seeded != (byDirection{}) || want[flows.Receive].Packets < 30 || want[flows.Transmit].Packets < 50 {
				t.Errorf("got %v and %v seeded, want the %v of the device and none", got, seeded, want)
			}
			node := netip.MustParseAddr("198.51.100.1")
			for d, locals := range seen.locals {
				if len(locals) != 1 || !locals[node] {
					t.Errorf("%s: local addresses: got %v, want %v alone", flows.Direction(d), locals, node)
				}
			}
			if seen.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", seen.failed)
			}
		})
	}
}

// Uplinks are exact across kills at any moment.
func TestUplinkExactlyOnceAcrossKills(t *testing.T) {
	effort.Long(t, "kills a meter 16 times")
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newWire(t)
			got, want := killedUnderTraffic(t, w, asUplink(mode))
			if got != want {
				t.Errorf("got %v, want the interface's %v", got, want)
			}
		})
	}
}

// killedUnderTraffic kills and ends meters of veth0 under traffic, and returns what
// they published and what the interface counted from the attachment on.
func killedUnderTraffic(t *testing.T, w *wire, change func(*Options)) (got, want byDirection) {
	t.Helper()
	a := newArchive()
	o := testOptions(t, w.host, nil)
	o.DrainInterval = 20 * time.Millisecond
	change(&o)
	cleanPins(t, o)
	before := w.settled(t)
	l := a.start(t, o)
	ktest.Await(t, "veth0 is attached, with a checkpoint", func() bool {
		a.lock.Lock()
		defer a.lock.Unlock()
		return l.attached(1)() && a.saved != nil
	})
	stop := trickle(t, w.pod)
	defer stop()
	random := rand.New(rand.NewPCG(5, 6))
	for n := range effort.Lives(16) {
		l = a.next(t, l, o, n%4, random)
	}
	stop()
	want = seenFromTheNode(w.ended(t).sub(before))
	l.stop(t)
	got, _ = a.of("veth0")
	if a.failed != 0 || a.residue != 0 && !effort.NoRoom() {
		t.Errorf("got a conservation error of %d and a residue of %d, want none", a.failed, a.residue)
	}
	return got, want
}

// An interface is a pod's or an uplink, never both, whatever the globs say.
func TestAnUplinkIsNoPods(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.host.Veth(t, "veth1", ktest.NewNamespace(t), "eth0")
	pods := startMeter(t, w.host, func(o *Options) { o.Uplinks = []string{"veth0"} })
	uplinks := startMeter(t, w.host, func(o *Options) {
		asUplink(AttachAuto)(o)
		o.PinPath = UplinksPath(pods.options.PinPath)
	})
	pods.awaitState(t, "veth1", StateAttached)
	uplinks.awaitState(t, "veth0", StateAttached)
	before := w.settled(t)
	w.pod.Send(t, "198.51.100.1:9", 100, 20)
	want := seenFromTheNode(w.ended(t).sub(before))
	uplinks.stop()
	pods.stop()
	if got, _ := uplinks.book.of("veth0"); got != want {
		t.Errorf("uplink: got %v, want %v", got, want)
	}
	if got, _ := pods.book.of("veth0"); got != (byDirection{}) {
		t.Errorf("the same as a pod's: got %v, want nothing", got)
	}
}

func TestChoosesUplinks(t *testing.T) {
	device := func(name string, flags uint32) netlink.Link {
		return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name, RawFlags: flags, NetNsID: -1}}
	}
	veth := func(name string, namespace int) netlink.Link {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, NetNsID: namespace}}
	}
	for _, test := range []struct {
		globs string
		link  netlink.Link
		want  bool
	}{
		{"eth0", device("eth0", 0), true},
		{"eth0", device("eth1", 0), false},
		{"eth*", device("eth1", 0), true},
		{"*", device("lo", unix.IFF_LOOPBACK), false},
		{"lo", device("lo", unix.IFF_LOOPBACK), true},
		{"*", veth("veth0", 3), false},
		{"veth*", veth("veth0", 3), false},
		{"veth0", veth("veth0", 3), true},
		{"veth*", veth("veth0", -1), true},
	} {
		t.Run(fmt.Sprint(test.globs, " ", test.link.Attrs().Name, " ", test.link.Attrs().NetNsID), func(t *testing.T) {
			for _, excluded := range []bool{false, true} {
				o := Options{Role: RoleUplinks, Uplinks: []string{test.globs}, Interfaces: []string{"*"}}
				if excluded {
					o.Uplinks = append(o.Uplinks, "!"+test.link.Attrs().Name)
				}
				uplinks, err := o.selector()
				if err != nil {
					t.Fatal(err)
				}
				o.Role = RolePods
				pods, err := o.selector()
				if err != nil {
					t.Fatal(err)
				}
				want := test.want && !excluded
				if got := uplinks.wants(test.link); got != want || pods.wants(test.link) == got {
					t.Errorf("excluded %t: got %t as an uplink and %t as a pod's, want %t and the opposite",
						excluded, got, pods.wants(test.link), want)
				}
			}
		})
	}
	for _, globs := range [][]string{nil, {"!eth0"}} {
		if _, err := (&Options{Role: RoleUplinks, Uplinks: globs}).selector(); !errors.Is(err, ErrNoUplink) {
			t.Errorf("%v: got %v, want %v", globs, err, ErrNoUplink)
		}
	}
}

// What passed an uplink that came later before it was attached is nobody's: a
// pod's would be seeded with it.
func TestUplinkIsNotSeeded(t *testing.T) {
	t.Parallel()
	host := ktest.NewNamespace(t)
	var hold sync.Mutex // while it is held nothing is attached
	m := startMeter(t, host, func(o *Options) {
		asUplink(AttachAuto)(o)
		o.within = func(f func() error) error {
			hold.Lock()
			defer hold.Unlock()
			return host.Do(f)
		}
	})
	ktest.Await(t, "a drain", func() bool { return m.LastDrain().Count > 0 })
	hold.Lock()
	w := wireFrom(t, host, ktest.PodOptions{NoAddress: true})
	inject(t, w.pod, "eth0", false, plainFrames())
	before := w.settled(t)
	hold.Unlock()
	m.awaitState(t, "veth0", StateAttached)
	inject(t, w.pod, "eth0", false, plainFrames())
	want := seenFromTheNode(w.ended(t).sub(before))[flows.Receive]
	m.stop()
	totals, seeded := m.book.of("veth0")
	if seeded != (byDirection{}) || totals[flows.Receive] != want || before[flows.Transmit].Packets == 0 {
		t.Errorf("got %v and %v seeded, want the %v since the attachment", totals[flows.Receive], seeded, want)
	}
}
