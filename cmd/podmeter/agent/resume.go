// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/owned"
	"github.com/podmeter/podmeter/internal/ratelog"
)

// keeper reads one meter's checkpoint at the start and writes it from then on.
type keeper struct {
	*checkpoints
	uplinks bool // whose they are
	log     *slog.Logger
	// found is the checkpoint that was there, nil if none could be used.
	found *checkpoint
	saves saves
}

// saves is how the writing of checkpoints goes.
type saves struct {
	mu      sync.Mutex
	failed  uint64
	problem string // of the last one, empty if it went well
	outage  ratelog.Outage
}

func newKeeper(stateDir, name string, log *slog.Logger) (*keeper, error) {
	if err := owned.Check(stateDir); errors.Is(err, owned.ErrForeign) { // else writing tells
		return nil, Usage(fmt.Errorf("--state-dir: %w", err))
	}
	files, err := newCheckpoints(stateDir, name)
	k := &keeper{checkpoints: files, uplinks: name == uplinksName, log: log}
	k.saves.outage = ratelog.Outage{
		Log: log, Level: slog.LevelError, Wrong: "save counters for a restart", Over: "counters can be saved for a restart again",
	}
	return k, err
}

// saved returns the datapath's part of the checkpoint that is there. Without one,
// or with one that is broken, counting goes on and counters begin anew.
func (k *keeper) saved() *datapath.SavedState {
	found, err := k.read()
	if err == nil && found != nil && (found.Uplinks != nil) != k.uplinks {
		err = fmt.Errorf("%w: %s is of another meter", errCheckpoint, k.path)
	}
	if err != nil {
		k.reject(err)
		return nil
	}
	if k.found = found; found == nil {
		return nil
	}
	return found.Datapath
}

// resume restores counters from the checkpoint if the datapath went on with its
// maps.
func (k *keeper) resume(meter *datapath.Meter, restore func(*checkpoint) error) error {
	found := k.found
	k.found = nil
	resumed, why := meter.Resumed()
	if !resumed && found != nil {
		k.reject(why)
	}
	if !resumed || found == nil {
		return nil
	}
	if err := restore(found); err != nil {
		return fmt.Errorf("go on from checkpoint %s: %w", k.path, err)
	}
	return nil
}

// reject keeps a checkpoint that cannot be used out of the way.
func (k *keeper) reject(why error) {
	aside, err := k.setAside()
	k.log.Warn("the checkpoint cannot be used: counters begin anew, with what maps still hold",
		"reason", why, "set-aside", aside, "error", err)
}

// save writes the checkpoint of the epoch that is being published. When that
// fails counting and publishing go on: what is lost is that a restart knows, and that is said
// beside it.
func (k *keeper) save(content *checkpoint) {
	err := k.write(content)
	if err == nil {
		err = k.catchUp()
	} else {
		err = errors.Join(err, k.fallBehind())
	}
	k.saves.mu.Lock()
	defer k.saves.mu.Unlock()
	k.saves.outage.Set(err)
	if err == nil {
		k.saves.problem = ""
		return
	}
	k.saves.failed++
	k.saves.problem = err.Error()
}

func (s *saves) status() (failed uint64, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed, s.problem
}

// persist writes the checkpoint of the pods.
func (a *Agent) persist(state *flows.State) {
	a.keeper.save(&checkpoint{Datapath: a.meter.Save(a.epoch), Flows: state})
}

// resume goes on with the counters of the pods.
func (a *Agent) resume(context.Context) error {
	return a.keeper.resume(a.meter, func(found *checkpoint) error {
		if a.meter.Unsaved() {
			found.Flows.BeginAnew()
		}
		return a.publisher.Restore(found.Flows)
	})
}
