// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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
	// openFront is nil where flows are in maps alone.
	openFront func(m *ebpf.Map) flowMap
}

// front returns what reads a front of the layout.
func (l *layout) front(m *ebpf.Map) flowMap {
	if l.openFront == nil {
		return unreadable{}
	}
	return l.openFront(m)
}

// newLayout returns a layout of flows in fronts and, for all CPUs together, in maps.
func newLayout[K comparable, V any](number int, decode func(*K, []V, clock) flows.Record) layout {
	return layout{
		number:    number,
		open:      func(m *ebpf.Map, _ int) flowMap { return newFlowTable(m, 1, decode) },
		openFront: func(m *ebpf.Map) flowMap { return newFront(m, decode) },
	}
}

// firstLayout is that of the first builds: flows in maps with a value for each CPU.
func firstLayout() layout {
	return layout{number: 1, open: func(m *ebpf.Map, cpus int) flowMap { return newFlowTable(m, cpus, decodeFirst) }}
}

// build is what changes from one build of podmeter to another and matters to the
// maps that it finds.
type build struct {
	spec func() (*ebpf.CollectionSpec, error)
	// layouts are those that it can read, the one that its programs write first.
	layouts []layout
	// later are the maps that it has beside those of the first build.
	later []string
}

// pinNames are the names of the maps that outlive the build, by the names of their pins.
func (b build) pinNames() map[string]string { return pinNames(b.later) }

// thisBuild reads its own layout and that before it.
func thisBuild() build {
	return build{spec: bpf.LoadMeter, layouts: []layout{newLayout(bpf.FlowLayout, decode), firstLayout()}, later: laterMaps}
}

// flowPinPrefix begins the name of every pinned map of flows:
// flows_<set>_v<layout>_<entries>, or flows_front_<set>_v<layout>_<buckets>. What is of
// another layout or size has another name, so that an upgrade can have both.
const flowPinPrefix = "flows_"

func flowPin(set, layout int, entries uint32) string {
	return fmt.Sprintf("%s%d_v%d_%d", flowPinPrefix, set, layout, entries)
}

// frontPin begins as other pins of flows do, so that a build which has no fronts takes it
// for flows that it cannot read, and does away with it.
func frontPin(set, layout int, buckets uint32) string {
	return fmt.Sprintf("%sfront_%d_v%d_%d", flowPinPrefix, set, layout, buckets)
}

// parseFrontPin is the reverse of frontPin.
func parseFrontPin(pin string) (set, layout int, ok bool) {
	var buckets uint32
	n, err := fmt.Sscanf(pin, flowPinPrefix+"front_%d_v%d_%d", &set, &layout, &buckets)
	return set, layout, err == nil && n == 3 && set >= 0 && set < sets && pin == frontPin(set, layout, buckets)
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
	// front is whether it is in front of another.
	front bool
}

func (o *outgoing) discard() error { return errors.Join(remove(o.pin), o.close()) }

func (o *outgoing) close() error { return errors.Join(o.release(), o.m.Close()) }

// unreadable is a map of a layout that this build cannot read. What its flows
// carried is in the totals, so that it comes as unattributed.
type unreadable struct{}

func (unreadable) read(_ frozen, records []flows.Record) ([]flows.Record, error) { return records, nil }
func (unreadable) clear() (uint64, error)                                        { return 0, nil }
func (unreadable) release() error                                                { return nil }

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
		if !strings.HasPrefix(name, flowPinPrefix) || own[name] != "" {
			continue
		}
		if err := m.openOutgoingPin(name); err != nil {
			return err
		}
	}
	return nil
}

// pins are the collection's names of all maps that are pinned, by the names of their pins.
func (m *Meter) pins() map[string]string {
	pins := m.options.build.pinNames()
	maps.Copy(pins, m.flowPins())
	return pins
}

// flowPins are the collection's names of this meter's maps of flows, fronts included, by
// the names of their pins.
func (m *Meter) flowPins() map[string]string {
	pins := make(map[string]string, 2*sets)
	layout := m.options.build.layouts[0]
	for n := range sets {
		pins[flowPin(n, layout.number, m.capacity)] = flowMaps[n]
		if layout.openFront != nil {
			pins[frontPin(n, layout.number, m.buckets)] = frontMaps[n]
		}
	}
	return pins
}

func (m *Meter) openOutgoingPin(name string) error {
	pin := filepath.Join(m.options.PinPath, name)
	flowMap, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return fmt.Errorf("open an earlier build's map %s: %w", name, err)
	}
	o := outgoing{m: flowMap, pin: pin}
	number, layout, isFront := parseFrontPin(name)
	if o.front = isFront; !isFront {
		number, layout, _ = parseFlowPin(name)
	}
	o.flowMap = m.reader(layout, flowMap, isFront)
	_, lost := o.flowMap.(unreadable)
	m.log.Info("takes over the flows of an earlier agent's map", "map", name, "readable", !lost)
	s := m.drainer.sets[number]
	s.outgoing = append(s.outgoing, o)
	return nil
}

// reader returns what reads a map of a layout, or a front.
func (m *Meter) reader(number int, flowMap *ebpf.Map, front bool) flowMap {
	for _, l := range m.options.build.layouts {
		switch {
		case l.number != number:
		case !front:
			return l.open(flowMap, m.cpus)
		default:
			return l.front(flowMap)
		}
	}
	return unreadable{}
}
