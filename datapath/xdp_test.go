// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// withXDP makes a meter one of veth0 as an uplink, which is then no pod's.
func withXDP(mode XDPMode, attach AttachMode) func(*Options) {
	return func(o *Options) {
		asUplink(attach)(o)
		o.XDP, o.Interfaces = mode, []string{"!veth0"}
	}
}

// byNAPI turns what a veth with native XDP counts into the lengths of frames: it
// counts what it receives without the Ethernet header.
func byNAPI(ledger byDirection) byDirection {
	ledger[flows.Receive].Bytes += ethernetHeader * ledger[flows.Receive].Packets
	return ledger
}

func asCounted(ledger byDirection) byDirection { return ledger }

// XDP counts frames with their Ethernet header, whatever the device makes of them;
// what is transmitted TC counts.
func TestXDPCountsFrames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode    XDPMode
		predict func(byDirection) byDirection
		tcp     bool
	}{
		{XDPNative, byNAPI, true},
		{xdpGeneric, asCounted, false}, // which may drop large packets
	} {
		t.Run(string(test.mode), func(t *testing.T) {
			t.Parallel()
			w := newQuietWire(t)
			before := w.settled(t)
			m := startMeter(t, w.host, withXDP(test.mode, AttachAuto))
			m.awaitState(t, "veth0", StateAttached)
			if got := m.Interfaces()[0].Mode; !strings.HasPrefix(string(got), "xdp+") {
				t.Errorf("mode: got %s, want XDP and another", got)
			}
			w.pod.Send(t, "198.51.100.1:9", 100, 100)
			w.host.Send(t, "198.51.100.2:9", 100, 60)
			if test.tcp {
				sendTCP(t, w.pod, w.host, "198.51.100.1")
				sendTCP(t, w.host, w.pod, "198.51.100.2")
			}
			want := test.predict(seenFromTheNode(w.ended(t).sub(before)))
			m.stop()
			got, _ := m.book.of("veth0")
			if got != want || want[flows.Receive].Packets < 100 || want[flows.Transmit].Packets < 60 {
				t.Errorf("got %v, want %v", got, want)
			}
			if m.book.failed != 0 {
				t.Errorf("conservation error: got %d, want 0", m.book.failed)
			}
		})
	}
}

// Jumbo frames come to XDP in fragments, of which each byte is counted.
func TestXDPCountsFragments(t *testing.T) {
	t.Parallel()
	const datagram, count = 8900, 50
	w := newQuietWire(t)
	for ns, device := range map[*ktest.Namespace]string{w.host: "veth0", w.pod: "eth0"} {
		setMTU(t, ns, device, 9000)
	}
	m := startMeter(t, w.host, withXDP(XDPNative, AttachAuto))
	m.awaitState(t, "veth0", StateAttached)
	err := w.pod.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:9")))
		if err != nil {
			return err
		}
		defer conn.Close()
		for sent := 0; sent < count; {
			if _, err := conn.Write(make([]byte, datagram)); err == nil { // else what ICMP said of an earlier one
				sent++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.ended(t)
	m.stop()
	got, _ := m.book.of("veth0")
	want := flows.Counters{Bytes: count * (ethernetHeader + 20 + 8 + datagram), Packets: count}
	if got[flows.Receive] != want {
		t.Errorf("got %v, want %v", got[flows.Receive], want)
	}
}

func setMTU(t *testing.T, ns *ktest.Namespace, device string, mtu int) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
	if err != nil {
		t.Fatalf("set MTU of %s: %v", device, err)
	}
}

// XDP is exact across kills at any moment, as TC is.
func TestXDPExactlyOnceAcrossKills(t *testing.T) {
	effort.Long(t, "kills a meter 16 times")
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newWire(t)
			got, ledger := killedUnderTraffic(t, w, withXDP(XDPNative, mode))
			if want := byNAPI(ledger); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Another XDP mode than the last agent's takes the place of what that attached:
// nothing is counted twice.
func TestXDPModeChanges(t *testing.T) {
	t.Parallel()
	for _, attach := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(attach), func(t *testing.T) {
			t.Parallel()
			requireMode(t, attach)
			w := newQuietWire(t)
			a := newArchive()
			o := testOptions(t, w.host, nil)
			cleanPins(t, o)
			const each = 20
			for _, mode := range []XDPMode{XDPOff, XDPNative, XDPOff, XDPNative} {
				withXDP(mode, attach)(&o)
				l := a.start(t, o)
				ktest.Await(t, "veth0 is attached", l.attached(1))
				if got := strings.HasPrefix(string(l.Interfaces()[0].Mode), "xdp+"); got != (mode == XDPNative) {
					t.Errorf("%s: got mode %s", mode, l.Interfaces()[0].Mode)
				}
				w.pod.Send(t, "198.51.100.1:9", 100, each)
				w.settled(t)
				l.stop(t)
			}
			got, _ := a.of("veth0")
			want := flows.Counters{Bytes: 4 * each * 142, Packets: 4 * each}
			if got[flows.Receive] != want {
				t.Errorf("got %v, want %v", got[flows.Receive], want)
			}
		})
	}
}

// Where there can be no XDP of ours, the interface is left alone and the log says why.
func TestXDPIsRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, device, why string
		prepare           func(*testing.T, *wire)
		change            func(*Options)
	}{
		{"another's program", "veth0", "veth0 has an XDP program already",
			func(t *testing.T, w *wire) {
				attachXDP(t, w.host, "veth0", link.XDPDriverMode, unix.BPF_F_XDP_HAS_FRAGS)
			}, nil},
		{"another's generic program", "veth0", "veth0 has an XDP program already",
			func(t *testing.T, w *wire) { attachXDP(t, w.host, "veth0", link.XDPGenericMode, 0) }, nil},
		{"a driver without", "lo", "its driver has no native XDP",
			func(*testing.T, *wire) {}, func(o *Options) { o.Uplinks = []string{"lo"} }},
		{"a pod's interface", "veth0", "veth0 is a pod's by --interfaces",
			func(*testing.T, *wire) {}, func(o *Options) { o.Interfaces = nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newQuietWire(t)
			test.prepare(t, w)
			before := xdpOf(t, w.host, test.device)
			var log messages
			m := startMeter(t, w.host, func(o *Options) {
				withXDP(XDPNative, AttachAuto)(o)
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				if test.change != nil {
					test.change(o)
				}
			})
			ktest.Await(t, "it is refused", func() bool { return strings.Contains(log.String(), test.why) })
			ktest.Await(t, "nothing is metered, and it is told", func() bool {
				refused := m.Refusals()
				return len(m.Interfaces()) == 0 && len(refused) == 1 && refused[0].Name == test.device && errors.Is(refused[0].Problem, ErrXDP)
			})
			if got := xdpOf(t, w.host, test.device); got != before {
				t.Errorf("XDP: got program %d, want %d as before", got, before)
			}
			links, err := filepath.Glob(filepath.Join(m.options.PinPath, linkPrefix+"*"))
			if err != nil || len(links) > 0 {
				t.Errorf("links: got %v, %v, want none", links, err)
			}
			if ktest.HaveTCX(t) && test.device == "veth0" {
				ktest.Await(t, "no TCX program", func() bool { return tcxPrograms(t, w) == 0 })
			}
		})
	}
}

// xdpOf returns the id of a device's XDP program, 0 if it has none.
func xdpOf(t *testing.T, ns *ktest.Namespace, device string) (id uint32) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err == nil && l.Attrs().Xdp != nil {
			id = l.Attrs().Xdp.ProgId
		}
		return err
	})
	if err != nil {
		t.Fatalf("look at %s: %v", device, err)
	}
	return id
}

// Uninstalling ends XDP too.
func TestUninstallEndsXDP(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	m := startMeter(t, w.host, withXDP(XDPNative, AttachAuto))
	m.awaitState(t, "veth0", StateAttached)
	m.stop()
	if xdpOf(t, w.host, "veth0") == 0 {
		t.Fatal("the program went with the meter")
	}
	err := w.host.Do(func() error {
		_, err := Uninstall(m.options.PinPath)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ktest.Await(t, "no XDP program", func() bool { return xdpOf(t, w.host, "veth0") == 0 })
	if _, err := os.Stat(m.options.PinPath); !os.IsNotExist(err) {
		t.Errorf("pin path: got %v, want it to be gone", err)
	}
}

// What XDP needs is loaded only where XDP is asked for.
func TestXDPIsLoadedWhenAskedFor(t *testing.T) {
	t.Parallel()
	for _, mode := range []XDPMode{"", XDPOff, XDPNative} {
		t.Run(fmt.Sprintf("%q", mode), func(t *testing.T) {
			t.Parallel()
			m := startMeter(t, ktest.NewNamespace(t), withXDP(mode, AttachAuto))
			if got := m.objects.PodmeterXdp != nil; got != (mode == XDPNative) {
				t.Errorf("loaded: got %t", got)
			}
		})
	}
}

// When others take away the half that TC meters, both halves are attached again.
func TestXDPIsAttachedAgain(t *testing.T) {
	t.Parallel()
	w := newQuietWire(t)
	var log messages
	m := startMeter(t, w.host, func(o *Options) {
		withXDP(XDPNative, AttachNetlink)(o)
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	m.awaitState(t, "veth0", StateAttached)
	since := m.Interfaces()[0].Since
	if err := w.host.Do(func() error { return netlink.QdiscDel(clsact(w.index)) }); err != nil {
		t.Fatal(err)
	}
	setMTU(t, w.host, "veth0", 1400) // an event, after which all links are looked at
	ktest.Await(t, "it is attached again", func() bool {
		all := m.Interfaces()
		return len(all) == 1 && all[0].State == StateAttached && all[0].Since.After(since)
	})
	ktest.Await(t, "the gap is told", func() bool { return strings.Contains(log.String(), "detached the programs of an uplink") })
	before := w.settled(t)
	w.pod.Send(t, "198.51.100.1:9", 100, 30)
	w.host.Send(t, "198.51.100.2:9", 100, 20)
	want := byNAPI(seenFromTheNode(w.ended(t).sub(before)))
	m.stop()
	if got, _ := m.book.of("veth0"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
