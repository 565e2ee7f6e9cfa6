// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
)

// pacedRate is new flows per second, all senders together: in a period more than
// the default memory holds.
const pacedRate = 60_000

// scanned is what a scan came to.
type scanned struct {
	*attributing
	ledger  byDirection
	said    string // by the logger
	worst   time.Duration
	lasting time.Duration
	cpus    int
}

// scanThrough lets senders scan through a running meter.
func scanThrough(t *testing.T, like sender, change func(*Options)) *scanned {
	t.Helper()
	w, said := newWire(t), &messages{}
	s := &scanned{attributing: newAttributing(), lasting: like.For}
	m := startMeter(t, w.host, func(o *Options) {
		o.DrainInterval, o.MapMemory, o.Sink = defaultDrainInterval, DefaultMapMemory, s.attributing
		o.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(said, t.Output()), nil))
		o.OnDrain = func(took time.Duration) { s.worst = max(s.worst, took) }
		change(o)
	})
	m.awaitState(t, "veth0", StateAttached)
	unpublished := before(m, "veth0")
	scan(t, w.pod, like)
	s.ledger = w.ended(t).sub(unpublished)
	m.stop()
	s.said, s.cpus = said.String(), m.cpus
	return s
}

// check asserts what holds however large the maps are: every byte is counted, and
// what is in no flow is named.
func (s *scanned) check(t *testing.T) {
	t.Helper()
	sent := s.ledger[flows.Transmit]
	t.Logf("%s: %d packets, %.0f/s, each a flow; %d drains, the longest %v; not in a flow: %d",
		t.Name(), sent.Packets, float64(sent.Packets)/s.lasting.Seconds(), s.epochs, s.worst.Round(time.Millisecond),
		s.residue.Packets+s.unplaced.Packets)
	if s.total != sent || sent.Packets < floodPorts {
		t.Errorf("totals: got %+v, want the interface's %+v", s.total, sent)
	}
	if s.failed != 0 {
		t.Errorf("conservation error: got %d, want 0", s.failed)
	}
	named := s.residue
	named.Add(s.unplaced)
	if want := s.total.Sub(s.placed); named != want {
		t.Errorf("residue and unplaced: got %+v, want what is in no flow, %+v", named, want)
	}
	pod, unattributed := s.exported()
	if pod[flows.Transmit] != sent || unattributed[flows.Transmit] != named {
		t.Errorf("exported: got %+v, of it %+v unattributed, want %+v and %+v", pod, unattributed, sent, named)
	}
}

// suggestions are the map memories that the log named as large enough, beside the
// flows that they are to hold.
func (s *scanned) suggestions(t *testing.T) (all [][2]uint64) {
	t.Helper()
	line := regexp.MustCompile(`flows=(\d+) map-memory=\d+ would-have-held=(\d+)`)
	for _, match := range line.FindAllStringSubmatch(s.said, -1) {
		var pair [2]uint64
		for i := range pair {
			var err error
			if pair[i], err = strconv.ParseUint(match[i+1], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, pair)
	}
	return all
}

// checkSuggestions wants the log to name a sufficient memory when flows were lost,
// and only then.
func (s *scanned) checkSuggestions(t *testing.T) {
	t.Helper()
	all := s.suggestions(t)
	if lost := s.residue.Bytes+s.unplaced.Bytes > 0; lost != (len(all) > 0) {
		t.Errorf("log: got %d suggestions, want some if flows were lost, %t", len(all), lost)
	}
	for _, pair := range all {
		if got := newPressure(Capacity(pair[1], s.cpus), s.cpus).capacity; got < pair[0] {
			t.Errorf("log: %d bytes hold %d flows, want at least %d", pair[1], got, pair[0])
		}
	}
}

// A scan of more flows than the default memory holds in a period: the agent is
// called in time, and none is lost.
func TestScanLosesNoFlow(t *testing.T) {
	s := scanThrough(t, pacedScan(t), func(*Options) {})
	s.check(t)
	if !effort.NoRoom() && (!s.residue.IsZero() || !s.unplaced.IsZero()) {
		t.Errorf("residue %+v, unplaced %+v, want none", s.residue, s.unplaced)
	}
}

// The same with small maps and an agent that is not called: the test above can
// fail. What is in no flow is named to the byte.
func TestScanWithoutWakeups(t *testing.T) {
	s := scanThrough(t, pacedScan(t), func(o *Options) { o.MapMemory, o.noWakeups = 8<<20, true })
	s.check(t)
	s.checkSuggestions(t)
	if s.residue.IsZero() {
		t.Error("residue: got none, want some")
	}
}

// pacedScan is one that leaves an agent the time to drain on a machine with other
// work to do.
func pacedScan(t *testing.T) sender {
	return sender{For: scanFor(t, 5*time.Second, time.Minute), Rate: pacedRate / scanSenders}
}

// As fast as two senders can, whether or not they leave the agent its time. Flows
// may be lost then, with small maps above all, but never a byte.
func TestScanAtFullRate(t *testing.T) {
	for _, c := range []struct {
		name   string
		memory uint64
		like   sender
	}{
		{"senders that give way", DefaultMapMemory, sender{Nice: 19}},
		{"a sender on each CPU", DefaultMapMemory, sender{Pinned: true}},
		{"a sender on each CPU, 8 MiB", 8 << 20, sender{Pinned: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.like.For = scanFor(t, 3*time.Second, time.Minute)
			s := scanThrough(t, c.like, func(o *Options) { o.MapMemory = c.memory })
			s.check(t)
			s.checkSuggestions(t)
		})
	}
}
