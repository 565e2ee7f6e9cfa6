// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
)

// soakSample is what was seen of the agent at one moment.
type soakSample struct {
	at         time.Duration // since the soak began
	life       int           // which agent it was
	attached   int           // interfaces
	rss        float64       // MiB
	goroutines float64
	// fds and pins are what the agent has beside one for each link of TCX. Links are
	// those of all interfaces that it knows, also just deleted ones.
	fds, pins float64
	links     float64
	// series are all of traffic, perPod these for each pod that has to be served.
	series, perPod float64
	wrong          float64 // bytes of conservation error, and of what is lost or in no flow
}

// soakWatch scrapes the agent, keeps the samples and notes what must not be.
type soakWatch struct {
	w       *soakWorld
	client  *client
	began   time.Time
	life    int
	samples []soakSample
	// last are the traffic series of the last scrape.
	last map[string]float64
	// ended are deleted pods whose series are still served, with what their
	// interfaces had counted.
	ended map[string]soakEnd
	// compared counts series that were compared with an earlier scrape, exact the
	// deleted pods whose last values were their interfaces'.
	compared, exact int
}

type soakEnd struct {
	ledger [flows.Directions]flows.Counters
	at     time.Time
}

// sample scrapes once. An agent that is starting has nothing to say, for which
// there is no sample.
func (s *soakWatch) sample(t *testing.T, pid int) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := s.client.status(ctx)
	if err != nil {
		return false
	}
	text, err := s.client.metrics(ctx)
	if err != nil {
		return false
	}
	now := soakSample{at: time.Since(s.began), life: s.life}
	attached := make(map[string]bool)
	for _, i := range status.Interfaces {
		attached[i.Name] = i.State == "attached"
		if i.Attachment == "tcx" {
			now.links += flows.Directions
		}
		if attached[i.Name] {
			now.attached++
		}
	}
	for _, p := range s.w.pods {
		if p.attached++; !attached[p.name] {
			p.attached = 0
		}
	}
	evicted := status.ResidueBytes + status.UnplacedBytes
	if effort.NoRoom() {
		evicted = 0
	}
	now.wrong = float64(status.ConservationErrorBytes + status.LostBytes + evicted)
	if now.wrong != 0 {
		t.Errorf("at %v: conservation error %d, lost %d, residue %d, unplaced %d bytes, want none", now.at,
			status.ConservationErrorBytes, status.LostBytes, status.ResidueBytes, status.UnplacedBytes)
	}
	series := counters(text)
	s.checkGrowth(t, series)
	checkFlowsMakeUpPods(t, series)
	now.series, now.goroutines = float64(len(series)), gauge(text, "go_goroutines")
	now.perPod = now.series / float64(len(s.w.pods)+s.lately())
	now.rss, now.fds = residentMiB(t, pid), float64(countEntries(t, fmt.Sprintf("/proc/%d/fd", pid)))-now.links
	now.pins = float64(countEntries(t, s.w.pins)) - now.links
	s.samples, s.last = append(s.samples, now), series
	return true
}

// checkGrowth compares the series with those of the scrape before: none may be
// smaller, and none missing but those of a pod that is gone for long, whose last
// values are then its interface's.
func (s *soakWatch) checkGrowth(t *testing.T, now map[string]float64) {
	for series, value := range s.last {
		got, there := now[series]
		s.compared++
		if there && got < value {
			t.Errorf("%s: got %v, had %v", series, got, value)
		}
		if end, gone := s.ended[podOf(series)]; !there && (!gone || time.Since(end.at) < soakGrace-2*time.Second) {
			t.Errorf("%s: got nothing, had %v; pod deleted: %t", series, value, gone)
		}
	}
	for pod, end := range s.ended {
		if _, there := now[podSeries("transmit_bytes", pod)]; !there {
			s.checkEnded(t, pod)
		} else if since := time.Since(end.at); since > soakGrace+soakSilence {
			t.Errorf("%s: got its series %v after it was deleted, want them to go after %v", pod, since, soakGrace)
		}
	}
}

// lately is how many deleted pods still have to be served.
func (s *soakWatch) lately() (count int) {
	for _, end := range s.ended {
		if time.Since(end.at) < soakGrace {
			count++
		}
	}
	return count
}

// checkEnded compares what was last served of a deleted pod with its interface.
func (s *soakWatch) checkEnded(t *testing.T, pod string) {
	if checkSeries(t, s.last, pod, s.ended[pod].ledger) {
		s.exact++
	}
	delete(s.ended, pod)
}

// checkSeries compares a pod's series with what its interface counted.
func checkSeries(t *testing.T, series map[string]float64, pod string, ledger [flows.Directions]flows.Counters) bool {
	exact := true
	for direction, c := range ledger {
		for unit, want := range map[string]uint64{"bytes": c.Bytes, "packets": c.Packets} {
			name := podSeries(fmt.Sprint(flows.Direction(direction), "_", unit), pod)
			if got, there := series[name]; !there || got != float64(want) {
				t.Errorf("%s: got %v (there: %t), want the interface's %d", name, got, there, want)
				exact = false
			}
		}
	}
	return exact
}

// checkFlowsMakeUpPods adds up the flows of each pod: they are what the pod has.
func checkFlowsMakeUpPods(t *testing.T, series map[string]float64) {
	sums := make(map[string]float64)
	for name, value := range series {
		family, labels, _ := strings.Cut(name, "{")
		for _, from := range []string{"podmeter_flow_retired_", "podmeter_flow_"} {
			if rest, is := strings.CutPrefix(family, from); is {
				family = "podmeter_pod_" + rest
				sums[family+" "+labelOf(labels, "pod")] -= value
				break
			}
		}
		if strings.HasPrefix(name, "podmeter_pod_") {
			sums[family+" "+labelOf(labels, "pod")] += value
		}
	}
	for what, difference := range sums {
		if difference != 0 {
			t.Errorf("%s: got flows that differ from it by %v, want none", what, difference)
		}
	}
}

func podSeries(what, pod string) string {
	return fmt.Sprintf(`podmeter_pod_%s_total{namespace="",pod=%q`, what, pod)
}

func podOf(series string) string { return labelOf(series, "pod") }

// labelOf returns the value of a label of a series, none of which has quotes here.
func labelOf(series, label string) string {
	_, rest, _ := strings.Cut(strings.Replace(series, "{", ",", 1), ","+label+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// gauge returns a value without labels of an exposition.
func gauge(text []byte, name string) float64 {
	for line := range bytes.Lines(text) {
		if rest, is := strings.CutPrefix(strings.TrimSpace(string(line)), name+" "); is {
			value, _ := strconv.ParseFloat(rest, 64)
			return value
		}
	}
	return 0
}

func countEntries(t *testing.T, directory string) int {
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Errorf("list %s: %v", directory, err)
	}
	return len(entries)
}
