// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// earlyHealth is the health of connections of pods none of whose interfaces is bound yet.
// It waits for as long as the bytes of an interface that vanished unbound.
type earlyHealth map[earlyKey]*earlySum

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
func (e *earlyHealth) wait(uid string, labels FlowLabels, sum *healthSum, now time.Time, entries *HealthEntries) {
	key := earlyKey{uid, labels}
	known := (*e)[key]
	if known == nil {
		if len(*e) >= waitingLimit {
			entries.Unbound++
			return
		}
		if *e == nil {
			*e = make(earlyHealth)
		}
		known = &earlySum{until: now.Add(unboundGrace)}
		(*e)[key] = known
	}
	known.add(sum)
	known.entries++
}

// release moves what waits for pods that are bound by now to the batch, whole, and gives
// up what has waited for long enough.
func (e *earlyHealth) release(batch *Batch, byUID map[string]*Pod, optional *Optional, entries *HealthEntries) {
	for key, sum := range *e {
		pod := byUID[key.uid]
		switch {
		case pod != nil:
			entries.Attributed += sum.entries
			batch.addHealth(pod, rowLabels{flow: key.labels}.local(pod, user{}, optional).flow, &sum.healthSum)
		case batch.End.After(sum.until):
			entries.Unbound += sum.entries
		default:
			continue
		}
		delete(*e, key)
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
	for key, sum := range *e {
		all = append(all, EarlyHealthState{key.uid, key.labels, sum.entries, sum.until, sum.healthSum.state(0)})
	}
	return all
}

func (e *earlyHealth) restore(all []EarlyHealthState) {
	if len(all) > 0 {
		*e = make(earlyHealth, len(all))
	}
	for i := range all {
		s := &all[i]
		s.Labels.bound()
		bound(plain.MessageLimit, &s.UID) // nobody sees it
		(*e)[earlyKey{s.UID, s.Labels}] = &earlySum{healthSum: *s.Health.sum(), entries: s.Entries, until: s.Until}
	}
}
