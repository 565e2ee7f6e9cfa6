// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/flows"
	"golang.org/x/sys/unix"
)

const (
	// soakFor is the variable with the duration of the soak, which is left out
	// without it; soakPlot that with a file for a plot of it.
	soakFor  = "PODMETER_SOAK"
	soakPlot = "PODMETER_SOAK_PLOT"

	// soakLasting and soakComing are how many pods stay, and how many there are of
	// those that come and go.
	soakLasting, soakComing = 6, 8
	// soakRipe is how many samples have to have a pod attached before it goes.
	soakRipe = 3
	// soakGrace is how long the series of a deleted pod are served.
	soakGrace = 10 * time.Second
	// soakSilence is how long an agent may take to answer.
	soakSilence = 90 * time.Second
)

// soak is a run: an agent after the other on one node.
type soak struct {
	*soakWorld
	watch  soakWatch
	flags  []string
	agent  *process
	before map[string][flows.Directions]flows.Counters
	// ends counts the agents by how they ended.
	ends map[unix.Signal]int
	gone int
}

// The agent works for as long as it is told to, under traffic of all kinds, while
// pods come and go and it is ended and killed. It is exact throughout, and takes no
// more in the end than in the beginning.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv(soakFor))
	if os.Getenv(soakFor) == "" {
		t.Skipf("long: set %s=10m, or make soak", soakFor)
	}
	if err != nil || duration < time.Minute {
		t.Fatalf("%s=%s: got %v, want a duration of at least 1m", soakFor, os.Getenv(soakFor), err)
	}
	s := beginSoak(t)
	defer s.plot(t)
	pause := min(max(duration/10, 40*time.Second), 10*time.Minute)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	lifeBegan, answered := time.Now(), time.Now()
	for time.Since(s.watch.began) < duration && !t.Failed() {
		<-ticker.C
		s.churn(t)
		if s.watch.sample(t, s.agent.Process.Pid) {
			answered = time.Now()
		} else if lifeBegan = time.Now(); time.Since(answered) > soakSilence {
			t.Fatalf("no answer for %v; the agent said:\n%s", soakSilence, &s.agent.output)
		}
		if time.Since(lifeBegan) > pause {
			s.restart(t)
			lifeBegan = time.Now()
		}
	}
	s.end(t)
	judged, faults := judgeSoak(s.watch.samples)
	for _, fault := range faults {
		t.Error(fault)
	}
	if s.gone < len(s.watch.samples)/2 || s.watch.exact != s.gone {
		t.Errorf("pods: got %d deleted within %d samples and %d of them exact, want at least half as many, and all",
			s.gone, len(s.watch.samples), s.watch.exact)
	}
	if judged == 0 {
		t.Error("got no life of an agent that is long enough to be judged")
	}
	s.report(t, judged)
}

// beginSoak starts the first agent when the pods that last are there.
func beginSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{soakWorld: newSoakWorld(t), ends: make(map[unix.Signal]int)}
	s.before = make(map[string][flows.Directions]flows.Counters)
	s.watch = soakWatch{w: s.soakWorld, client: newClient(s.sock), began: time.Now(), ended: make(map[string]soakEnd)}
	t.Cleanup(s.watch.client.close)
	for range soakLasting {
		s.add(t, true)
	}
	s.flags = s.host.flags("--drain-interval", "1s", "--series-grace", soakGrace.String(), "--log-level", "error",
		"--interfaces", "pod*")
	s.agent = start(t, s.node, nil, s.flags...)
	status := s.await(t, s.agent, "all are attached", func(status *agent.Status) bool {
		attached := 0
		for _, i := range status.Interfaces {
			if i.State == "attached" && i.Pod != "" {
				attached++
			}
		}
		return attached == soakLasting
	})
	for _, i := range status.Interfaces {
		if i.Seeded {
			t.Errorf("%s: what passed before the first agent is seeded, want it left out", i.Name)
		}
		s.before[i.Name] = i.Before
	}
	return s
}

// churn deletes a pod that was metered for some time, if all are there, and makes
// one.
func (s *soak) churn(t *testing.T) {
	t.Helper()
	coming := len(s.pods) - soakLasting
	for _, p := range s.pods {
		if !p.lasting && p.attached >= soakRipe && coming == soakComing {
			s.watch.ended[p.name] = soakEnd{s.remove(t, p), time.Now()}
			s.gone++
			coming--
			break
		}
	}
	if coming < soakComing {
		s.add(t, false)
	}
}

// restart ends the agent, in peace and by a kill in turns. The next one is started
// when pods have come and gone that it has not seen.
func (s *soak) restart(t *testing.T) {
	t.Helper()
	signal := unix.SIGTERM
	if s.watch.life%2 == 1 {
		signal = unix.SIGKILL
	}
	if err := s.agent.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if code := s.agent.end(t); signal == unix.SIGTERM && code != 0 {
		t.Errorf("exit code: got %d, want 0; the agent said:\n%s", code, &s.agent.output)
	}
	s.ends[signal]++
	s.churn(t)
	s.churn(t)
	s.agent = start(t, s.node, nil, s.flags...)
	s.watch.life++
}

// end lets everything rest, and compares all that is served with the interfaces.
func (s *soak) end(t *testing.T) {
	t.Helper()
	for _, p := range s.pods {
		p.quiet()
	}
	want := make(map[string][flows.Directions]flows.Counters)
	for _, p := range s.pods {
		ledger := s.rest(t, p)
		for direction, before := range s.before[p.name] { // nothing for those that came later
			ledger[direction].Bytes -= before.Bytes
			ledger[direction].Packets -= before.Packets
		}
		want[p.name] = ledger
	}
	drained := s.await(t, s.agent, "the agent answers", func(*agent.Status) bool { return true }).Drain.Epoch
	s.await(t, s.agent, "both sets are drained", func(status *agent.Status) bool { return status.Drain.Epoch > drained+3 })
	if !s.watch.sample(t, s.agent.Process.Pid) {
		t.Errorf("last scrape: got no answer; the agent said:\n%s", &s.agent.output)
	}
	for pod, ledger := range want {
		checkSeries(t, s.watch.last, pod, ledger)
	}
	for pod := range s.watch.ended {
		s.watch.checkEnded(t, pod)
	}
	s.agent.terminate(t)
	uninstall := start(t, s.node, nil, "uninstall", "--pin-path", s.pins, "--state-dir", filepath.Join(s.dir, "state"))
	if code := uninstall.end(t); code != 0 {
		t.Errorf("uninstall: got exit code %d, want 0; it said:\n%s", code, &uninstall.output)
	}
	if _, err := os.Stat(s.pins); !os.IsNotExist(err) {
		t.Errorf("pins: got %v, want none", err)
	}
}

// report prints the figures for docs/RELIABILITY.md.
func (s *soak) report(t *testing.T, judged int) {
	var bytes, packets float64
	for series, value := range s.watch.last {
		switch family, _, _ := strings.Cut(series, "{"); family {
		case "podmeter_pod_transmit_bytes_total", "podmeter_pod_receive_bytes_total":
			bytes += value
		case "podmeter_pod_transmit_packets_total", "podmeter_pod_receive_packets_total":
			packets += value
		}
	}
	t.Logf("%v: %d samples, %d times a series was compared with the scrape before; %.0f packets and %.0f bytes of pods still known",
		time.Since(s.watch.began).Round(time.Second), len(s.watch.samples), s.watch.compared, packets, bytes)
	t.Logf("pods: %d came, %d went, the last values of %d of these were their interface's", s.made, s.gone, s.watch.exact)
	t.Logf("agents: %d ended by SIGTERM, %d by SIGKILL; %d lives judged", s.ends[unix.SIGTERM], s.ends[unix.SIGKILL], judged)
	for _, q := range soakQuantities() {
		t.Logf("%-24s median %.0f, %s", q.name, median(s.watch.samples, q.of), soakRange(s.watch.samples, q.of))
	}
}

func soakRange(samples []soakSample, of func(soakSample) float64) string {
	least, most := of(samples[0]), of(samples[0])
	for _, s := range samples {
		least, most = min(least, of(s)), max(most, of(s))
	}
	return fmt.Sprintf("%.0f to %.0f", least, most)
}
