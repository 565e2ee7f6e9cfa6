// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/internal/ktest"
)

// firstBuild is the commit whose programs of sockets are measured beside today's.
const firstBuild = "56e19b7"

// benchRequests is how many connections a round has: few, so that some are not interrupted.
const benchRequests = 100

// BenchmarkSocketBuilds measures what the programs take of a TCP connection between two
// namespaces, of both ends together and by the kernel's own account, those of the first
// build, and programs that do nothing, in turns. Ratios are those of rounds that follow each
// other, of which the median counts, and times the fastest of all.
func BenchmarkSocketBuilds(b *testing.B) {
	c := connect(b, &sockets{TB: b, pod: ktest.NewNamespace(b)})
	builds := []*socketBuild{
		newSocketBuild(b, currentSockets(b)), newSocketBuild(b, firstSockets(b)), newSocketBuild(b, emptied(currentSockets(b))),
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	for _, bench := range []struct {
		name string
		run  func(net.Listener) error
	}{{"connection", emptyConnections}, {"request", requests}} {
		b.Run(bench.name, func(b *testing.B) {
			var ratios, above []float64
			least := make([]ran, len(builds))
			for b.Loop() {
				for range 12 * benchRounds {
					var each [3]float64
					for i, build := range builds {
						got := build.round(c, bench.run)
						if least[i].runs == 0 || got.took < least[i].took {
							least[i] = got
						}
						each[i] = got.each()
					}
					// Programs that do nothing do not ask for callbacks.
					each[2] *= float64(least[0].runs) / float64(least[2].runs)
					ratios = append(ratios, each[0]/each[1])
					above = append(above, (each[0]-each[2])/(each[1]-each[2]))
				}
			}
			b.ReportMetric(least[0].each(), "ns/now")
			b.ReportMetric(least[1].each(), "ns/first")
			b.ReportMetric(least[2].each()*float64(least[0].runs)/float64(least[2].runs), "ns/empty")
			b.ReportMetric(float64(least[0].runs)/benchRequests, "runs")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(above), "ratio-above-empty")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// ran is how often programs ran, and how long.
type ran struct {
	runs uint64
	took time.Duration
}

// each is the time of a connection of a round, in nanoseconds.
func (r ran) each() float64 { return float64(r.took.Nanoseconds()) / benchRequests }

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// socketBuild is the programs of sockets of a build, at work on a cgroup of their own.
type socketBuild struct {
	testing.TB
	*ebpf.Collection
	client, server *ktest.Cgroup
}

func currentSockets(b *testing.B) *ebpf.CollectionSpec {
	b.Helper()
	spec, err := LoadSocket()
	if err != nil {
		b.Fatal(err)
	}
	return spec
}

// firstSockets takes the first build's object from the repository's history.
func firstSockets(b *testing.B) *ebpf.CollectionSpec {
	b.Helper()
	object, err := exec.Command("git", "show", firstBuild+":bpf/socket_bpfel.o").Output()
	if err != nil {
		b.Skipf("the first build's object is not to be had: git show: %v", err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		b.Fatal(err)
	}
	return spec
}

// emptied has programs that go on at once.
func emptied(spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	for _, program := range spec.Programs {
		program.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
	}
	return spec
}

// newSocketBuild has no limits but the size: no agent reckons what is gone.
func newSocketBuild(b *testing.B, spec *ebpf.CollectionSpec) *socketBuild {
	b.Helper()
	for _, name := range []string{SocketMapSockets, SocketMapHealth0, SocketMapHealth1} {
		spec.Maps[name].MaxEntries = 1 << 16
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(collection.Close)
	above := ktest.NewCgroup(b)
	for name, program := range collection.Programs {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: above.Path, Attach: spec.Programs[name].AttachType, Program: program})
		if err != nil {
			b.Fatalf("attach %s: %v", name, err)
		}
		b.Cleanup(func() { l.Close() })
	}
	return &socketBuild{b, collection, above.Child(b, "a"), above.Child(b, "b")}
}

// round is what the programs take of it all; then their maps are emptied, as drains do.
func (s *socketBuild) round(c *connected, run func(net.Listener) error) ran {
	before := s.ran()
	if _, err := c.across(s.client, s.server, run); err != nil {
		s.Fatal(err)
	}
	after := s.ran()
	for _, name := range []string{SocketMapSockets, SocketMapHealth0} {
		if err := emptyMap(s.Maps[name]); err != nil {
			s.Fatalf("empty %s: %v", name, err)
		}
	}
	return ran{after.runs - before.runs, after.took - before.took}
}

func (s *socketBuild) ran() (sum ran) {
	for name, program := range s.Programs {
		stats, err := program.Stats()
		if err != nil {
			s.Fatalf("statistics of %s: %v", name, err)
		}
		sum.runs += stats.RunCount
		sum.took += stats.Runtime
	}
	return sum
}

func emptyConnections(l net.Listener) error {
	return eachConnection(l, func(_, _ net.Conn) error { return nil })
}

// requests sends a kilobyte over each, and has as much sent back.
func requests(l net.Listener) error {
	request := make([]byte, 1024)
	return eachConnection(l, func(client, server net.Conn) error {
		return errors.Join(deliver(client, server, request), deliver(server, client, request))
	})
}

func eachConnection(l net.Listener, do func(client, server net.Conn) error) error {
	for range benchRequests {
		client, server, err := dial(l)
		if err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		if err := errors.Join(do(client, server), client.Close(), server.Close()); err != nil {
			return err
		}
	}
	return nil
}
