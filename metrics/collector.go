// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"log/slog"
	"sync"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ratelog"
	"github.com/prometheus/client_golang/prometheus"
)

// collector collects all families from one snapshot, and the agent's own.
type collector struct {
	options Options

	pods             family[flows.NoLabels]
	foreign          foreignFamily
	flows            family[flows.FlowLabels]
	health           healthFamilies
	retired          family[flows.PeerKind]
	externals        family[flows.ExternalLabels]
	retiredExternals family[flows.NoLabels]
	uplinks          uplinkFamilies
	own              []ownMetric

	mu sync.Mutex
	// stats are those of the last snapshot, for when the next one fails.
	stats  stats
	errors uint64
	outage ratelog.Outage
}

// stats are what a snapshot tells of its table.
type stats struct {
	flowSets, externalSets, uplinkSets       int
	foldedFlow, foldedExternal, foldedUplink uint64
}

func newCollector(options Options) *collector {
	return &collector{
		options: options,
		pods: newFamily("pod", "that pods %s", bytesAndPackets,
			podColumns[flows.NoLabels](), nil).always(),
		foreign: newForeignFamily(),
		flows: newFamily("flow", "that pods %s, by peer", bytesAndPackets,
			flowColumns(options.Optional), cleanFlow(options.Optional)),
		health: newHealthFamilies(options.Optional, options.rttBounds()),
		retired: newFamily("flow_retired", "of idle flow series that pods %s; never rate it", bytesAndPackets,
			retiredColumns(), nil),
		externals: newFamily("external", "that pods %s, by place of the external peer", bytesOnly,
			externalColumns(options.Optional), cleanExternal(options.Optional)),
		retiredExternals: newFamily("external_retired", "of idle external series that pods %s; never rate it", bytesOnly,
			podColumns[flows.NoLabels](), nil),
		uplinks: newUplinkFamilies(),
		own:     ownMetrics(),
		outage: ratelog.Outage{
			Log: options.Logger, Level: slog.LevelError,
			Wrong: "take snapshot for a scrape: no traffic is exported", Over: "snapshots can be taken again",
		},
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	c.pods.describe(ch)
	ch <- c.foreign.desc
	c.flows.describe(ch)
	c.health.describe(ch)
	c.retired.describe(ch)
	c.externals.describe(ch)
	c.retiredExternals.describe(ch)
	c.uplinks.describe(ch)
	for _, m := range c.own {
		ch <- m.desc
	}
}

// Collect implements [prometheus.Collector]. Without a snapshot it sends nothing
// of the traffic: a scrape with half of it would look like a drop.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	snapshot := c.snapshot()
	c.collectOwn(ch)
	if snapshot == nil {
		return
	}
	c.pods.collect(snapshot.Pods, ch)
	c.foreign.collect(snapshot.Foreign, ch)
	c.flows.collect(snapshot.Flows, ch)
	c.health.collect(snapshot.Health, ch)
	c.retired.collect(snapshot.Retired, ch)
	c.externals.collect(snapshot.Externals, ch)
	c.retiredExternals.collect(snapshot.RetiredExternals, ch)
	c.uplinks.collect(&snapshot.Uplinks, ch)
}

// snapshot returns nil if there is none, which it counts and logs.
func (c *collector) snapshot() *flows.Snapshot {
	ctx, cancel := context.WithTimeout(context.Background(), c.options.SnapshotTimeout)
	defer cancel()
	snapshot, err := c.options.Source.Snapshot(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed(err)
		return nil
	}
	c.outage.Set(nil)
	c.remember(snapshot)
	return snapshot
}

func (c *collector) failed(err error) {
	c.errors++
	c.outage.Set(err)
}

// remember takes note of a snapshot unless a later one has been: of two scrapes
// at once, the first to begin may be the last to get here.
func (c *collector) remember(s *flows.Snapshot) {
	next := stats{
		flowSets: s.FlowSets, externalSets: s.ExternalSets, uplinkSets: s.Uplinks.Sets,
		foldedFlow: s.FoldedFlowBytes, foldedExternal: s.FoldedExternalBytes, foldedUplink: s.Uplinks.FoldedBytes,
	}
	if next.foldedFlow >= c.stats.foldedFlow && next.foldedExternal >= c.stats.foldedExternal &&
		next.foldedUplink >= c.stats.foldedUplink {
		c.stats = next
	}
}

func (c *collector) collectOwn(ch chan<- prometheus.Metric) {
	s := state{options: &c.options, Agent: c.options.Source.Agent()}
	c.mu.Lock()
	s.stats, s.errors = c.stats, c.errors
	c.mu.Unlock()
	for _, m := range c.own {
		m.collect(&s, ch)
	}
}
