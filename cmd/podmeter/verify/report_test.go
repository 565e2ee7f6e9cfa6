// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
)

var update = flag.Bool("update", false, "write the golden files")

// eventful is an observation with something of everything but faults.
func eventful(t *testing.T) *Observation {
	t.Helper()
	o := observe(t)
	unbound := Interface{Name: "veth9", Index: 9, State: "attached", Seeded: true}
	unbound.Waiting = Pair{counters(500, 5), counters(60, 1)}
	for _, a := range []*Agent{o.First, o.Second} {
		i := &a.Interfaces[1]
		i.State, i.Difference[flows.Receive] = "differs", Delta{-1500, -1}
		i = &a.Interfaces[2]
		i.State, i.Hidden[flows.Transmit] = "shadowed", counters(90, 2)
		a.Interfaces = append(a.Interfaces, unbound)
		a.HostPods = []HostPod{{Pod: Pod{"kube-system", "proxy"}, Cgroup: "pod1"}, {Cgroup: "pod2", Waiting: Pair{counters(9, 1), {}}}}
		a.Uplinks = []int{6}
		a.CheckpointProblem = "write checkpoint: no space left on device"
		a.Orphans = []Orphan{{Name: "veth8", Gone: time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC), Waiting: Pair{counters(70, 1), {}}}}
	}
	for _, kernel := range []Kernel{o.Before, o.After} {
		report := kernel[2]
		report.Own[flows.Receive] = counters(9500, 109)
		kernel[2] = report
		kernel[9] = Device{Name: "veth9", LeadsAway: true, Own: unbound.Waiting}
		kernel[4] = Device{Name: "cni0"}
		kernel[6] = Device{Name: "eth0", LeadsAway: true}
		kernel[5] = Device{Name: "veth5", LeadsAway: true}
	}
	return o
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReport(t *testing.T) {
	for name, change := range map[string]func(*Observation){
		"explained": func(*Observation) {},
		"undecided": func(o *Observation) {
			tell(o, 1, func(i *Interface) { i.State = "settling" })
			sent(o, 3, flows.Receive)
		},
		"unequal": func(o *Observation) {
			tell(o, 1, func(i *Interface) { i.Exported[flows.Transmit].Packets-- })
			o.Metrics[ConservationError][0].Value = 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRound()
			for again := true; again; {
				o := eventful(t)
				change(o)
				again = r.Try(o)
			}
			report := r.Report()
			golden(t, name+".txt", text(t, report))
			encoded, err := json.MarshalIndent(report, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", string(encoded)+"\n")
		})
	}
}

// The last line says what was compared, and nothing more.
func TestConclusion(t *testing.T) {
	r := NewRound()
	r.Try(observe(t))
	want := "All equal: 25,850 bytes in 258 packets on 3 interfaces, in both directions."
	if got := r.Report().Conclusion(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	o := observe(t)
	o.First, o.Second = &Agent{}, &Agent{}
	o.Metrics = parse(t, map[string]float64{ConservationError: 0, `podmeter_lost_bytes_total{reason="no_interface"}`: 0})
	r = NewRound()
	r.Try(o)
	if got := text(t, r.Report()); !strings.HasSuffix(got, "\nNothing is unequal, and nothing was there to be compared.\n") {
		t.Errorf("without an interface: got\n%s", got)
	}
}
