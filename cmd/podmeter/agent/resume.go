// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
)

// complaintInterval is how often at most a checkpoint that cannot be written is
// logged.
const complaintInterval = time.Minute

// saves is how the writing of checkpoints goes.
type saves struct {
	mu      sync.Mutex
	failed  uint64
	problem string // of the last one, empty if it went well
	logged  time.Time
}

// readCheckpoint returns the datapath's part of the checkpoint that is there.
// Without one, or with one that is broken, counting goes on and counters begin
// anew.
func (a *Agent) readCheckpoint() *datapath.SavedState {
	found, err := a.checkpoints.read()
	if err != nil {
		a.setAside(err)
		return nil
	}
	if a.found = found; found == nil {
		return nil
	}
	return found.Datapath
}

// resume goes on with the counters of the checkpoint if the datapath went on with
// its maps.
func (a *Agent) resume(context.Context) error {
	resumed, why := a.meter.Resumed()
	if !resumed {
		if a.found != nil {
			a.setAside(why)
		}
		a.found = nil
		return nil
	}
	state := a.found.Flows
	a.found = nil
	if err := a.publisher.Restore(state); err != nil {
		return fmt.Errorf("go on from checkpoint %s: %w", a.checkpoints.path, err)
	}
	return nil
}

// setAside keeps a checkpoint that cannot be used out of the way.
func (a *Agent) setAside(why error) {
	aside, err := a.checkpoints.setAside()
	a.log.Warn("the checkpoint cannot be used: counters begin anew, with what maps still hold",
		"reason", why, "set-aside", aside, "error", err)
}

// persist writes the checkpoint of the epoch that is being published. When that
// fails counting and publishing go on: what is lost is that a restart knows.
func (a *Agent) persist(state *flows.State) {
	err := a.checkpoints.write(&checkpoint{Datapath: a.meter.Save(a.epoch), Flows: state})
	a.saves.mu.Lock()
	defer a.saves.mu.Unlock()
	if err == nil {
		a.saves.problem = ""
		return
	}
	a.saves.failed++
	a.saves.problem = err.Error()
	if now := time.Now(); now.Sub(a.saves.logged) >= complaintInterval {
		a.saves.logged = now
		a.log.Error("save counters for a restart", "error", err, "times", a.saves.failed)
	}
}

func (s *saves) status() (failed uint64, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed, s.problem
}
