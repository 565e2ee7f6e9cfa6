// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// SavedState is what a meter has to remember for the next one to go on where it
// ended, taken between the reading of an epoch and its publication. Its fields
// are exported to be written down.
type SavedState struct {
	// BootID is the kernel's, SetID that of the maps.
	BootID string
	SetID  uint64
	// Epoch is the one that is about to be published.
	Epoch uint64
	// Began is when each set was last made the written one.
	Began [sets]time.Time
	// Drained are each set's totals when it was last read.
	Drained     [sets][]DrainedTotal
	Attachments []AttachmentState
	// Existing are the interfaces whose past is nobody's, as they were there when
	// counting began: by ifindex, what tells them from others with theirs.
	Existing map[uint32]string
	// Past is what was published of interfaces that were let go of.
	Past []PastState
	// Behind says that an epoch after this one was published and could not be saved.
	Behind bool `cbor:"-"`
}

// PastState is what of an interface's own counters needs no seeding.
type PastState struct {
	// Point is the ifindex of an interface that is still there, 0 of one that may
	// come back from another network namespace.
	Point       uint32
	Device      string
	Counters    [flows.Directions]flows.Counters
	Bypassed    flows.Counters
	BypassKnown bool
}

// DrainedTotal is what a set's totals had for a point and direction.
type DrainedTotal struct {
	Point, Direction                                         uint32
	Bytes, Packets, Inserted, UnplacedBytes, UnplacedPackets uint64
}

// AttachmentState is what is remembered of an interface.
type AttachmentState struct {
	Point          uint32
	Name, Device   string
	PodUID         string
	Mode           AttachMode
	Attached, Gone time.Time
	Appeared       time.Time
	PeerNamespace  int
	Addresses      []netip.Addr
	PeerAddresses  []netip.Addr
	Seeded         bool
	Resumed        bool
	Vanished       bool
	MayReturn      bool

	Base, Before, Seeds, Last [flows.Directions]flows.Counters
	Unmetered                 [flows.Directions]bool
	Settled                   bool

	// Hidden is what was published of packets that somebody before us hid, Apart
	// what was not as nobody was; Shadowed is where somebody hides packets.
	Hidden, Apart [flows.Directions]flows.Counters
	Shadowed      [flows.Directions]bool

	// BypassBase went round the interface before, if BypassKnown; Bypassed did
	// since, and was published.
	BypassBase, Bypassed flows.Counters
	BypassKnown          bool
}

// Save returns what to remember, the epoch that is being published included. It
// is called by the sink, while it publishes.
func (m *Meter) Save(epoch *flows.Epoch) *SavedState {
	s := &SavedState{
		BootID: bootID(), SetID: m.setID, Epoch: epoch.Number,
		Began: m.drainer.began,
	}
	for n := range s.Drained {
		totals := m.drainer.drained[n]
		if uint64(n) == epoch.Number&1 {
			totals = m.drainer.reading
		}
		for key, total := range totals {
			s.Drained[n] = append(s.Drained[n], drainedTotal(key, total))
		}
	}
	for _, r := range m.registries() {
		r.save(epoch, s)
	}
	s.Existing = m.links.known()
	return s
}

func drainedTotal(key bpf.MeterTotalKey, t bpf.MeterTotalCounters) DrainedTotal {
	return DrainedTotal{
		Point: key.Point, Direction: key.Direction, Bytes: t.Bytes, Packets: t.Packets, Inserted: t.Inserted,
		UnplacedBytes: t.UnplacedBytes, UnplacedPackets: t.UnplacedPackets,
	}
}

func (t DrainedTotal) split() (bpf.MeterTotalKey, bpf.MeterTotalCounters) {
	return bpf.MeterTotalKey{Point: t.Point, Direction: t.Direction}, bpf.MeterTotalCounters{
		Bytes: t.Bytes, Packets: t.Packets, Inserted: t.Inserted,
		UnplacedBytes: t.UnplacedBytes, UnplacedPackets: t.UnplacedPackets,
	}
}

// save writes down what is remembered of the attachments. The seeds that the epoch
// carries are published with it.
func (r *registry) save(epoch *flows.Epoch, s *SavedState) {
	published := seedsOf(epoch)
	r.each(func(a *attachment) {
		state := a.remember()
		state.Seeds = a.seeds.sub(published[a.point])
		s.Attachments = append(s.Attachments, state)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for point, past := range r.accounted {
		s.Past = append(s.Past, past.remember(point))
	}
	for _, past := range r.departed {
		s.Past = append(s.Past, past.remember(0))
	}
}

func (p past) remember(point uint32) PastState {
	return PastState{
		Point: point, Device: p.device, Counters: p.counters,
		Bypassed: p.bypass.settled(), BypassKnown: p.bypass.known,
	}
}

func (s PastState) recall() past {
	return past{device: s.Device, counters: s.Counters, bypass: bypass{base: s.Bypassed, known: s.BypassKnown}}
}

// recall restores what is known of devices that were let go of.
func (r *registry) recall(pasts []PastState) {
	for _, s := range pasts {
		if s.Point == 0 {
			r.depart(s.recall())
		} else {
			r.accounted[s.Point] = s.recall()
		}
	}
}

func seedsOf(epoch *flows.Epoch) map[uint32]byDirection {
	seeds := make(map[uint32]byDirection)
	for _, total := range epoch.Totals {
		s := seeds[uint32(total.Point)]
		s[total.Direction] = total.Seeded
		seeds[uint32(total.Point)] = s
	}
	return seeds
}

func (a *attachment) remember() AttachmentState {
	return AttachmentState{
		Point: a.point, Name: a.name, Device: a.device, PodUID: a.podUID, Mode: a.mode,
		Attached: a.attached, Gone: a.gone, Appeared: a.appeared, PeerNamespace: a.peerNamespace,
		Addresses: a.addresses, PeerAddresses: a.peerAddresses,
		Seeded: a.seeded, Resumed: a.resumed, Vanished: a.vanished, MayReturn: a.mayReturn,
		Base: a.ledger.base, Before: a.ledger.before, Seeds: a.seeds, Last: a.ledger.last.second,
		Unmetered: a.ledger.unmetered, Settled: a.ledger.settled,
		Hidden: a.ledger.hidden, Apart: a.ledger.apart, Shadowed: a.ledger.hiding(),
		BypassBase: a.bypass.base, Bypassed: a.bypass.seeded, BypassKnown: a.bypass.known,
	}
}

func (s AttachmentState) recall() *attachment {
	return &attachment{
		point: s.Point, name: s.Name, device: s.Device, podUID: s.PodUID, mode: s.Mode,
		attached: s.Attached, gone: s.Gone, appeared: s.Appeared, peerNamespace: s.PeerNamespace,
		addresses: slices.Clone(s.Addresses), peerAddresses: slices.Clone(s.PeerAddresses),
		seeded: s.Seeded, resumed: s.Resumed, vanished: s.Vanished, mayReturn: s.MayReturn, seeds: s.Seeds, drains: drainsAfterGone,
		bypass: bypass{base: s.BypassBase, seeded: s.Bypassed, known: s.BypassKnown},
		ledger: ledger{
			base: s.Base, before: s.Before, unmetered: s.Unmetered, settled: s.Settled,
			last:   reading{first: s.Last, second: s.Last},
			shadow: shadow{hidden: s.Hidden, apart: s.Apart, shadowed: s.Shadowed},
		},
	}
}

// bootID tells one boot of the kernel from another.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no two boots are then told apart, but their maps are
	}
	return strings.TrimSpace(string(id))
}

// fits says whether a state is about these maps at this epoch, and if not why.
func (s *SavedState) fits(kernel bpf.MeterEpochState) error {
	switch {
	case s.BootID != bootID():
		return fmt.Errorf("it is of another boot, %s", s.BootID)
	case s.SetID != kernel.SetId:
		return fmt.Errorf("it is about other maps, of set id %x instead of %x", s.SetID, kernel.SetId)
	case s.Epoch >= kernel.Epoch:
		return fmt.Errorf("it is of epoch %d, and the maps are at %d", s.Epoch, kernel.Epoch)
	}
	return nil
}
