// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

const toldGap = "somebody has detached our programs"

// quietWatcher returns a meter whose watcher nothing runs: it is given what it sees.
func quietWatcher(t *testing.T, w *wire, mode AttachMode) (*Meter, *messages) {
	t.Helper()
	log := &messages{}
	o := testOptions(t, w.host, newBook())
	o.Attach, o.Logger = mode, slog.New(slog.NewTextHandler(log, nil))
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("new meter: %v", err)
	}
	cleanPins(t, o)
	t.Cleanup(func() { m.Close() })
	m.links.list()
	if all := m.Interfaces(); len(all) != 1 || !m.links.alive(uint32(w.index)) {
		t.Fatalf("got %+v, want veth0 attached", all)
	}
	return m, log
}

// detachOurs does to the programs of veth0 what only others do.
func detachOurs(t *testing.T, w *wire, m *Meter) {
	t.Helper()
	err := w.host.Do(func() error {
		if m.attacher.mode == AttachNetlink {
			return netlink.QdiscDel(clsact(w.index))
		}
		for d := range flows.Direction(flows.Directions) {
			attached, err := link.QueryPrograms(link.QueryOptions{Target: w.index, Attach: tcxAttachType(d)})
			if err != nil || len(attached.Programs) != 1 {
				return fmt.Errorf("query: %w, %d programs", err, len(attached.Programs))
			}
			id, _ := attached.Programs[0].LinkID()
			l, err := link.NewFromID(id)
			if err != nil {
				return err
			}
			if err := l.(interface{ Detach() error }).Detach(); err != nil {
				return err
			}
			if err := l.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("detach: %v", err)
	}
}

// An interface that is deleted has not been detached, whatever comes first: the listing in which
// it still is, the look at its programs, or the removal of its programs by who deletes it.
func TestDeletedInterfaceIsNotDetached(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		for name, events := range map[string]func(*testing.T, *wire, *Meter){
			"deleted after the listing": func(t *testing.T, w *wire, m *Meter) {
				links, err := m.links.listLinks()
				if err != nil {
					t.Fatal(err)
				}
				w.host.DeleteLink(t, "veth0")
				m.links.compare(links)
			},
			"deleted after its programs, in an event": func(t *testing.T, w *wire, m *Meter) {
				detachOurs(t, w, m)
				m.links.unhooked(uint32(w.index))
				w.host.DeleteLink(t, "veth0")
			},
			"deleted after its programs, in a listing": func(t *testing.T, w *wire, m *Meter) {
				detachOurs(t, w, m)
				m.links.list()
				w.host.DeleteLink(t, "veth0")
			},
			"another has its ifindex": func(t *testing.T, w *wire, m *Meter) {
				detachOurs(t, w, m)
				m.links.unhooked(uint32(w.index))
				w.host.DeleteLink(t, "veth0")
				w.host.VethAt(t, w.index, "veth9", ktest.NewNode(t), "eth0")
			},
		} {
			t.Run(string(mode)+", "+name, func(t *testing.T) {
				t.Parallel()
				requireMode(t, mode)
				w := newWire(t)
				m, log := quietWatcher(t, w, mode)
				events(t, w, m)
				m.links.list()
				m.links.list()
				if strings.Contains(log.String(), toldGap) {
					t.Errorf("got told of a gap, want none: %s", log)
				}
			})
		}
	}
}

// One that stays has been, and it is said once, at the next listing.
func TestDetachedInterfaceIsTold(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		for name, seen := range map[string]func(*linkWatcher, uint32){
			"by an event":  func(l *linkWatcher, point uint32) { l.unhooked(point) },
			"by a listing": func(l *linkWatcher, _ uint32) { l.list() },
		} {
			t.Run(string(mode)+", "+name, func(t *testing.T) {
				t.Parallel()
				requireMode(t, mode)
				w := newWire(t)
				m, log := quietWatcher(t, w, mode)
				detachOurs(t, w, m)
				seen(m.links, uint32(w.index))
				if got := m.links.untilListing(); got != relistSoon {
					t.Errorf("next listing: got it in %v, want it in %v", got, relistSoon)
				}
				m.links.list()
				m.links.list()
				if got := strings.Count(log.String(), toldGap); got != 1 {
					t.Errorf("got told of %d gaps, want one: %s", got, log)
				}
				if !m.links.alive(uint32(w.index)) {
					t.Errorf("got no programs on veth0, want them attached again")
				}
			})
		}
	}
}

// Many interfaces at once, deleted under load, have not been detached.
func TestScaledToNothing(t *testing.T) {
	t.Parallel()
	const pods = 20
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newWire(t)
			stop := trickle(t, w.pod)
			t.Cleanup(stop)
			log := &messages{}
			var crowd []string
			for n := range pods {
				crowd = append(crowd, fmt.Sprint("veth", n+1))
				w.host.Veth(t, crowd[n], ktest.NewNode(t), "eth0")
			}
			m := startMeter(t, w.host, func(o *Options) { o.Attach, o.Logger = mode, slog.New(slog.NewTextHandler(log, nil)) })
			for _, name := range crowd {
				m.awaitState(t, name, StateAttached)
			}
			for _, name := range crowd {
				w.host.DeleteLink(t, name)
			}
			ktest.Await(t, "all but veth0 are gone", func() bool { return len(m.Interfaces()) == 1 })
			if strings.Contains(log.String(), toldGap) {
				t.Errorf("got told of a gap, want none: %s", log)
			}
		})
	}
}
