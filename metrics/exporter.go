// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// namespace is the first part of the name of every metric of ours.
const namespace = "podmeter"

// defaultSnapshotTimeout leaves a scrape, which Prometheus gives 10 s, time to
// be written when the drain before it hangs.
const defaultSnapshotTimeout = 5 * time.Second

// Source is where an [Exporter] gets its values from, at every scrape and from
// several goroutines.
type Source interface {
	// Snapshot returns the table as it is, or as it is after a drain if the last
	// one is too old. It ends with the context. The exporter changes nothing in
	// it, so one snapshot may be given to several scrapes.
	Snapshot(ctx context.Context) (*flows.Snapshot, error)
	// Agent returns the agent's own values. It is called after Snapshot.
	Agent() Agent
}

// Options are what an [Exporter] needs.
type Options struct {
	Source Source
	// Optional chooses the opt-in labels that are written. Rows that differ in
	// the others only are added.
	Optional flows.Optional
	// SnapshotTimeout bounds Source.Snapshot; 5 s if zero.
	SnapshotTimeout time.Duration
	// FlowSeriesLimit and ExternalSeriesLimit are the table's limits.
	FlowSeriesLimit, ExternalSeriesLimit int
	// UplinkSeriesLimit is that of the uplinks' table.
	UplinkSeriesLimit int
	// ClassicRTT is whether the histogram of RTTs has classic buckets beside the native ones,
	// see [RTTBounds].
	ClassicRTT bool
	// Known are the label values that the agent's own metrics have from the start.
	Known Known
	// Version and Revision are those of the build.
	Version, Revision string
	Logger            *slog.Logger
}

func (o *Options) rttBounds() []float64 {
	if !o.ClassicRTT {
		return nil
	}
	return RTTBounds()
}

// Known are label values that are written even if their metric is 0. Values
// that only come up in an [Agent] are written as well.
type Known struct {
	InterfaceStates []string // of podmeter_interfaces
	UplinkStates    []string // of podmeter_uplinks
	Outcomes        []string // of podmeter_packets_parsed_total
	LostReasons     []string // of podmeter_lost_bytes_total
	IdentityKinds   []string // of podmeter_identity_objects
}

// Exporter turns a source's values into metrics.
type Exporter struct {
	registry *prometheus.Registry
	drains   prometheus.Histogram
}

// New returns an exporter with all of podmeter's metrics, and the usual ones of
// Go and of the process.
func New(options Options) (*Exporter, error) {
	options.SnapshotTimeout = cmp.Or(options.SnapshotTimeout, defaultSnapshotTimeout)
	e := &Exporter{registry: prometheus.NewRegistry(), drains: newDrainHistogram()}
	err := errors.Join(
		e.registry.Register(newCollector(options)),
		e.registry.Register(e.drains),
		e.registry.Register(newBuildInfo(options)),
		e.registry.Register(collectors.NewGoCollector()),
		e.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return e, nil
}

// Registry is where the metrics are registered, to be gathered from and for
// further collectors to be added.
func (e *Exporter) Registry() *prometheus.Registry { return e.registry }

// ObserveDrain takes note of how long a drain took, the wait for the grace
// period included.
func (e *Exporter) ObserveDrain(took time.Duration) { e.drains.Observe(took.Seconds()) }

// newDrainHistogram returns the histogram with classic buckets from a set that
// is nearly empty to a grace period that was held up, and native ones for
// servers that take them.
func newDrainHistogram() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "drain_duration_seconds",
		Help: "How long drains took, the wait for the grace period included.",
		Buckets: []float64{
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
		},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	})
}

func newBuildInfo(options Options) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help: "1, labelled with the version of podmeter, its revision and the version of Go.",
		ConstLabels: prometheus.Labels{
			"version": valid(options.Version), "revision": valid(options.Revision),
			"goversion": runtime.Version(),
		},
	}, func() float64 { return 1 })
}
