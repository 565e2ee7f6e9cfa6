// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/internal/effort"
	"golang.org/x/sys/unix"
)

// kills is how often the agent is killed or ended: more where stress is asked for.
func kills() int {
	if effort.Stressed() {
		return 120
	}
	return 12
}

// The agent is killed at random moments under traffic, and ended in peace now and
// then. A scraper never sees a series go down or disappear, and in the end the
// counters are the interface's.
func TestKilledAgainAndAgain(t *testing.T) {
	effort.Long(t, "kills an agent 12 times")
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.testKills(t, attach, []string{podBytes, flowBytes}, trafficNames, func(_ int, flags ...string) *process {
				return start(t, h.node, nil, flags...)
			})
		})
	}
}

// What is compared with an interface.
const (
	podBytes  = "podmeter_pod_transmit_bytes_total"
	flowBytes = "podmeter_flow_transmit_bytes_total"
)

// earlierEnv is the environment variable that names an earlier build's binary.
const earlierEnv = "PODMETER_EARLIER_BINARY"

// Agents of an earlier build and of this one follow each other, killed at random moments.
// What the earlier one cannot read of flows is unattributed; pods' counters are exact.
func TestKilledBetweenBuilds(t *testing.T) {
	earlier := os.Getenv(earlierEnv)
	if earlier == "" {
		t.Skipf("%s names no binary: make stress", earlierEnv)
	}
	effort.Long(t, "kills agents 12 times")
	t.Parallel()
	for _, attach := range []string{"auto", "netlink"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			own := []string{"podmeter_pod_transmit_", "podmeter_pod_receive_"}
			h.testKills(t, attach, []string{podBytes}, own, func(n int, flags ...string) *process {
				if n%2 == 0 && n < kills() {
					return startProgram(t, h.node, earlier, nil, flags...)
				}
				return start(t, h.node, nil, flags...)
			})
		})
	}
}

// testKills starts agents one after the other, which it kills under traffic, and compares
// what they tell of the pod with its interface. The last has the number of kills. Series whose
// names have one of the prefixes may neither end nor go down meanwhile, and families equal the interface then.
func (h *host) testKills(t *testing.T, attach string, families, prefixes []string, start func(n int, flags ...string) *process) {
	flags := h.flags("--attach", attach, "--drain-interval", "100ms", "--flow-labels", "peer_port", "--log-level", "error")
	p := start(0, flags...)
	before := h.awaitAttached(t, p).Interfaces[0].Before[0]
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { keepSending(ctx, t, h) })
	running.Go(func() { keepScraping(ctx, t, h, prefixes...) })
	random := rand.New(rand.NewPCG(2, 3))
	for n := range kills() {
		if n%4 != 0 { // else it may still be starting
			h.awaitAttached(t, p)
		}
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // any moment is meant
		end := unix.SIGKILL
		if n%6 == 5 {
			end = unix.SIGTERM // which may come before it is listened for
		}
		if err := p.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		p.end(t)
		p = start(n+1, flags...)
	}
	h.awaitAttached(t, p)
	cancel()
	running.Wait()
	_, all := h.counters(t)
	want := all - float64(before.Bytes)
	h.await(t, p, "all is drained", func(*agent.Status) bool {
		return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= want
	})
	for _, family := range families {
		if got := h.value(t, family, "pod", "veth0"); got != want {
			t.Errorf("%s: got %v, want the interface's %v", family, got, want)
		}
	}
	p.terminate(t)
}

func keepSending(ctx context.Context, t *testing.T, h *host) {
	for ctx.Err() == nil {
		h.send(t, 20)
	}
}

// keepScraping scrapes at 5 Hz, whenever there is an agent.
func keepScraping(ctx context.Context, t *testing.T, h *host, prefixes ...string) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	client := newClient(h.sock)
	defer client.close()
	last := make(map[string]float64)
	compared := 0
	defer func() {
		if compared == 0 {
			t.Error("no two scrapes could be compared")
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		text, err := client.metrics(ctx)
		if err != nil {
			continue // killed
		}
		now := counters(text, prefixes...)
		compared += len(last)
		for series, value := range last {
			if got, there := now[series]; !there || got < value {
				t.Errorf("%s: got %v (there: %t), had %v", series, got, there, value)
			}
		}
		last = now
	}
}

// trafficNames begin the names of pods' traffic.
var trafficNames = []string{"podmeter_pod_", "podmeter_flow_"}

// counters are the series of an exposition whose names have one of the prefixes, those of
// traffic if there is none, by name and labels.
func counters(text []byte, prefixes ...string) map[string]float64 {
	if len(prefixes) == 0 {
		prefixes = trafficNames
	}
	all := make(map[string]float64)
	for line := range bytes.Lines(text) {
		series, number, found := strings.Cut(strings.TrimSpace(string(line)), "} ")
		value, err := strconv.ParseFloat(number, 64)
		wanted := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(series, prefix) })
		if found && err == nil && wanted {
			all[series] = value
		}
	}
	return all
}

// Where the checkpoint cannot be written, or is not one, the agent says so, counts
// on, and the next one begins with what the maps hold.
func TestCheckpointThatIsOfNoUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, state string)
		aside bool
	}{
		{"no directory can be made", func(t *testing.T, state string) { replace(t, state, "a file") }, false},
		{"torn", func(t *testing.T, state string) { truncate(t, filepath.Join(state, "checkpoint")) }, true},
		{"something else", func(t *testing.T, state string) { replace(t, filepath.Join(state, "checkpoint"), "pods: []\n") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			state := filepath.Join(h.dir, "state")
			p := start(t, h.node, nil, h.flags()...)
			before := h.awaitAttached(t, p).Interfaces[0].Before[0]
			h.send(t, 20)
			p.terminate(t)
			test.spoil(t, state)
			p = start(t, h.node, nil, h.flags()...)
			h.awaitAttached(t, p)
			if _, err := os.Stat(filepath.Join(state, "checkpoint.rejected")); (err == nil) != test.aside {
				t.Errorf("set aside: got %v, want %t", err, test.aside)
			}
			h.send(t, 10)
			_, all := h.counters(t)
			want := all - float64(before.Bytes)
			status := h.await(t, p, "all that the maps hold is there", func(*agent.Status) bool {
				return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= want
			})
			// Asked for again: that status is older than the last epoch.
			status = h.await(t, p, "another drain", func(s *agent.Status) bool { return s.Drain.Count > status.Drain.Count+1 })
			if told := status.CheckpointProblem != ""; told == test.aside {
				t.Errorf("problem told: got %q", status.CheckpointProblem)
			}
			if got := h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0"); got != want {
				t.Errorf("got %v, want the interface's %v", got, want)
			}
			p.terminate(t)
		})
	}
}

func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}
