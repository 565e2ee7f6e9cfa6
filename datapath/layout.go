// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/flows"
)

// layout is one way in which builds keep flows in maps.
type layout struct {
	// number is FLOW_LAYOUT of bpf/flow.h, raised by each change of the key or the
	// counters.
	number int
	open   func(m *ebpf.Map, cpus int) flowMap
}

func newLayout[K comparable, V any](number int, decode func(*K, []V, clock) flows.Record) layout {
	return layout{number: number, open: func(m *ebpf.Map, cpus int) flowMap { return newFlowTable(m, cpus, decode) }}
}

// build is what changes from one build of podmeter to another and matters to the
// maps that it finds.
type build struct {
	spec func() (*ebpf.CollectionSpec, error)
	// layouts are those that it can read, the one that its programs write first.
	layouts []layout
}

// thisBuild reads its own layout and, once there is one, that before it.
func thisBuild() build {
	return build{spec: bpf.LoadMeter, layouts: []layout{newLayout(bpf.FlowLayout, decode)}}
}

// flowPinPrefix begins the name of every pinned map of flows:
// flows_<set>_v<layout>_<entries>. What is of another layout or size has another
// name, so that an upgrade can have both.
const flowPinPrefix = "flows_"

func flowPin(set, layout int, entries uint32) string {
	return fmt.Sprintf("%s%d_v%d_%d", flowPinPrefix, set, layout, entries)
}

// parseFlowPin is the reverse of flowPin. What it does not know is of no layout
// and might be of either set.
func parseFlowPin(pin string) (set, layout int, ok bool) {
	var entries uint32
	n, err := fmt.Sscanf(pin, flowPinPrefix+"%d_v%d_%d", &set, &layout, &entries)
	return set, layout, err == nil && n == 3 && set >= 0 && set < sets && pin == flowPin(set, layout, entries)
}

// outgoing is a map of flows that no program of this build writes. It is drained
// with the set that it belongs to, and then done with.
type outgoing struct {
	flowMap
	m   *ebpf.Map
	pin string
}

func (o *outgoing) discard() error { return errors.Join(remove(o.pin), o.m.Close()) }

// unreadable is a map of a layout that this build cannot read. What its flows
// carried is in the totals, so that it comes as unattributed.
type unreadable struct{}

func (unreadable) read(_ clock, records []flows.Record) ([]flows.Record, error) { return records, nil }
func (unreadable) clear() (uint64, error)                                       { return 0, nil }

// openOutgoing finds the pinned maps of flows that earlier builds have left, or
// this one with another size, and gives them to their sets.
func (m *Meter) openOutgoing() error {
	own := m.flowPins()
	entries, err := os.ReadDir(m.options.PinPath)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, flowPinPrefix) || slices.Contains(own[:], name) {
			continue
		}
		if err := m.openOutgoingPin(name); err != nil {
			return err
		}
	}
	return nil
}

// flowPins are the names of the pins of this meter's maps of flows, by set.
func (m *Meter) flowPins() (pins [sets]string) {
	for n := range pins {
		pins[n] = flowPin(n, m.options.build.layouts[0].number, m.capacity)
	}
	return pins
}

func (m *Meter) openOutgoingPin(name string) error {
	pin := filepath.Join(m.options.PinPath, name)
	flowMap, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return fmt.Errorf("open an earlier build's map %s: %w", name, err)
	}
	number, layout, _ := parseFlowPin(name)
	o := outgoing{m: flowMap, pin: pin, flowMap: m.reader(layout, flowMap)}
	_, lost := o.flowMap.(unreadable)
	m.log.Info("takes over the flows of an earlier agent's map", "map", name, "readable", !lost)
	s := m.drainer.sets[number]
	s.outgoing = append(s.outgoing, o)
	return nil
}

// reader returns what reads a map of a layout.
func (m *Meter) reader(number int, flowMap *ebpf.Map) flowMap {
	for _, l := range m.options.build.layouts {
		if l.number == number {
			return l.open(flowMap, m.cpus)
		}
	}
	return unreadable{}
}
