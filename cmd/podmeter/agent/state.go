// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/podmeter/podmeter/metrics"
)

// Why counted bytes are on no series.
const (
	lostUnbound     = "unbound"      // their interface vanished and its pod was never known
	lostNoInterface = "no_interface" // nobody knows the interface; must not happen
)

// known are the label values that are exported from the start.
func known() metrics.Known {
	k := metrics.Known{
		Outcomes:      datapath.Outcomes(),
		LostReasons:   []string{lostUnbound, lostNoInterface},
		IdentityKinds: []string{"pod", "service", "node", "cidr"},
	}
	for _, state := range datapath.States() {
		k.InterfaceStates = append(k.InterfaceStates, string(state))
	}
	for _, state := range datapath.UplinkStates() {
		k.UplinkStates = append(k.UplinkStates, string(state))
	}
	return k
}

// newStale is the outage of drains for scrapes.
func newStale(log *slog.Logger) *ratelog.Outage {
	return &ratelog.Outage{
		Log: log, Level: slog.LevelWarn, Wrong: "drain for a scrape, which gets older values", Over: "scrapes can drain again",
	}
}

// Snapshot implements [metrics.Source]: the tables, after a drain if the last one
// is too old. If that cannot be waited for, the tables as they are.
func (a *Agent) Snapshot(ctx context.Context) (*flows.Snapshot, error) {
	a.stale.Set(a.meter.Fresh(ctx, freshness))
	uplinks := a.uplinks.snapshot(ctx)
	s := a.table.Snapshot()
	s.Uplinks = uplinks
	a.amend(s)
	return s, nil
}

// Agent implements [metrics.Source].
func (a *Agent) Agent() metrics.Agent {
	stats, interfaces, pods := a.publisher.Stats(), a.meter.Interfaces(), a.publisher.Pods()
	source := a.identity.source.Status()
	up, upUnsaved, _ := a.uplinks.stats()
	unsaved, _ := a.keeper.saves.status()
	lookups := a.publisher.Lookups()
	return metrics.Agent{
		CheckpointErrors:       unsaved + upUnsaved,
		ConservationErrorBytes: stats.ConservationErrorBytes + up.ConservationErrorBytes,
		LostBytes: map[string]uint64{
			lostUnbound: stats.LostUnboundBytes, lostNoInterface: stats.LostNoInterfaceBytes + up.LostNoInterfaceBytes,
		},
		ResidueBytes:    stats.ResidueBytes + up.ResidueBytes,
		UnplacedBytes:   stats.UnplacedBytes + up.UnplacedBytes,
		UnboundBytes:    stats.UnboundBytes,
		DrainedEntries:  stats.Entries + up.Entries,
		LastDrain:       a.lastDrain().Ended,
		Differences:     differences(interfaces, pods),
		Interfaces:      countStates(interfaces),
		Uplinks:         a.uplinks.states(),
		Pods:            a.countPods(interfaces, pods),
		Yielded:         a.countYields(),
		Unpopulated:     len(a.unpopulated()),
		ParsedPackets:   a.outcomes(),
		IdentityObjects: source.Objects,
		IdentityBounded: a.identity.cache.Bounded(),
		IdentitySynced:  source.Synced,
		IdentityUpdated: source.Updated,
		GeoIPDatabases:  a.countDatabases(),
		ServiceLookups: map[string]uint64{
			metrics.LookupFound: lookups.Found, metrics.LookupMissing: lookups.Missing,
			metrics.LookupSkipped: lookups.Skipped, metrics.LookupError: lookups.Errors,
		},
		Sockets:    a.socketCounts(),
		TCPEntries: a.tcpEntries(stats.Health),
	}
}

func differences(interfaces []datapath.InterfaceStatus, pods map[flows.Point]*flows.Pod) []metrics.Difference {
	var all []metrics.Difference
	for _, i := range interfaces {
		pod := pods[i.Point]
		if pod == nil {
			continue
		}
		for d := range flows.Direction(flows.Directions) {
			all = append(all, metrics.Difference{
				Namespace: pod.Namespace, Pod: pod.Name, Direction: d, Packets: i.Difference[d],
			})
		}
	}
	return all
}

func countStates(interfaces []datapath.InterfaceStatus) map[string]int {
	counts := make(map[string]int)
	for _, i := range interfaces {
		counts[string(i.State)]++
	}
	return counts
}

// countPods counts this node's pods by whether they are metered. Pods that the
// identity does not list are those that interfaces are bound to by name.
func (a *Agent) countPods(interfaces []datapath.InterfaceStatus, pods map[flows.Point]*flows.Pod) map[string]int {
	interfaces = append(interfaces, a.meter.HostPods()...)
	metered := make(map[string]string) // UID → state
	unpopulated := make(map[string]bool)
	for _, pod := range a.unpopulated() {
		unpopulated[pod.UID] = pod.HostNetwork
	}
	for _, i := range interfaces {
		pod := pods[i.Point]
		switch {
		case pod == nil, i.State == datapath.StateGone, unpopulated[pod.UID]:
		case i.State.Partly():
			metered[pod.UID] = metrics.PodPartly
		case metered[pod.UID] == "":
			metered[pod.UID] = metrics.PodMetered
		}
	}
	counts := make(map[string]int)
	for _, state := range metered {
		counts[state]++
	}
	for _, pod := range a.identity.cache.LocalPods() {
		switch {
		case !pod.Running:
		case metered[pod.UID] != "":
		case pod.HostNetwork:
			counts[metrics.PodHostNetwork]++
		default:
			counts[metrics.PodUnmetered]++
		}
	}
	return counts
}

// readiness tells whether the numbers can be relied on.
func (a *Agent) readiness() metrics.Readiness {
	source, drain := a.identity.source.Status(), a.lastDrain()
	r := metrics.Readiness{IdentitySource: source.Source, IdentityAge: -1}
	if !source.Updated.IsZero() {
		r.IdentityAge = time.Since(source.Updated)
	}
	switch {
	case !source.Synced && source.Problem != "":
		r.Missing = append(r.Missing, "identity: "+source.Problem)
	case !source.Synced:
		r.Missing = append(r.Missing, "identity: not all objects have been listed yet")
	}
	if drain.Count == 0 {
		r.Missing = append(r.Missing, "drain: there was none yet")
	}
	if drain.Problem != "" {
		r.Missing = append(r.Missing, "drain: "+drain.Problem)
	}
	return r
}

// Status returns the agent's state.
func (a *Agent) Status() Status {
	stats, source := a.publisher.Stats(), a.identity.source.Status()
	up, _, problem := a.uplinks.stats()
	s := Status{
		Version: a.options.Version, AttachMode: a.config.Attach, PinPath: a.config.PinPath,
		Capacity: uint64(a.meter.Capacity()),
		Identity: IdentityStatus{
			Source: source.Source, Synced: source.Synced, LastUpdate: source.Updated,
			Objects: source.Objects, Problem: source.Problem,
		},
		Drain:                  a.drainStatus(),
		ConservationErrorBytes: stats.ConservationErrorBytes + up.ConservationErrorBytes,
		ResidueBytes:           stats.ResidueBytes + up.ResidueBytes,
		UnplacedBytes:          stats.UnplacedBytes + up.UnplacedBytes,
		LostBytes:              stats.LostUnboundBytes + stats.LostNoInterfaceBytes + up.LostNoInterfaceBytes,
		UnboundBytes:           stats.UnboundBytes,
		GeoIP:                  a.geoStatus(),
		Uplinks:                a.uplinks.status(),
		Yielded:                a.yieldStatus(),
		Unpopulated:            a.unpopulatedStatus(),
	}
	e := a.exported()
	s.Waiting = e.waiting()
	s.Interfaces = a.interfaceStatus(&e)
	s.Earlier, s.Orphans = e.rest()
	s.Node = a.node()
	_, s.CheckpointProblem = a.keeper.saves.status()
	s.CheckpointProblem = joinProblems(s.CheckpointProblem, problem)
	return s
}

func (a *Agent) drainStatus() DrainStatus {
	drain := a.lastDrain()
	return DrainStatus{
		IntervalSeconds: a.config.DrainInterval.Seconds(), Last: drain.Ended,
		DurationSeconds: drain.Took.Seconds(), Count: drain.Count, Epoch: drain.Epoch, Problem: drain.Problem,
	}
}

func (a *Agent) geoStatus() []GeoIPStatus {
	if a.places == nil {
		return nil
	}
	var all []GeoIPStatus
	for _, i := range a.places.Info() {
		all = append(all, GeoIPStatus{Path: i.Path, Type: i.Type, Built: i.Built, Fields: i.Fields, Problem: i.Problem})
	}
	return all
}

// countDatabases counts the databases of places by the states of package metrics.
func (a *Agent) countDatabases() map[string]int {
	counts := make(map[string]int)
	if a.places == nil {
		return counts
	}
	for _, i := range a.places.Info() {
		switch {
		case i.Missing:
			counts[metrics.GeoIPMissing]++
		case i.Problem != "":
			counts[metrics.GeoIPOutdated]++
		default:
			counts[metrics.GeoIPCurrent]++
		}
	}
	return counts
}

// interfaceStatus takes from e what is exported of each interface.
func (a *Agent) interfaceStatus(e *exported) []InterfaceStatus {
	pods := a.publisher.Pods()
	var all []InterfaceStatus
	for _, i := range append(a.meter.Interfaces(), a.meter.HostPods()...) {
		s := InterfaceStatus{
			Name: i.Name, Index: int(i.Point), Attachment: string(i.Mode), State: string(i.State), Since: i.Since,
			Transmit: i.Counted[flows.Transmit], Receive: i.Counted[flows.Receive],
			Before: i.Before, Seeded: i.Seeded, DifferencePackets: i.Difference,
			Ahead: i.Ahead, Hidden: i.Hidden, Bypassed: i.Bypassed,
			ExportedStatus: e.take(i.Point, i.Since), DifferenceBytes: i.DifferenceBytes,
			Earlier: i.Earlier, BypassedBefore: i.BypassedBefore, PodEnd: i.PodEnd,
		}
		if pod := pods[i.Point]; pod != nil {
			s.Namespace, s.Pod = pod.Namespace, pod.Name
			s.Listeners = listeners(a.publisher.Listeners(pod))
		}
		all = append(all, s)
	}
	return all
}

func listeners(known []flows.Listener) (all []ListenerStatus) {
	for _, l := range known {
		all = append(all, ListenerStatus{
			Protocol: l.Protocol.String(), Address: l.Local.String(), Container: l.Container, Command: l.Command,
		})
	}
	return all
}
