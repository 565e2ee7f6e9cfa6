// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/datapath"
	"golang.org/x/sys/unix"
)

func TestMapMemoryThatTheMachineHasNotIsRefused(t *testing.T) {
	for _, test := range []struct {
		name     string
		memory   uint64
		uplinks  []string
		cpus     int
		machine  uint64
		expected string // in the fault, empty for none
	}{
		{name: "default", machine: 1 << 30, cpus: 2},
		{name: "half of the machine", memory: 4 << 30, machine: 8 << 30, cpus: 2},
		{name: "more", memory: 4<<30 + 1<<20, machine: 8 << 30, cpus: 2,
			expected: "--map-memory 4097Mi: at most 4Gi is expected: maps may take half of this machine's memory; the default is 64Mi"},
		{name: "half, twice", memory: 4 << 30, uplinks: []string{"eth0"}, machine: 8 << 30, cpus: 2,
			expected: "--map-memory 4Gi: at most 2Gi is expected: maps may take half of this machine's memory, and --uplinks take as much again"},
		{name: "beyond the kernel", memory: 64e9, machine: 1 << 40, cpus: 2,
			expected: "--map-memory 64G: at most 38917Mi is expected: more entries the kernel does not give a map"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := Config{MapMemory: test.memory, Uplinks: test.uplinks}
			got := ""
			if err := config.mapMemoryFault(test.cpus, test.machine); err != nil {
				got = err.Error()
			}
			if (got == "") != (test.expected == "") || !strings.HasPrefix(got, test.expected) {
				t.Errorf("got %q, want %q", got, test.expected)
			}
		})
	}
}

// The machine is asked before the kernel is, which would take all of its memory first.
func TestMapMemoryIsCheckedOnThisMachine(t *testing.T) {
	err := (&Agent{config: Config{MapMemory: 1 << 50}}).checkMapMemory()
	if !IsUsage(err) || !strings.HasPrefix(err.Error(), "--map-memory 1Pi: at most ") {
		t.Errorf("got %v, want wrong usage that names flag and value", err)
	}
	if err := (&Agent{}).checkMapMemory(); err != nil {
		t.Errorf("default: got %v, want none", err)
	}
}

func TestAKernelWithoutRoomNamesTheFlag(t *testing.T) {
	for _, test := range []struct {
		config Config
		err    error
		want   string // the beginning
	}{
		{Config{MapMemory: 64e9}, unix.E2BIG, "--map-memory 64G: the kernel has no room"},
		{Config{}, unix.ENOMEM, "--map-memory 64Mi: the kernel has no room"},
		{Config{}, unix.EPERM, "map flows_0: operation not permitted"},
	} {
		got := test.config.withoutRoom(fmt.Errorf("map flows_0: %w", test.err))
		if !strings.HasPrefix(got.Error(), test.want) || !errors.Is(got, test.err) {
			t.Errorf("got %v, want %q and its cause", got, test.want)
		}
	}
	if err := (Config{}).withoutRoom(nil); err != nil {
		t.Errorf("got %v of no error, want none", err)
	}
	if datapath.DefaultMapMemory != 64<<20 {
		t.Error("the default that messages name is another")
	}
}
