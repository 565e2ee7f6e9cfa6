// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// expectCPUs is the environment variable by which who boots a kernel with many
// possible CPUs makes sure of it: their number.
const expectCPUs = "PODMETER_EXPECT_CPUS"

// A CPU's counts are in slots of its own, and a drain reads all of these: also
// where most CPUs are possible, but not there.
func TestEveryCPUIsRead(t *testing.T) {
	t.Parallel()
	cpus := ebpf.MustPossibleCPU()
	if want := os.Getenv(expectCPUs); want != "" && want != strconv.Itoa(cpus) {
		t.Errorf("possible CPUs: got %d, want the %s of %s", cpus, want, expectCPUs)
	}
	d, objects := newTestDrainer(t, Capacity(DefaultMapMemory, cpus))
	want := make([]uint64, cpus)
	var sum flows.Counters
	for n, cpu := range ktest.OnlineCPUs(t) {
		want[cpu] = uint64(n + 1)
		for range n + 1 {
			err := ktest.OnCPU(cpu, func() error { return sendFrom(objects, testPoint, 7) })
			if err != nil {
				t.Fatalf("run program on CPU %d: %v", cpu, err)
			}
			sum.Add(flows.Counters{Bytes: sent, Packets: 1})
		}
	}
	checkSlots(t, objects.Front1, want)
	var got tally
	drainTwice(t, d, &got)
	if got.total != sum || got.placed != sum || got.records != 1 || got.failed != 0 {
		t.Errorf("got %+v, want one record of %v and no conservation error", got, sum)
	}
}

// What a CPU has counted is not lost when it goes offline under traffic, nor when it comes back.
func TestCPUGoesOffline(t *testing.T) {
	if os.Getenv(expectCPUs) == "" {
		t.Skip("takes a CPU of the machine away: make test-vm")
	}
	cpus := ktest.OnlineCPUs(t)
	control := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpus[len(cpus)-1])
	set := func(online string) {
		if err := os.WriteFile(control, []byte(online), 0o600); err != nil {
			t.Fatalf("CPU: %v", err)
		}
	}
	d, objects := newTestDrainer(t, 1<<16)
	testUnderDrains(t, d, objects, 400, true, 9, func(drain int) {
		switch drain {
		case 2:
			set("0")
		case 5:
			set("1")
		}
	})
}

// checkSlots compares the packets in the slots of each possible CPU.
func checkSlots(t *testing.T, m *ebpf.Map, want []uint64) {
	t.Helper()
	front := newFront(m, decode).(*front[bpf.MeterFlowKey, bpf.MeterFlowCounters])
	defer front.release()
	slots, err := front.slots()
	if err != nil {
		t.Fatal(err)
	}
	each := len(slots) / len(want)
	for cpu := range want {
		var got uint64
		for _, slot := range slots[cpu*each : (cpu+1)*each] {
			got += slot.Counters.Packets
		}
		if got != want[cpu] {
			t.Errorf("CPU %d: got %d packets, want %d", cpu, got, want[cpu])
		}
	}
}

// Both sets take the memory that they may, on as many CPUs as there can be: up to
// a tenth more, as the kernel rounds a table's buckets up to a power of two.
// Before Linux 6.3 it tells the memory of the values alone.
func TestSetsFitTheirMemory(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	capacity := Capacity(DefaultMapMemory, ebpf.MustPossibleCPU())
	objects, err := testBuild().testObjects(capacity, frontBuckets(DefaultMapMemory, ebpf.MustPossibleCPU()))
	if err != nil {
		t.Fatalf("load objects: %v", err)
	}
	defer objects.close()
	var sum uint64
	for n, m := range []*ebpf.Map{objects.Flows0, objects.Flows1, objects.Front0, objects.Front1} {
		info, err := m.Info()
		if err != nil {
			t.Fatalf("look at map: %v", err)
		}
		memory, ok := info.Memlock()
		if !ok || n < sets && info.MaxEntries != capacity {
			t.Fatalf("%s: got %d entries, memory told: %t, want %d entries and their memory", m, info.MaxEntries, ok, capacity)
		}
		sum += memory
	}
	t.Logf("%d flows a set, %d bytes in both", capacity, sum)
	if sum > DefaultMapMemory*11/10 || sum < DefaultMapMemory/8 {
		t.Errorf("got %d bytes, want about the %d asked for", sum, DefaultMapMemory)
	}
}

// One entry more than MaxMapMemory stands for is what the kernel refuses, whatever memory
// there is. One less it would make, of all of the machine's memory.
func TestTheKernelMakesNoLargerMap(t *testing.T) {
	ktest.Privileged(t)
	spec, err := thisBuild().spec()
	if err != nil {
		t.Fatal(err)
	}
	flows := spec.Maps[bpf.MeterMapFlows0]
	flows.MaxEntries = maxEntries + 1
	m, err := ebpf.NewMap(flows)
	if err == nil {
		m.Close()
	}
	if !errors.Is(err, unix.E2BIG) {
		t.Errorf("got %v, want %v", err, unix.E2BIG)
	}
	cpus := ebpf.MustPossibleCPU()
	if got := Capacity(MaxMapMemory(cpus), cpus); got != maxEntries {
		t.Errorf("got %d entries of the most memory, want %d", got, maxEntries)
	}
}
