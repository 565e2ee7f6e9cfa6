// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/bpf/firstbuild"
	"github.com/podmeter/podmeter/bpf/usualbuild"
)

// peerEnv names another meter's TC program to be measured with the others: file.o:program.
const peerEnv = "PEER"

// The names of contenders.
const (
	nothing = "empty" // a program that returns at once
	this    = "meter" // this build's
	first   = "first" // that of the first layout
	usual   = "usual" // one as they are usually made
	peer    = "peer"  // of PEER
)

// contender is a program whose cost is measured.
type contender struct {
	name    string
	program *ebpf.Program
	verdict uint32
	// empty lets all flows be new again; nil if there are none.
	empty func()
	// check fails the benchmark if the program did something else than was meant to be
	// measured; nil if that is not looked at.
	check func(packets uint64)
}

func (c benchCase) contenders(b *testing.B) []*contender {
	b.Helper()
	all := []*contender{{name: nothing, program: emptyProgram(b), verdict: unspec}, c.thisMeter(b), c.usualMeter(b)}
	if !c.displaced { // the first layout's is measured where it has a place
		all = append(all, c.firstMeter(b))
	}
	if path := os.Getenv(peerEnv); path != "" {
		all = append(all, &contender{name: peer, program: peerProgram(b, path)})
	}
	return all
}

// thisMeter loads a collection whose set 0 has benchEntries and knows the point that
// packets of BPF_PROG_TEST_RUN come from.
func (c benchCase) thisMeter(b *testing.B) *contender {
	b.Helper()
	spec, err := LoadMeter()
	if err != nil {
		b.Fatalf("read object: %v", err)
	}
	spec.Maps[MeterMapFlows0].MaxEntries = benchEntries
	sizeFronts(b, spec, benchBuckets)
	var objects MeterObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		b.Fatalf("load objects: %+v", err)
	}
	b.Cleanup(func() { objects.Close() })
	totals := c.points(b, objects.Totals0, objects.Displaced0)
	return &contender{
		name: this, program: objects.PodmeterTransmit, verdict: unspec,
		empty: func() {
			if got := empty(b, &objects); got != c.runs {
				b.Fatalf("got %d flows, want %d: some were evicted", got, c.runs)
			}
		},
		check: func(packets uint64) { c.check(b, totals(), packets) },
	}
}

// firstMeter is thisMeter of the first layout.
func (c benchCase) firstMeter(b *testing.B) *contender {
	b.Helper()
	spec, err := firstbuild.Load()
	if err != nil {
		b.Fatalf("read object of the first layout: %v", err)
	}
	spec.Maps[MeterMapFlows0].MaxEntries = benchEntries
	collection := loadCollection(b, spec)
	totals := c.points(b, collection.Maps[MeterMapTotals0], collection.Maps[MeterMapDisplaced0])
	return &contender{
		name: first, program: collection.Programs[MeterProgPodmeterTransmit], verdict: unspec,
		empty: func() { deleteAll(b, collection.Maps[MeterMapFlows0]) },
		check: func(packets uint64) { c.check(b, totals(), packets) },
	}
}

func (c benchCase) usualMeter(b *testing.B) *contender {
	b.Helper()
	spec, err := usualbuild.LoadUsual()
	if err != nil {
		b.Fatalf("read object of a usual meter: %v", err)
	}
	spec.Maps["usual_flows"].MaxEntries = benchEntries
	collection := loadCollection(b, spec)
	return &contender{
		name: usual, program: collection.Programs["podmeter_usual"], verdict: unspec,
		empty: func() { deleteAll(b, collection.Maps["usual_flows"]) },
	}
}

// peerProgram loads one program of another's object, with maps as they are there.
func peerProgram(b *testing.B, path string) *ebpf.Program {
	b.Helper()
	file, name, _ := strings.Cut(path, ":")
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		b.Fatalf("%s: %v", peerEnv, err)
	}
	program := spec.Programs[name]
	if program == nil {
		b.Fatalf("%s: %s has no program %q; name one as file.o:program", peerEnv, file, name)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{name: program}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	return loadCollection(b, spec).Programs[name]
}

func loadCollection(b *testing.B, spec *ebpf.CollectionSpec) *ebpf.Collection {
	b.Helper()
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		b.Fatalf("load objects: %+v", err)
	}
	b.Cleanup(collection.Close)
	return collection
}

// points makes the totals that a program counts into, and returns what reads them.
func (c benchCase) points(b *testing.B, places, displaced *ebpf.Map) (totals func() MeterTotalCounters) {
	b.Helper()
	key := MeterTotalKey{Point: loopback}
	if !c.displaced {
		createPlace(b, places, key)
		return func() MeterTotalCounters { return placeTotals(b, places, key) }
	}
	createPlace(b, places, MeterTotalKey{Point: loopback + totalPlaces/2})
	createDisplaced(b, displaced, key)
	return func() MeterTotalCounters { return displacedTotals(b, displaced, key) }
}

// check compares what was counted with what was sent. Rounds that were of no use have been
// counted as well.
func (c benchCase) check(b *testing.B, totals MeterTotalCounters, packets uint64) {
	b.Helper()
	least, most := uint64(1), uint64(1)
	if c.flows != nil {
		most = totals.Packets
	}
	if c.empty {
		least = packets - packets/1000
	}
	if totals.Packets < packets || totals.Inserted < least || totals.Inserted > most {
		b.Fatalf("got %d packets, %d flows inserted, want %d or more, %d to %d", totals.Packets, totals.Inserted, packets, least, most)
	}
}

// deleteAll deletes all flows of a map of any values.
func deleteAll(b *testing.B, flows *ebpf.Map) {
	b.Helper()
	var key MeterFlowKey
	for {
		err := flows.NextKey(nil, &key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return
		}
		if err == nil {
			err = flows.Delete(key)
		}
		if err != nil {
			b.Fatalf("delete flows: %v", err)
		}
	}
}

// emptyProgram returns what every TC program costs.
func emptyProgram(b *testing.B) *ebpf.Program {
	b.Helper()
	return newProgram(b, asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()})
}

// sequence is the flows that packets are of, one after the other, in the kernel: as the runs
// of one BPF_PROG_TEST_RUN share a packet, and the time of a system call stays out of it.
type sequence struct {
	b *testing.B
	// added are what each packet's destination address has more than the packet that is
	// sent, at the beginning of the only value.
	added *ebpf.Map
	// next is the number of the packet that comes, and the address that was sent.
	next *ebpf.Map
	n    int
}

func newSequence(b *testing.B, added []uint32) *sequence {
	b.Helper()
	s := &sequence{b: b, n: len(added)}
	var err error
	s.added, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(4 * len(added)), MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: added}}})
	if err != nil {
		b.Fatalf("make a sequence of %d flows: %v", len(added), err)
	}
	b.Cleanup(func() { s.added.Close() })
	s.next, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		b.Fatalf("make a place in a sequence: %v", err)
	}
	b.Cleanup(func() { s.next.Close() })
	return s
}

// rewind lets the sequence begin again, if it is short enough to be gone through in a round.
// A longer one goes on, so that its flows are new to all that come after each other.
func (s *sequence) rewind() {
	if s.n > benchRuns {
		return
	}
	if err := s.next.Put(uint32(0), uint64(0)); err != nil {
		s.b.Fatalf("rewind a sequence: %v", err)
	}
}

// before returns a program that gives the packet the destination address 10.x.x.x of the
// sequence's next flow and then goes to the target.
func (s *sequence) before(b *testing.B, target *ebpf.Program) *ebpf.Program {
	b.Helper()
	targets, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: target}},
	})
	if err != nil {
		b.Fatalf("create program array: %v", err)
	}
	b.Cleanup(func() { targets.Close() })
	const data, dataEnd = 76, 80 // of struct __sk_buff
	const address, end = 14 + 16, 14 + 20
	return newProgram(b, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, end),
		asm.JGT.Reg(asm.R4, asm.R3, "short"),
		asm.LoadMapValue(asm.R3, s.next.FD(), 0),
		asm.LoadMem(asm.R4, asm.R3, 0, asm.DWord),
		asm.JLT.Imm(asm.R4, int32(s.n), "within"),
		asm.Mov.Imm(asm.R4, 0),
		asm.Mov.Reg(asm.R5, asm.R4).WithSymbol("within"),
		asm.Add.Imm(asm.R5, 1),
		asm.StoreMem(asm.R3, 0, asm.R5, asm.DWord),
		asm.LSh.Imm(asm.R4, 2),
		asm.LoadMapValue(asm.R3, s.added.FD(), 0),
		asm.Add.Reg(asm.R3, asm.R4),
		asm.LoadMem(asm.R5, asm.R3, 0, asm.Word),
		asm.Add.Imm(asm.R5, 10<<24),
		asm.HostTo(asm.BE, asm.R5, asm.Word),
		asm.StoreMem(asm.R2, address, asm.R5, asm.Word),
		asm.LoadMapPtr(asm.R2, targets.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("short"), // TC_ACT_SHOT: not what is expected
		asm.Return(),
	})
}

func newProgram(b *testing.B, instructions asm.Instructions) *ebpf.Program {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions,
	})
	if err != nil {
		b.Fatalf("load program: %+v", err)
	}
	b.Cleanup(func() { program.Close() })
	return program
}
