// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"
	"unique"
)

// cheapDirectory answers without work, so that the benchmark is of the rest.
type cheapDirectory struct{ pods [256]Pod }

func (d *cheapDirectory) Owner(q Query) *Owner {
	if q.Address.As4()[0] == 10 {
		return remote
	}
	return external
}
func (d *cheapDirectory) LocalPod(a netip.Addr, _, _ time.Time) *Pod { return &d.pods[a.As4()[3]] }
func (d *cheapDirectory) Here() (string, string)                     { return "a", "z1" }

// cheapPlaces knows 50 places.
type cheapPlaces struct{ places [50]unique.Handle[Place] }

func (p *cheapPlaces) Handle(a netip.Addr) unique.Handle[Place] {
	return p.places[int(a.As4()[3])%len(p.places)]
}

// newBenchmark returns a publisher with limits that fold nothing, and an epoch
// of records over pods, half of them to external peers.
func newBenchmark(pods, records int, optional Optional) (*Publisher, *Table, *Epoch) {
	d, p := &cheapDirectory{}, &cheapPlaces{}
	for i := range d.pods {
		d.pods[i] = Pod{UID: fmt.Sprint("uid", i), Namespace: "default", Name: fmt.Sprint("web-", i)}
	}
	for i := range p.places {
		p.places[i] = unique.Make(Place{Country: fmt.Sprint("C", i)})
	}
	table := NewTable(TableOptions{FlowLimit: 1 << 30, ExternalLimit: 1 << 30, FlowIdle: time.Hour, SeriesGrace: time.Hour})
	publisher := NewPublisher(PublisherOptions{
		Table: table, Directory: d, Places: p, Optional: optional, Logger: slog.New(slog.DiscardHandler),
		Binder: AddressBinder{Directory: d, Now: func() time.Time { return start }},
	})
	e := &Epoch{Start: start, End: start.Add(5 * time.Second)}
	for i := 1; i <= pods; i++ {
		e.Interfaces = append(e.Interfaces, iface(i))
	}
	for i := range records {
		point, peer := Point(1+i%pods), [4]byte{10, 1, byte(i / pods >> 8), byte(i / pods)}
		if i/pods%2 == 1 {
			peer = [4]byte{203, 0, 113, byte(i / pods)}
		}
		r := Record{Counters: Counters{Bytes: 1500, Packets: 1}, First: e.Start, Last: e.Start, Key: Key{
			Point: point, Direction: Direction(i % 2), EtherType: EtherTypeIPv4, Protocol: ProtocolTCP,
			Source: podAddress(int(point)), Destination: netip.AddrFrom4(peer), SourcePort: uint16(i), DestinationPort: 443}}
		if r.Key.Direction == Receive {
			r.Key.Source, r.Key.Destination = r.Key.Destination, r.Key.Source
		}
		e.Records = append(e.Records, r)
	}
	e.Totals = totalsOf(e.Records)
	return publisher, table, e
}

// totalsOf returns totals of which all is in a record.
func totalsOf(records []Record) []Total {
	type direction struct {
		Point
		Direction
	}
	sums := make(map[direction]Counters)
	for _, r := range records {
		sum := sums[direction{r.Key.Point, r.Key.Direction}]
		sum.Add(r.Counters)
		sums[direction{r.Key.Point, r.Key.Direction}] = sum
	}
	var totals []Total
	for at, sum := range sums {
		totals = append(totals, Total{Point: at.Point, Direction: at.Direction, Counters: sum})
	}
	return totals
}

// BenchmarkPublish attributes epochs of 10,000 records over 100 pods and adds
// them to the table: once with the usual labels, so that a row takes many records,
// once with a row for each record.
func BenchmarkPublish(b *testing.B) {
	const records = 10_000
	for _, c := range []struct {
		name     string
		optional Optional
	}{{"default", Optional{}}, {"peer_ip", Optional{PeerIP: true}}} {
		b.Run(c.name, func(b *testing.B) {
			publisher, _, epoch := newBenchmark(100, records, c.optional)
			b.ReportAllocs()
			for b.Loop() {
				if err := publisher.Publish(epoch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
		})
	}
}

// BenchmarkPublishHealth attributes epochs of the health of 10,000 connections of 100 pods
// and adds it to 100 rows a pod.
func BenchmarkPublishHealth(b *testing.B) {
	const connections = 10_000
	publisher, _, epoch := newBenchmark(100, 0, Optional{PeerIP: true})
	publisher.options.Containers = cgroups{}
	for i := range connections {
		pod := 1 + i%100
		r := connection(uint64(10*pod+1), pod, uint16(i), fmt.Sprintf("10.1.0.%d:443", i/100), Health{Opened: 1, RTTSum: 100})
		r.RTT[8] = 2
		epoch.Health = append(epoch.Health, r)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := publisher.Publish(epoch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}

// BenchmarkPublishServices attributes epochs of 1,000 connections to a Service, both
// directions of each, whose backends a map knows: without what the kernel takes.
func BenchmarkPublishServices(b *testing.B) {
	const connections = 1000
	p := newTranslated(Optional{})
	p.attribution.translation.now = time.Now
	var records []Record
	for port := range uint16(connections) {
		p.to(1+port, "10.1.0.1")
		there := p.flow(1+port, 0, time.Second)
		back := there
		back.Key.Direction, back.Key.Source, back.Key.Destination = Receive, there.Key.Destination, there.Key.Source
		back.Key.SourcePort, back.Key.DestinationPort = there.Key.DestinationPort, there.Key.SourcePort
		records = append(records, there, back)
	}
	e := epochOf(0, []Interface{iface(1)}, totalsOf(records)...)
	e.Records = records
	b.ReportAllocs()
	for b.Loop() {
		e.End = e.End.Add(time.Second) // or the lookups of a second would run out
		if err := p.Publish(e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}

// BenchmarkSnapshot copies tables of about as many rows as the name says.
func BenchmarkSnapshot(b *testing.B) {
	for _, rows := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			publisher, table, epoch := newBenchmark(100, rows, Optional{PeerIP: true, PeerPort: true})
			if err := publisher.Publish(epoch); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				table.Snapshot()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
		})
	}
}

// BenchmarkState copies what a table of 10,000 rows and its publisher know, as each
// drain does for the checkpoint.
func BenchmarkState(b *testing.B) {
	const rows = 10_000
	publisher, _, epoch := newBenchmark(100, rows, Optional{PeerIP: true, PeerPort: true})
	if err := publisher.Publish(epoch); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		publisher.state()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
}
