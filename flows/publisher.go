// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// seenLimit bounds the addresses remembered of an unbound interface.
	seenLimit = 16
	// unboundGrace is how long an interface that vanished unbound waits for its
	// pod's identity to arrive.
	unboundGrace = 10 * time.Minute
	// pastAge is for how long it is remembered that a pod had an interface: as long as the
	// directory remembers pods.
	pastAge = time.Hour
	// waitingLimit is from how many rows on that wait for one interface's pod no
	// new ones are made but the unattributed.
	waitingLimit = 4096
)

// PublisherOptions are what a [Publisher] needs.
type PublisherOptions struct {
	Table     *Table
	Directory Directory
	Binder    Binder
	Places    Places // nil without GeoIP databases
	// Addresses tell what a pod sends from addresses of others; if nil, that is not counted.
	Addresses OwnAddresses
	Optional  Optional
	// NAT64 are the prefixes of translators beside the well-known one.
	NAT64 NAT64
	// Translator tells the backends of Services; if nil, Services are the peers.
	Translator Translator
	// Sockets and Containers tell the container of a pod with several, and the process; if
	// nil, both stay empty.
	Sockets    SocketReader
	Containers Containers
	// Persist, if not nil, is called with each new state before an exporter can
	// see anything of it: what was seen must not be taken back by a restart. It
	// must not keep the state.
	Persist func(*State)
	Logger  *slog.Logger
}

// Publisher attributes epochs and adds them to a table.
type Publisher struct {
	options     PublisherOptions
	attribution attribution
	points      map[Point]*point
	orphans     []*point // vanished unbound; another may have their id by now
	// past is when pods had their last interface that are bound to none now, by UID.
	past  map[string]time.Time
	rows  int // of the last batch
	early earlyHealth

	mu    sync.Mutex
	stats Stats
	// pods are those of the bound points; never changed, replaced by each epoch.
	pods map[Point]*Pod
}

// Stats are a publisher's own counters.
type Stats struct {
	// ConservationErrorBytes must stay 0.
	ConservationErrorBytes uint64
	ResidueBytes           uint64
	UnplacedBytes          uint64
	// LostUnboundBytes are those of interfaces that vanished and whose pod was
	// never known.
	LostUnboundBytes uint64
	// LostNoInterfaceBytes are those of totals whose point is none of the epoch's
	// interfaces, nor of the one before. It must stay 0.
	LostNoInterfaceBytes uint64
	Entries              uint64
	// UnboundBytes wait for the identity of their interface's pod.
	UnboundBytes uint64
	// Health counts what came of the health of connections.
	Health HealthEntries
	// LastEpoch is the end of the last epoch.
	LastEpoch time.Time
}

// point is an observation point and, until its pod is known, what waits for it.
type point struct {
	Interface
	pod     *Pod
	waiting *Batch // nil once bound
	// stored are the labels of what waits, by themselves: rows of different sources are one.
	stored map[rowLabels]*rowLabels
	seen   map[netip.Addr]shown
	own    []netip.Addr // known to be its pod's in this epoch
	// exported is on the pod's series; partial is as in [Exported].
	exported [Directions]Counters
	partial  bool
}

// NewPublisher returns a publisher that has seen nothing.
func NewPublisher(options PublisherOptions) *Publisher {
	return &Publisher{
		options: options,
		attribution: attribution{
			directory: options.Directory, places: options.Places, optional: options.Optional, nat64: options.NAT64,
			translation: newTranslation(options.Translator, options.Logger),
			sockets:     newSockets(options.Sockets, options.Containers, options.Logger),
		},
		points: make(map[Point]*point), past: make(map[string]time.Time),
	}
}

// Publish attributes an epoch and adds it to the table. It implements the
// datapath's Sink.
func (p *Publisher) Publish(epoch *Epoch) error {
	batch := p.attribute(epoch)
	p.account(epoch)
	p.options.Table.add(batch, func() {
		if p.options.Persist != nil {
			p.options.Persist(p.state())
		}
	})
	return nil
}

func (p *Publisher) attribute(epoch *Epoch) *Batch {
	batch := newBatch(epoch.Start, epoch.End, p.labels)
	batch.rows = make(map[rowKey]int, p.rows)
	p.attribution.translation.begin(epoch)
	p.attribution.sockets.begin()
	for _, i := range epoch.Interfaces {
		p.meet(i, epoch, batch)
	}
	p.bindEarly(batch)
	for i := range epoch.Records {
		p.record(batch, &epoch.Records[i])
	}
	p.health(batch, epoch.Health)
	for _, total := range epoch.Totals {
		p.total(batch, total, epoch.Unsaved)
	}
	p.leave(epoch, batch)
	p.bind(batch)
	p.giveUp(epoch.End)
	batch.exported, p.rows = p.exportedList(), len(batch.rows)
	for _, pt := range p.points {
		if pt.pod != nil {
			batch.living[pt.pod.UID] = pt.pod
		}
	}
	return batch
}

// meet takes note of an interface and of what is new about it. An ifindex comes
// back: the time of the attachment tells whether it is still the same interface.
func (p *Publisher) meet(i Interface, epoch *Epoch, batch *Batch) {
	pt := p.points[i.Point]
	if pt != nil && !pt.Attached.Equal(i.Attached) {
		p.forget(pt, i.Attached, batch)
		pt = nil
	}
	if pt == nil {
		pt = &point{waiting: newBatch(epoch.Start, epoch.End, p.labels), stored: make(map[rowLabels]*rowLabels), seen: make(map[netip.Addr]shown)}
		p.points[i.Point] = pt
	}
	pt.Interface, pt.own = i, pt.own[:0]
}

// unknown stands in for the pod of what waits.
var unknown = &Pod{}

func (p *Publisher) record(batch *Batch, record *Record) {
	pt := p.points[record.Key.Point]
	if pt == nil {
		return // its totals name it
	}
	key := rowKey{pod: pt.pod, direction: record.Key.Direction, source: p.attribution.source(record)}
	sum := amount{record.Counters, batch.Start}
	if pt.pod != nil {
		key.by = p.userOf(pt.pod, record)
		batch.addRow(key, sum)
		p.countForeign(batch, pt, record)
		return
	}
	pt.wait(record, p.attribution.labelsOf(&key.source), sum)
}

// labels returns those of a row; of one that waits those of its pod are left empty.
func (p *Publisher) labels(key *rowKey) rowLabels {
	labels := p.attribution.labelsOf(&key.source)
	if key.pod == unknown {
		return labels
	}
	return labels.local(key.pod, key.by, &p.options.Optional)
}

// userOf returns who used the pod's end of a flow, if labels need it.
func (p *Publisher) userOf(pod *Pod, record *Record) user {
	if pod.Container != "" && !p.options.Optional.Process {
		return user{}
	}
	return p.attribution.sockets.of(pod, record)
}

// wait keeps a flow until the point's pod is known, and the address it shows.
func (pt *point) wait(record *Record, labels rowLabels, sum amount) {
	key := &record.Key
	if local, _ := key.Local(); key.Direction == Transmit && local.IsValid() {
		s, known := pt.seen[local]
		if known || len(pt.seen) < seenLimit {
			s.add(record, sum.start)
			pt.seen[local] = s
		}
	}
	if len(pt.waiting.rows) >= waitingLimit {
		if _, waits := pt.waiting.rows[pt.waitingRow(key.Direction, &labels)]; !waits {
			labels = unattributedLabels(labels.flow.Protocol)
		}
	}
	pt.addWaiting(key.Direction, &labels, sum)
}

// addWaiting adds to what waits.
func (pt *point) addWaiting(direction Direction, labels *rowLabels, sum amount) {
	key := pt.waitingRow(direction, labels)
	pt.stored[*labels] = key.source.stored
	pt.waiting.addRow(key, sum)
}

// waitingRow is the row of what waits with these labels.
func (pt *point) waitingRow(direction Direction, labels *rowLabels) rowKey {
	stored := pt.stored[*labels]
	if stored == nil {
		stored = labels
	}
	return rowKey{pod: unknown, direction: direction, source: source{stored: stored}}
}

// total adds what a point counted, and what of it is in no flow. Flows that were published by
// an agent that could not save them are retired: nobody is to see them twice.
func (p *Publisher) total(batch *Batch, total Total, unsaved bool) {
	pt := p.points[total.Point]
	if pt == nil {
		p.lose(&p.stats.LostNoInterfaceBytes, total.Bytes+total.Seeded.Bytes)
		return
	}
	rest := total.Unplaced
	if unsaved && pt.pod != nil {
		batch.addRetired(pt.pod, total.Direction, amount{total.Residue, batch.Start})
	} else {
		rest.Add(total.Residue)
	}
	rest.Add(total.Seeded)
	all := total.Counters
	all.Add(total.Seeded)
	begin := batch.Start
	if pt.pod == nil {
		pt.waiting.addTotal(unknown, total.Direction, amount{all, begin})
		labels := unattributedLabels(ProtoOther)
		pt.addWaiting(total.Direction, &labels, amount{rest, begin})
		return
	}
	pt.exported[total.Direction].Add(all)
	batch.addTotal(pt.pod, total.Direction, amount{all, begin})
	batch.addRow(rowKey{pod: pt.pod, direction: total.Direction, source: unattributed(ProtoOther)}, amount{rest, begin})
}

// forget takes a point out. If it is unbound it waits for a while as an orphan:
// its pod's identity may still come. Its interface was gone by then at the latest.
func (p *Publisher) forget(pt *point, then time.Time, batch *Batch) {
	delete(p.points, pt.Point)
	if pt.pod != nil {
		batch.retireExported(pt)
		p.past[pt.pod.UID] = then
		return
	}
	if pt.Gone.IsZero() {
		pt.Gone = then
	}
	p.orphans = append(p.orphans, pt)
}

// leave forgets the points that the datapath has let go of.
func (p *Publisher) leave(epoch *Epoch, batch *Batch) {
	present := make(map[Point]bool, len(epoch.Interfaces))
	for _, i := range epoch.Interfaces {
		present[i.Point] = true
	}
	for id, pt := range p.points {
		if !present[id] {
			p.forget(pt, epoch.End, batch)
		}
	}
}

// giveUp forgets pods of the past, and drops the orphans that nothing waits for, or that waited long enough.
func (p *Publisher) giveUp(now time.Time) {
	maps.DeleteFunc(p.past, func(_ string, at time.Time) bool { return now.Sub(at) > pastAge })
	p.orphans = slices.DeleteFunc(p.orphans, func(pt *point) bool {
		if pt.waiting.bytes() == 0 {
			return true
		}
		if now.Sub(pt.Gone) < unboundGrace {
			return false
		}
		p.options.Logger.Warn("interface vanished and its pod was never known",
			"interface", pt.Name, "bytes", pt.waiting.bytes())
		p.lose(&p.stats.LostUnboundBytes, pt.waiting.bytes())
		return true
	})
}

// lose adds to one of the stats.
func (p *Publisher) lose(sum *uint64, bytes uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*sum += bytes
}

func (p *Publisher) account(epoch *Epoch) {
	var unboundBytes uint64
	byPoint := make(map[Point]*Pod, len(p.points))
	for id, pt := range p.points {
		if pt.pod != nil {
			byPoint[id] = pt.pod
			continue
		}
		unboundBytes += pt.waiting.bytes()
	}
	for _, pt := range p.orphans {
		unboundBytes += pt.waiting.bytes()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods = byPoint
	p.stats.UnboundBytes = unboundBytes
	p.stats.count(epoch)
}

// count adds what an epoch says of itself.
func (s *Stats) count(epoch *Epoch) {
	s.ConservationErrorBytes += epoch.ConservationError
	s.Entries += uint64(len(epoch.Records))
	s.LastEpoch = epoch.End
	for _, total := range epoch.Totals {
		if !epoch.Unsaved {
			s.ResidueBytes += total.Residue.Bytes
		}
		s.UnplacedBytes += total.Unplaced.Bytes
	}
}

// Stats returns the publisher's own counters.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Pods returns the pod behind each point that is bound. The map must not be
// changed.
func (p *Publisher) Pods() map[Point]*Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pods
}

// bytes is the sum of all totals.
func (b *Batch) bytes() uint64 {
	var sum uint64
	for _, c := range b.totals {
		sum += c.Bytes
	}
	return sum
}
