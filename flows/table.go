// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"hash/maphash"
	"sync"
	"time"
)

// TableOptions are the limits of a [Table].
type TableOptions struct {
	// FlowLimit and ExternalLimit are the most label sets that a family has over
	// all pods; a quarter of it is the most that one pod has, and what its floor is,
	// see [fairLimit]. Folded and unattributed rows do not count. A set is admitted or
	// folded at its first byte, and stays so until it has been without a byte for
	// FlowIdle: a place that becomes free goes to a set that was not folded lately.
	FlowLimit, ExternalLimit int
	// FlowIdle is after how long without a byte a row is retired. That a set was
	// folded is forgotten after one to two times as long. A pod of which
	// 16,384 sets of a family are folded in that time admits no new ones meanwhile.
	FlowIdle time.Duration
	// SeriesGrace is how long the series of a name outlive its last pod. What a
	// batch adds is in the snapshot after it even with 0.
	SeriesGrace time.Duration
	// LinkLocalPeers is as in [Optional]: without it rows of peers on the pod's own link, few as
	// they are, do not count either.
	LinkLocalPeers bool
}

// Table is the accumulated counters of all pods, keyed by pod UID. Pods of one
// name share an account: their series are equal, so their bytes are added where
// they arrive, and a pod that is made again under its name goes on where the
// one before it ended.
type Table struct {
	options TableOptions
	seed    maphash.Seed

	mu    sync.Mutex
	pods  map[string]*account // by UID
	names map[name]*account
	// living counts the names that have a living pod.
	living int
	// flows and externals are the places of the two families, folded what bytes found none.
	flows                fairLimit[FlowLabels]
	externals            fairLimit[ExternalLabels]
	foldedFlow, foldedEx uint64
	end                  time.Time // of the last epoch
	// exported is that of the last batch; never changed, replaced by each.
	exported []Exported
}

// name is what the series of a pod are told apart by.
type name struct{ namespace, pod string }

// account is what is known of one name.
type account struct {
	name
	living int // UIDs
	gone   time.Time
	total  counterPair

	flows     family[FlowLabels]
	externals family[ExternalLabels]
	// retired are the flow rows that were idle, by peer kind, so that external
	// rows stay comparable with the external family; retiredEx the external ones.
	retired   map[PeerKind]*counterPair
	retiredEx counterPair
	// earlier is the part of total that observation points had which are forgotten.
	earlier [Directions]Counters
	// foreign is what was transmitted from addresses that are not the pod's.
	foreign counterPair
}

// NewTable returns an empty table.
func NewTable(options TableOptions) *Table {
	return &Table{
		options: options,
		seed:    maphash.MakeSeed(),
		pods:    make(map[string]*account),
		names:   make(map[name]*account),

		flows:     fairLimit[FlowLabels]{limit: options.FlowLimit, of: (*account).flowFamily, give: (*account).retireFlow},
		externals: fairLimit[ExternalLabels]{limit: options.ExternalLimit, of: (*account).externalFamily, give: (*account).retireExternal},
	}
}

// Batch is what one epoch adds to a table. Pod and flow rows become visible
// together.
type Batch struct {
	// Start and End bound the epoch.
	Start, End time.Time

	totals map[totalKey]amount
	// rows are the places in sums of what is added to a row, of which several may have the
	// same labels.
	rows map[rowKey]int
	sums []amount
	// labels makes the labels of a row.
	labels func(*rowKey) rowLabels
	health healthBatch
	// foreign is what pods sent from addresses that are not theirs, a part of totals.
	foreign map[*Pod]amount
	// retired is what pods' flows had that are not to be shown, a part of totals.
	retired map[totalKey]amount
	// living are the pods that are metered at the end of the epoch, whether it
	// saw a packet of them or not.
	living map[string]*Pod
	// earlier is what was exported of points that are forgotten with this epoch, exported
	// what is of all others.
	earlier  map[*Pod][Directions]Counters
	exported []Exported
}

// amount is something to be added to a counter.
type amount struct {
	Counters
	start time.Time // of the epoch of its first byte
}

func (a *amount) add(o amount) {
	if a.IsZero() || o.start.Before(a.start) {
		a.start = o.start
	}
	a.Counters.Add(o.Counters)
}

type totalKey struct {
	pod       *Pod
	direction Direction
}

type rowKey struct {
	pod       *Pod
	direction Direction
	source    source
	by        user // of the pod's end
}

func newBatch(start, end time.Time, labels func(*rowKey) rowLabels) *Batch {
	return &Batch{
		labels: labels,
		Start:  start, End: end,
		totals: make(map[totalKey]amount),
		rows:   make(map[rowKey]int),
		health: healthBatch{rows: make(map[rowKey]int)}, foreign: make(map[*Pod]amount),
		retired: make(map[totalKey]amount),
		living:  make(map[string]*Pod),

		earlier: make(map[*Pod][Directions]Counters),
	}
}

func (b *Batch) addTotal(pod *Pod, direction Direction, a amount) {
	if a.IsZero() {
		return
	}
	key := totalKey{pod, direction}
	sum := b.totals[key]
	sum.add(a)
	b.totals[key] = sum
}

func (b *Batch) addRetired(pod *Pod, direction Direction, a amount) {
	if a.IsZero() {
		return
	}
	key := totalKey{pod, direction}
	sum := b.retired[key]
	sum.add(a)
	b.retired[key] = sum
}

func (b *Batch) addRow(key rowKey, a amount) {
	if a.IsZero() {
		return
	}
	at, known := b.rows[key]
	if !known {
		at = len(b.sums)
		b.rows[key], b.sums = at, append(b.sums, amount{})
	}
	b.sums[at].add(a)
}

// Add publishes a batch: all of it is in the next snapshot, or none. It also
// retires rows that were idle and forgets names whose grace is over.
func (t *Table) Add(b *Batch) { t.add(b, func() {}) }

// add calls before when the batch has been added and nobody can see it yet.
func (t *Table) add(b *Batch, before func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = b.End
	for _, pod := range b.living {
		t.account(pod)
	}
	t.living = 0
	for _, a := range t.names {
		if a.living > 0 {
			t.living++
		}
	}
	for key, sum := range b.totals {
		t.account(key.pod).total.add(key.direction, sum)
	}
	for key, at := range b.rows {
		t.addRow(t.account(key.pod), key.direction, b.labels(&key), b.sums[at], b.End)
	}
	for key, sum := range b.retired {
		t.account(key.pod).retiredOf(PeerUnattributed).add(key.direction, sum)
	}
	for pod, sum := range b.foreign {
		t.account(pod).foreign.add(Transmit, sum)
	}
	t.addHealth(b)
	t.addEarlier(b)
	t.bury(b)
	t.expire(b.End)
	before()
}

// addEarlier takes what a batch says of the observation points.
func (t *Table) addEarlier(b *Batch) {
	t.exported = b.exported
	for pod, sum := range b.earlier {
		a := t.account(pod)
		for d := range sum {
			a.earlier[d].Add(sum[d])
		}
	}
}

// account returns the account of a pod, which is living from then on.
func (t *Table) account(pod *Pod) *account {
	if a := t.pods[pod.UID]; a != nil {
		return a
	}
	n := name{pod.Namespace, pod.Name}
	a := t.names[n]
	if a == nil {
		a = &account{name: n, retired: make(map[PeerKind]*counterPair)}
		t.names[n] = a
	}
	a.living++
	a.gone = time.Time{}
	t.pods[pod.UID] = a
	return a
}

func (t *Table) addRow(a *account, direction Direction, labels rowLabels, sum amount, now time.Time) {
	r := t.flowRow(a, labels.flow)
	if r.folded {
		t.foldedFlow += sum.Bytes
	}
	r.add(direction, sum)
	r.last = now
	// Folded or not, the flow has its kind: the external family is of the flow rows of
	// peer_kind="external".
	if labels.flow.PeerKind != PeerExternal {
		return
	}
	e := t.externalRow(a, labels.external)
	if e.folded {
		t.foldedEx += sum.Bytes
	}
	e.add(direction, sum)
	e.last = now
}

func (t *Table) flowRow(a *account, labels FlowLabels) *row[FlowLabels] {
	if labels.PeerKind.bounded(t.options.LinkLocalPeers) { // one a pod, kind and protocol: never folded
		return t.unlimited(a, labels)
	}
	r := a.flows.find(labels, t.seed, func() bool { return t.flows.admit(t, a) })
	if r == nil {
		r = a.flows.fold(FlowLabels{PeerKind: labels.PeerKind, Locality: labels.Locality, Peer: folded})
	}
	return r
}

// unlimited returns a row that stands outside the limits, also where an agent before counted it.
func (t *Table) unlimited(a *account, labels FlowLabels) *row[FlowLabels] {
	r := a.flows.fixed(labels)
	if r.counted {
		r.counted = false
		a.flows.counted--
		t.flows.taken--
	}
	return r
}

func (t *Table) externalRow(a *account, labels ExternalLabels) *row[ExternalLabels] {
	r := a.externals.find(labels, t.seed, func() bool { return t.externals.admit(t, a) })
	if r == nil {
		r = a.externals.fold(ExternalLabels{Country: folded})
	}
	return r
}

// bury notes which pods are metered no more.
func (t *Table) bury(b *Batch) {
	for uid, a := range t.pods {
		if b.living[uid] != nil {
			continue
		}
		delete(t.pods, uid)
		a.living--
		if a.living == 0 {
			a.gone = b.End
		}
	}
}

// expire retires idle rows and forgets names whose grace is over.
func (t *Table) expire(now time.Time) {
	for n, a := range t.names {
		if a.living == 0 && now.After(a.gone) && now.Sub(a.gone) >= t.options.SeriesGrace {
			t.flows.taken -= a.flows.counted
			t.externals.taken -= a.externals.counted
			delete(t.names, n)
			continue
		}
		t.retire(a, now)
	}
}

func (t *Table) retire(a *account, now time.Time) {
	t.flows.taken -= a.flows.retire(now, t.options.FlowIdle, a.retireFlow)
	t.externals.taken -= a.externals.retire(now, t.options.FlowIdle, a.retireExternal)
}

func (a *account) flowFamily() *family[FlowLabels] { return &a.flows }

func (a *account) externalFamily() *family[ExternalLabels] { return &a.externals }

// retireFlow takes over what a row has that goes.
func (a *account) retireFlow(r *row[FlowLabels]) {
	a.retiredOf(r.labels.PeerKind).merge(&r.counterPair)
}

func (a *account) retiredOf(kind PeerKind) *counterPair {
	if a.retired[kind] == nil {
		a.retired[kind] = &counterPair{}
	}
	return a.retired[kind]
}

// retireExternal is the same of the external family.
func (a *account) retireExternal(r *row[ExternalLabels]) { a.retiredEx.merge(&r.counterPair) }
