// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/bpf/firstbuild"
	"github.com/podmeter/podmeter/bpf/otherbuild"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

// laterBuild returns a build whose programs write flows of another layout, and
// that can still read the layout before it, whose number is given.
func laterBuild(previous int) build {
	before := newLayout(bpf.FlowLayout, decode)
	before.number = previous
	return build{spec: otherbuild.LoadOther, layouts: []layout{newLayout(previous+1, decodeOther), before}, later: laterMaps}
}

const mapConstants = ".rodata"

// firstBuild returns the build that had no front. The maps and the variable that its object
// lacks are made for the types' sake, and counted in and pinned by nobody, and so are the programs for interfaces
// without an Ethernet header.
func firstBuild() build {
	return build{layouts: []layout{firstLayout()}, spec: func() (*ebpf.CollectionSpec, error) {
		first, err := firstbuild.Load()
		if err != nil {
			return nil, err
		}
		this, err := bpf.LoadMeter()
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Concat(frontMaps[:], laterMaps, []string{mapConstants}) {
			first.Maps[name] = this.Maps[name]
		}
		first.Programs[bpf.MeterProgPodmeterL3Transmit] = first.Programs[bpf.MeterProgPodmeterTransmit].Copy()
		first.Programs[bpf.MeterProgPodmeterL3Receive] = first.Programs[bpf.MeterProgPodmeterReceive].Copy()
		first.Variables[bpf.MeterVarFrontBuckets] = this.Variables[bpf.MeterVarFrontBuckets]
		return first, nil
	}}
}

func decodeOther(key *otherbuild.OtherFlowKey, slots []otherbuild.OtherFlowCounters, clock clock) flows.Record {
	known := make([]bpf.MeterFlowCounters, len(slots))
	for i, s := range slots {
		known[i] = bpf.MeterFlowCounters{Bytes: s.Bytes, Packets: s.Packets, First: s.First, Last: s.Last}
	}
	k := bpf.MeterFlowKey{
		Source: key.Source, Destination: key.Destination, Point: key.Point, SourcePort: key.SourcePort,
		DestinationPort: key.DestinationPort, Ethertype: key.Ethertype, Protocol: key.Protocol, Direction: key.Direction,
	}
	return decode(&k, known, clock)
}

// Under traffic builds take over from each other; each ended in peace or was killed
// at some moment. What one cannot read of an earlier one's flows is in the totals.
func TestUpgrade(t *testing.T) {
	effort.Long(t, "kills builds of the meter under traffic")
	t.Parallel()
	here := thisBuild()
	next := laterBuild(bpf.FlowLayout)
	for _, test := range []struct {
		name     string
		versions []version
		// unreadable is whether flows come that the last build cannot read; nil if they may.
		unreadable *bool
	}{
		{"other sizes", []version{{here, 8}, {here, 16}, {here, 4}, {here, 8}}, new(false)},
		{"the next layout", []version{{here, 8}, {next, 8}}, new(false)},
		{"the next layout and size", []version{{here, 8}, {here, 16}, {next, 4}, {next, 8}}, new(false)},
		{"from the first layout", []version{{firstBuild(), 8}, {here, 16}}, new(false)},
		{"from the first layout by two", []version{{firstBuild(), 8}, {firstBuild(), 4}, {here, 16}, {here, 8}}, new(false)},
		{"the layout after the next", []version{{here, 8}, {laterBuild(bpf.FlowLayout + 1), 8}}, new(true)},
		{"back", []version{{next, 8}, {here, 8}}, new(true)},
		{"back to the first layout", []version{{here, 8}, {firstBuild(), 8}}, new(true)},
		{"back to the first layout and forth", []version{{here, 8}, {firstBuild(), 8}, {here, 8}}, nil},
	} {
		for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
			t.Run(test.name+" "+string(mode), func(t *testing.T) {
				t.Parallel()
				requireMode(t, mode)
				for range upgrades() {
					u := newUpgrade(t, mode, test.versions[0])
					for _, v := range test.versions[1:] {
						u.pass(t, v)
					}
					u.check(t, test.unreadable)
				}
			})
		}
	}
}

// upgrades is how often each upgrade is made.
func upgrades() int {
	if effort.Stressed() {
		return 10
	}
	return 1
}

// version is a build with a size of its maps, in MiB.
type version struct {
	build  build
	memory uint64
}

// upgrade is an installation that builds pass to each other.
type upgrade struct {
	*archive
	wire    *wire
	options Options
	life    *life
	stop    func()
	random  *rand.Rand
	// unpublished passed before the first attachment.
	unpublished byDirection
}

func newUpgrade(t *testing.T, mode AttachMode, first version) *upgrade {
	u := &upgrade{archive: newArchive(), wire: newWire(t), random: rand.New(rand.NewPCG(1, rand.Uint64()))}
	u.options = testOptions(t, u.wire.host, nil)
	u.options.Attach, u.options.DrainInterval = mode, 20*time.Millisecond
	cleanPins(t, u.options)
	u.install(first)
	u.life = u.start(t, u.options)
	ktest.Await(t, "veth0 is attached", u.life.attached(1))
	ktest.Await(t, "a checkpoint", u.hasSaved)
	u.unpublished = u.life.Interfaces()[0].Before
	u.stop = trickle(t, u.wire.pod)
	t.Cleanup(u.stop)
	return u
}

func (u *upgrade) install(v version) { u.options.build, u.options.MapMemory = v.build, v.memory<<20 }

// pass hands the installation to another version.
func (u *upgrade) pass(t *testing.T, to version) {
	t.Helper()
	u.install(to)
	u.life = u.next(t, u.life, u.options, u.random.IntN(4), u.random)
}

// check compares what was published with the interface, and looks for what
// earlier builds have left.
func (u *upgrade) check(t *testing.T, unreadable *bool) {
	t.Helper()
	drains := u.life.LastDrain().Count
	ktest.Await(t, "both sets are drained", func() bool { return u.life.LastDrain().Count > drains+sets })
	if got, want := flowPinsIn(t, u.options.PinPath), slices.Sorted(maps.Keys(u.life.flowPins())); !slices.Equal(got, want) {
		t.Errorf("maps of flows: got %v, want this build's %v", got, want)
	}
	u.life.gate <- struct{}{} // drains read with the same buffers
	checkAligned(t, u.life.drainer)
	<-u.life.gate
	u.stop()
	want := u.wire.ended(t).sub(u.unpublished)
	u.life.stop(t)
	totals, seeded := u.of("veth0")
	if !u.wire.agree(t, totals, want) || seeded != (byDirection{}) {
		t.Errorf("got %v and %v seeded, want the interface's %v", totals, seeded, want)
	}
	if u.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", u.failed)
	}
	if unreadable != nil && (u.residue != 0) != *unreadable && (*unreadable || !effort.NoRoom()) {
		t.Errorf("got %d bytes unattributed, want some: %t", u.residue, *unreadable)
	}
}

func flowPinsIn(t *testing.T, path string) []string {
	t.Helper()
	return slices.DeleteFunc(pinsIn(t, path), func(pin string) bool { return !strings.HasPrefix(pin, flowPinPrefix) })
}
