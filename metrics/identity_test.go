// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// directory is a fixed one: 10/8 are pods, 172.16/12 private, the rest external.
type directory struct{}

func (directory) Owner(q flows.Query) *flows.Owner {
	switch a := q.Address.As4(); a[0] {
	case 10:
		return &flows.Owner{Kind: flows.PeerPod, Namespace: "far", Name: fmt.Sprint("db", a[3]), Node: "b"}
	case 172:
		return &flows.Owner{Kind: flows.PeerPrivate}
	}
	return &flows.Owner{Kind: flows.PeerExternal}
}
func (directory) LocalPod(netip.Addr, time.Time, time.Time) *flows.Pod { return nil }
func (directory) Here() (string, string)                               { return "a", "z" }

type places struct{}

func (places) Handle(a netip.Addr) unique.Handle[flows.Place] {
	n := a.As4()[3]
	return unique.Make(flows.Place{Country: fmt.Sprint("C", n%5), City: fmt.Sprint("city\xff", n%9), ASN: fmt.Sprint(n % 7)})
}

// table is a source that publishes before it is asked, as the agent does.
type table struct {
	*flows.Table
	publisher *flows.Publisher
	optional  flows.Optional
	limits    flows.TableOptions
}

func (t *table) Snapshot(context.Context) (*flows.Snapshot, error) { return t.Table.Snapshot(), nil }
func (t *table) Agent() Agent                                      { return Agent{} }

func newTable(limits flows.TableOptions, optional flows.Optional) *table {
	t := &table{Table: flows.NewTable(limits), optional: optional, limits: limits}
	t.publisher = flows.NewPublisher(flows.PublisherOptions{
		Table: t.Table, Directory: directory{}, Binder: flows.NameBinder{}, Places: places{},
		Optional: optional, Logger: slog.New(slog.DiscardHandler),
	})
	return t
}

func (t *table) publish(tb testing.TB, e *flows.Epoch) {
	tb.Helper()
	if err := t.publisher.Publish(e); err != nil {
		tb.Fatal(err)
	}
}

// names has one that no label can hold.
var names = []string{"veth1", "veth2", "veth3", "veth\xff"}

func newEpoch(number int) *flows.Epoch {
	e := &flows.Epoch{Start: start.Add(time.Duration(number) * time.Minute)}
	e.End = e.Start.Add(time.Minute)
	for i, name := range names {
		e.Interfaces = append(e.Interfaces, flows.Interface{Point: flows.Point(i), Name: name, Attached: start, PeerNamespace: -1})
	}
	return e
}

// randomEpoch has totals that are its flows and what is in none.
func randomEpoch(random *rand.Rand, number int) *flows.Epoch {
	e := newEpoch(number)
	for _, i := range e.Interfaces {
		for d := range flows.Direction(flows.Directions) {
			if random.IntN(4) == 0 {
				continue
			}
			total := flows.Total{Point: i.Point, Direction: d,
				Unplaced: flows.Counters{Bytes: random.Uint64N(2) * 90, Packets: 1},
				Residue:  flows.Counters{Bytes: random.Uint64N(2) * 80, Packets: 1},
				Seeded:   flows.Counters{Bytes: random.Uint64N(2) * 70, Packets: 1}}
			total.Counters.Add(total.Unplaced)
			total.Counters.Add(total.Residue)
			for range random.IntN(40) {
				r := randomRecord(random, i.Point, d)
				total.Counters.Add(r.Counters)
				e.Records = append(e.Records, r)
			}
			e.Totals = append(e.Totals, total)
		}
	}
	return e
}

func randomRecord(random *rand.Rand, point flows.Point, d flows.Direction) flows.Record {
	nets := [][3]byte{{10, 0, 0}, {172, 16, 0}, {198, 51, 100}, {203, 0, 113}}
	n := nets[random.IntN(len(nets))]
	k := flows.Key{Point: point, Direction: d, EtherType: flows.EtherTypeIPv4, Protocol: []uint8{1, 6, 17, 99}[random.IntN(4)],
		Source: netip.AddrFrom4([4]byte{10, 9, 9, 9}), SourcePort: uint16(random.IntN(5)),
		Destination: netip.AddrFrom4([4]byte{n[0], n[1], n[2], byte(random.IntN(30))}), DestinationPort: uint16(random.IntN(5))}
	if d == flows.Receive {
		k.Source, k.SourcePort, k.Destination, k.DestinationPort = k.Destination, k.DestinationPort, k.Source, k.SourcePort
	}
	return flows.Record{Key: k, Counters: flows.Counters{Bytes: 1 + random.Uint64N(1e6), Packets: 1 + random.Uint64N(9)}}
}

func randomOptional(random *rand.Rand) flows.Optional {
	b := func() bool { return random.IntN(2) == 0 }
	return flows.Optional{PeerPod: b(), PeerIP: b(), PeerPort: b(), Process: b(),
		City: b(), Latitude: b(), Longitude: b(), IP: b(), Container: b()}
}

// scrape is an exposition as a server reads it.
type scrape struct {
	// series are values by name and labels.
	series map[string]float64
	// sums are by family, direction and unit as in "flow_transmit_bytes", and by pod.
	// Those of flows with an external peer alone are under "outside_…".
	sums map[[2]string]float64
	// rows counts the admitted flow series of pods.
	rows map[string]int
}

func parse(t *testing.T, exposition []byte) scrape {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	s := scrape{map[string]float64{}, map[[2]string]float64{}, map[string]int{}}
	for name, family := range families {
		if !isTraffic(name) {
			continue
		}
		for _, m := range family.Metric {
			s.add(strings.TrimSuffix(strings.TrimPrefix(name, "podmeter_"), "_total"), m)
		}
	}
	return s
}

func (s *scrape) add(name string, m *dto.Metric) {
	labels := make(map[string]string)
	for _, l := range m.Label {
		labels[l.GetName()] = l.GetValue()
	}
	value := m.Counter.GetValue()
	s.series[name+fmt.Sprint(labels)] = value
	merged := strings.Replace(name, "_retired", "", 1)
	s.sums[[2]string{merged, labels["pod"]}] += value
	if flow, ok := strings.CutPrefix(merged, "flow_"); ok && labels["peer_kind"] == "external" {
		s.sums[[2]string{"outside_" + flow, labels["pod"]}] += value
	}
	if name == "flow_transmit_bytes" && labels["peer"] != "other" {
		s.rows[labels["pod"]]++
	}
}

func (s *scrape) checkIdentities(t *testing.T) {
	t.Helper()
	for _, name := range names {
		pod := valid(name)
		for _, what := range []string{"transmit_bytes", "receive_bytes", "transmit_packets", "receive_packets"} {
			got, want := s.sums[[2]string{"flow_" + what, pod}], s.sums[[2]string{"pod_" + what, pod}]
			if got != want {
				t.Errorf("%s: sum of flow and retired %s: got %v, want the pod's %v", pod, what, got, want)
			}
			if strings.HasSuffix(what, "packets") {
				continue
			}
			got, want = s.sums[[2]string{"external_" + what, pod}], s.sums[[2]string{"outside_" + what, pod}]
			if got != want {
				t.Errorf("%s: sum of external and retired %s: got %v, want the flows' %v", pod, what, got, want)
			}
		}
	}
}

// checkRise fails if a series that was there went down.
func (s *scrape) checkRise(t *testing.T, before scrape) {
	t.Helper()
	for series, old := range before.series {
		if value, ok := s.series[series]; ok && value < old {
			t.Errorf("%s: got %v, want at least %v", series, value, old)
		} else if !ok && strings.HasPrefix(series, "pod_") {
			t.Errorf("%s: got no series, want it to stay", series)
		}
	}
}

// The identities that a user can check hold in what is served, whatever the
// traffic, the labels and the limits.
func TestIdentitiesHoldInTheExposition(t *testing.T) {
	for seed := range effort.Choose(25, uint64(4)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			source := newTable(flows.TableOptions{
				FlowLimit: random.IntN(200), ExternalLimit: random.IntN(100),
				FlowIdle: time.Duration(1+random.IntN(3)) * time.Minute, SeriesGrace: time.Hour,
			}, randomOptional(random))
			e := newExporter(t, options(source, source.optional))
			var before scrape
			var total float64
			for number := range 10 {
				epoch := randomEpoch(random, number)
				for _, t := range epoch.Totals {
					total += float64(t.Bytes + t.Seeded.Bytes)
				}
				source.publish(t, epoch)
				now := parse(t, encode(t, gather(t, e), expfmt.NewFormat(expfmt.TypeTextPlain)))
				now.checkIdentities(t)
				now.checkRise(t, before)
				before = now
			}
			var got float64
			for key, value := range before.sums {
				if key[0] == "pod_transmit_bytes" || key[0] == "pod_receive_bytes" {
					got += value
				}
			}
			if got != total {
				t.Errorf("all pods: got %v bytes, want %v", got, total)
			}
		})
	}
}

// One pod that scans takes its quarter and leaves the others their series.
func TestScanningPodTakesNoOthersSeries(t *testing.T) {
	source := newTable(flows.TableOptions{FlowLimit: 100, ExternalLimit: 100, FlowIdle: time.Hour, SeriesGrace: time.Hour},
		flows.Optional{PeerPort: true})
	e := newExporter(t, options(source, source.optional))
	for number, ports := range []int{500, 20, 20, 20} {
		epoch := newEpoch(number)
		for port := range ports {
			r := randomRecord(rand.New(rand.NewPCG(1, 1)), flows.Point(number), flows.Transmit)
			r.Key.DestinationPort = uint16(port + 1)
			epoch.Records = append(epoch.Records, r)
			epoch.Totals = append(epoch.Totals, flows.Total{Point: r.Key.Point, Counters: r.Counters})
		}
		source.publish(t, epoch)
	}
	s := parse(t, encode(t, gather(t, e), expfmt.NewFormat(expfmt.TypeTextPlain)))
	s.checkIdentities(t)
	for i, want := range []int{25, 20, 20, 20} {
		if got := s.rows[valid(names[i])]; got != want {
			t.Errorf("%q: got %d flow series, want %d", names[i], got, want)
		}
	}
}
