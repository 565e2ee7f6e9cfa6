// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ratelog"
)

// uplinks are the meter of the uplinks and what it publishes to. Nothing of it is
// shared with the pods' but the owners and places of addresses.
type uplinks struct {
	log       *slog.Logger
	stale     *ratelog.Outage // see Agent
	identity  *identities
	table     *flows.UplinkTable
	publisher *flows.UplinkPublisher
	keeper    *keeper
	meter     *datapath.Meter
	// epoch is what is being published.
	epoch *flows.Epoch
}

// loadUplinks makes the meter of the uplinks. Without any to be metered, what an
// earlier agent left of them is removed: nobody would read it.
func (a *Agent) loadUplinks(ctx context.Context) (err error) {
	if len(a.config.Uplinks) == 0 {
		removed, err := uninstallUplinks(a.config.PinPath, a.config.StateDir)
		if len(removed) > 0 {
			a.log.Warn("no --uplinks: removed what an earlier agent left of its uplinks", "things", len(removed))
		}
		return err
	}
	u := &uplinks{log: a.log.With("meter", "uplinks"), identity: a.identity}
	u.stale = newStale(u.log)
	if u.keeper, err = newKeeper(a.config.StateDir, uplinksName, u.log); err != nil {
		return err
	}
	u.table = flows.NewUplinkTable(flows.UplinkOptions{
		Limit: a.config.UplinkSeriesLimit, Idle: a.config.FlowIdle, Grace: a.config.SeriesGrace,
	})
	u.publisher = flows.NewUplinkPublisher(flows.UplinkPublisherOptions{
		Table: u.table, Directory: a.identity.cache, Places: a.whereabouts(), NAT64: a.config.nat64(), Persist: u.persist,
	})
	o := a.meterOptions()
	o.Role, o.PinPath = datapath.RoleUplinks, datapath.UplinksPath(a.config.PinPath)
	o.XDP = datapath.XDPMode(a.config.XDPMode)
	o.Sink, o.Saved, o.Logger = u, u.keeper.saved, u.log
	o.Ready = nil // no CNI plugin works on an uplink
	if u.meter, err = datapath.New(ctx, o); err != nil {
		return a.config.withoutRoom(fmt.Errorf("meter uplinks: %w", err))
	}
	a.uplinks = u
	return u.keeper.resume(u.meter, func(found *checkpoint) error {
		if u.meter.Unsaved() {
			found.Uplinks.BeginAnew()
		}
		return u.publisher.Restore(found.Uplinks)
	})
}

// Publish implements [datapath.Sink].
func (u *uplinks) Publish(epoch *flows.Epoch) error {
	u.identity.refreshHost(epoch.End)
	u.epoch = epoch
	return u.publisher.Publish(epoch)
}

func (u *uplinks) persist(state *flows.UplinkState) {
	u.keeper.save(&checkpoint{Datapath: u.meter.Save(u.epoch), Uplinks: state})
}

// The methods below answer for an agent without uplinks too, whose uplinks are nil.

// run meters until ctx is done.
func (u *uplinks) run(ctx context.Context) error {
	if u == nil {
		return nil
	}
	return u.meter.Run(ctx)
}

func (u *uplinks) drain(ctx context.Context) error {
	if u == nil {
		return nil
	}
	return u.meter.Drain(ctx)
}

func (u *uplinks) settle(ctx context.Context) error {
	if u == nil {
		return nil
	}
	return u.meter.Settle(ctx)
}

// snapshot drains if the last drain is too old, and returns the table in any case.
func (u *uplinks) snapshot(ctx context.Context) flows.UplinkSnapshot {
	if u == nil {
		return flows.UplinkSnapshot{}
	}
	u.stale.Set(u.meter.Fresh(ctx, freshness))
	return u.table.Snapshot()
}

// stats are the publisher's own counters, and the checkpoints that failed.
func (u *uplinks) stats() (stats flows.Stats, unsaved uint64, problem string) {
	if u == nil {
		return stats, 0, ""
	}
	unsaved, problem = u.keeper.saves.status()
	return u.publisher.Stats(), unsaved, problem
}

func (u *uplinks) interfaces() []datapath.InterfaceStatus {
	if u == nil {
		return nil
	}
	return u.meter.Interfaces()
}

func (u *uplinks) status() (all []UplinkStatus) {
	for _, i := range u.interfaces() {
		all = append(all, UplinkStatus{
			Name: i.Name, Index: int(i.Point), Attachment: string(i.Mode), State: string(i.State), Since: i.Since,
			Transmit: i.Counted[flows.Transmit], Receive: i.Counted[flows.Receive],
		})
	}
	for _, r := range u.refusals() {
		all = append(all, UplinkStatus{
			Name: r.Name, Index: int(r.Point), State: string(datapath.StateRefused), Problem: r.Problem.Error(),
		})
	}
	return all
}

func (u *uplinks) refusals() []datapath.Refusal {
	if u == nil {
		return nil
	}
	return u.meter.Refusals()
}

// states counts the uplinks by state.
func (u *uplinks) states() map[string]int {
	counts := countStates(u.interfaces())
	if refused := len(u.refusals()); refused > 0 {
		counts[string(datapath.StateRefused)] = refused
	}
	return counts
}

func (u *uplinks) close() error {
	if u == nil {
		return nil
	}
	return u.meter.Close()
}

// uninstallUplinks removes what agents have left of their uplinks.
func uninstallUplinks(pinPath, stateDir string) (removed []string, err error) {
	removed, err = datapath.Uninstall(datapath.UplinksPath(pinPath))
	if err != nil {
		return removed, err
	}
	files, err := removeCheckpoints(stateDir, uplinksName)
	return append(removed, files...), err
}

// lastDrain is about the meter that drained longer ago, or that fails to.
func (a *Agent) lastDrain() datapath.DrainStatus {
	pods := a.meter.LastDrain()
	if a.uplinks == nil {
		return pods
	}
	up := a.uplinks.meter.LastDrain()
	older := pods
	if up.Ended.Before(pods.Ended) {
		older = up
	}
	older.Problem = joinProblems(pods.Problem, up.Problem)
	return older
}

// outcomes are how parsing ended, of both meters.
func (a *Agent) outcomes() map[string]uint64 {
	meters := []*datapath.Meter{a.meter}
	if a.uplinks != nil {
		meters = append(meters, a.uplinks.meter)
	}
	sum := make(map[string]uint64)
	for _, meter := range meters {
		outcomes, err := meter.Outcomes()
		if err != nil {
			a.log.Warn("read how parsing ended", "error", err)
		}
		for outcome, packets := range outcomes {
			sum[outcome] += packets
		}
	}
	return sum
}

// joinProblems is what both meters complain of.
func joinProblems(of ...string) string {
	return strings.Join(slices.DeleteFunc(of, func(problem string) bool { return problem == "" }), "\n")
}
