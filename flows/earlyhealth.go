// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// earlyHealth is the health of connections of pods none of whose interfaces is bound yet.
// It waits for as long as the bytes of an interface that vanished unbound. Where there is no
// room for more each pod has an equal share, which it takes from the one that has most.
type earlyHealth struct {
	sums map[earlyKey]*earlySum
	// rows counts them by pod.
	rows map[string]int
}

type earlyKey struct {
	uid    string
	labels FlowLabels // those of the pod left empty
}

type earlySum struct {
	healthSum
	entries uint64
	until   time.Time // it is given up
}

// wait keeps the health of a connection. Of a pod without an interface of its own, which
// nobody tells, all comes to be given up.
func (e *earlyHealth) wait(uid string, labels FlowLabels, health *Health, batch *Batch, entries *HealthEntries) {
	key := earlyKey{uid, labels}
	known := e.sums[key]
	if known == nil {
		if !e.admit(uid, entries) {
			entries.Unbound++
			return
		}
		known = &earlySum{until: batch.End.Add(unboundGrace)}
		e.keep(key, known)
	}
	known.add(health, batch.Start)
	known.entries++
}

// admit reports whether there is room for a row of a pod, for which another's is given up if
// there has to be.
func (e *earlyHealth) admit(uid string, entries *HealthEntries) bool {
	if len(e.sums) < waitingLimit {
		return true
	}
	pods := len(e.rows)
	if e.rows[uid] == 0 {
		pods++
	}
	if e.rows[uid] >= waitingLimit/pods {
		return false
	}
	var most string
	for other, rows := range e.rows {
		if rows > e.rows[most] {
			most = other
		}
	}
	for key, sum := range e.sums {
		if key.uid == most {
			entries.Unbound += sum.entries
			e.drop(key)
			break
		}
	}
	return true
}

func (e *earlyHealth) keep(key earlyKey, sum *earlySum) {
	if e.sums == nil {
		e.sums, e.rows = make(map[earlyKey]*earlySum), make(map[string]int)
	}
	e.sums[key] = sum
	e.rows[key.uid]++
}

func (e *earlyHealth) drop(key earlyKey) {
	delete(e.sums, key)
	if e.rows[key.uid]--; e.rows[key.uid] == 0 {
		delete(e.rows, key.uid)
	}
}

// release moves what waits for pods that are bound by now to the batch, whole, and gives
// up what has waited for long enough.
func (e *earlyHealth) release(batch *Batch, byUID map[string]*Pod, entries *HealthEntries) {
	for key, sum := range e.sums {
		pod := byUID[key.uid]
		switch {
		case pod != nil:
			entries.Attributed += sum.entries
			batch.health.add(rowKey{pod: pod, source: source{stored: &rowLabels{flow: key.labels}}}, &sum.Health, sum.created)
		case batch.End.After(sum.until):
			entries.Unbound += sum.entries
		default:
			continue
		}
		e.drop(key)
	}
}

// EarlyHealthState is the health of connections of a pod that waits for its interface.
type EarlyHealthState struct {
	UID     string
	Labels  FlowLabels
	Entries uint64
	Until   time.Time
	Health  HealthState
}

func (e *earlyHealth) state() (all []EarlyHealthState) {
	for key, sum := range e.sums {
		all = append(all, EarlyHealthState{key.uid, key.labels, sum.entries, sum.until, sum.healthSum.state(0)})
	}
	return all
}

func (e *earlyHealth) restore(all []EarlyHealthState) {
	for i := range all {
		s := &all[i]
		s.Labels.bound()
		bound(plain.MessageLimit, &s.UID) // nobody sees it
		sum := &earlySum{healthSum: *s.Health.sum(), entries: s.Entries, until: s.Until}
		if key := (earlyKey{s.UID, s.Labels}); e.sums[key] == nil {
			e.keep(key, sum)
		} else { // their labels are equal now that they are plain
			e.sums[key].add(&sum.Health, sum.created)
			e.sums[key].entries += sum.entries
		}
	}
}
