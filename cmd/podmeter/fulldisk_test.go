// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/verify"
	"github.com/podmeter/podmeter/internal/effort"
	"golang.org/x/sys/unix"
)

// smallDisk gives an agent a state directory on a disk of its own.
func (h *host) smallDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(h.dir, "state")
	if err := errors.Join(os.Mkdir(dir, 0o700), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=0700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes to a disk until it is full, and returns the file that fills it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return file.Name()
}

// An agent whose disk is full is killed. What a scraper has seen is not taken back: series of
// flows begin anew, so that what increases since is what was sent since, and those of pods go on.
func TestKilledWithAFullDisk(t *testing.T) {
	effort.Long(t, "kills two agents")
	t.Parallel()
	for name, freed := range map[string]bool{"freed": true, "still full": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			disk := h.smallDisk(t)
			flags := h.flags("--drain-interval", "100ms", "--flow-labels", "peer_port")
			p := start(t, h.node, nil, flags...)
			before := h.awaitAttached(t, p).Interfaces[0].Before[0]
			drained := func(what string) (bytes float64) {
				t.Helper()
				_, all := h.counters(t)
				bytes = all - float64(before.Bytes)
				h.await(t, p, what, func(*agent.Status) bool {
					return h.value(t, "podmeter_pod_transmit_bytes_total", "pod", "veth0") >= bytes
				})
				return bytes
			}
			h.send(t, 300)
			drained("what is saved")
			filler := fill(t, disk)
			h.await(t, p, "a checkpoint that cannot be written", func(s *agent.Status) bool { return s.CheckpointProblem != "" })
			h.checkNotSaved(t)
			h.send(t, 200)
			pod := drained("what is not saved")
			seen := counters(h.scrape(t, "/metrics"))
			p.Process.Kill()
			p.end(t)
			if freed {
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
			}

			p = start(t, h.node, nil, flags...)
			h.awaitAttached(t, p)
			h.send(t, 50)
			since := drained("what is sent since") - pod
			flows, increase, sums := 0.0, 0.0, make(map[string]float64)
			for series, value := range counters(h.scrape(t, "/metrics")) {
				family, _, _ := strings.Cut(series, "{")
				if !strings.Contains(series, `pod="veth0"`) || !strings.HasSuffix(family, "_transmit_bytes_total") {
					continue
				}
				sums[family] += value
				if family != "podmeter_flow_transmit_bytes_total" {
					if value < seen[series] {
						t.Errorf("%s: got %v, had %v", series, value, seen[series])
					}
					continue
				}
				flows += value
				if value < seen[series] { // as Prometheus has it
					increase += value
				} else {
					increase += value - seen[series]
				}
			}
			if flows != since || increase != since {
				t.Errorf("flows: got %v that increased by %v, want the %v sent since", flows, increase, since)
			}
			if got, want := sums["podmeter_flow_transmit_bytes_total"]+sums["podmeter_flow_retired_transmit_bytes_total"], pod+since; got != want {
				t.Errorf("flows and what was retired: got %v, want the pod's %v", got, want)
			}
			if got := sums["podmeter_pod_transmit_bytes_total"]; got != pod+since {
				t.Errorf("pod: got %v, want the interface's %v", got, pod+since)
			}
			if strings.Contains(p.output.String(), "maps were too small") {
				t.Errorf("got the advice to enlarge maps, want none:\n%s", &p.output)
			}
			if _, err := os.Stat(filepath.Join(disk, "checkpoint.behind")); (err == nil) == freed {
				t.Errorf("checkpoint that is behind: got %v", err)
			}
			p.terminate(t)
		})
	}
}

// checkNotSaved wants verify to say that counters are right and cannot be saved.
func (h *host) checkNotSaved(t *testing.T) {
	t.Helper()
	proof := h.verify(t)
	if proof.code == verify.CodeUnequal || !strings.Contains(proof.report.CheckpointProblem, "no space left") {
		t.Errorf("verify: got code %d, not saved because of %q; want nothing unequal, and the full disk", proof.code, proof.report.CheckpointProblem)
	}
	if got := h.verifying(t).stdout.String(); !strings.Contains(got, "not saved") {
		t.Errorf("verify: got %s, want that it is not saved", got)
	}
}
