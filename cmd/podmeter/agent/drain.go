// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// DrainPath drains at a POST: when it answers 200, all that was counted before the
	// request is published, and the body is the [DrainStatus]. It is 429 when too many
	// wait, and 503 when there is nothing to drain yet or the drain failed. The socket
	// alone has it: a drain takes time that a scrape may need.
	DrainPath = "/drain"

	// drainsWaiting is how many requests may be under way, one of which drains.
	drainsWaiting = 4
	// drainPause is how far drains on request are kept apart.
	drainPause = 50 * time.Millisecond
)

// drainRequests bounds how many drains are asked for, and how often they come.
type drainRequests struct {
	under chan struct{} // a place for each request that is under way
	turn  chan struct{} // held by the one that drains
	last  time.Time     // when the last one ended; its holder's
}

func newDrainRequests() *drainRequests {
	return &drainRequests{under: make(chan struct{}, drainsWaiting), turn: make(chan struct{}, 1)}
}

// errBusy is returned when too many drains are asked for.
var errBusy = errors.New("too many drains are asked for at once: try again")

// do calls drain when it is the turn of this request, or returns why not.
func (r *drainRequests) do(ctx context.Context, drain func(context.Context) error) error {
	select {
	case r.under <- struct{}{}:
		defer func() { <-r.under }()
	default:
		return errBusy
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for another drain: %w", context.Cause(ctx))
	}
	pause := time.NewTimer(drainPause - time.Since(r.last))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return fmt.Errorf("wait for the next drain: %w", context.Cause(ctx))
	}
	defer func() { r.last = time.Now() }()
	return drain(ctx)
}

func (a *Agent) serveDrain(w http.ResponseWriter, r *http.Request) {
	err := a.drains.do(r.Context(), a.settle)
	if err != nil {
		code := http.StatusServiceUnavailable
		if errors.Is(err, errBusy) {
			code = http.StatusTooManyRequests
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a.drainStatus()); err != nil {
		a.log.Debug("answer drain", "error", err)
	}
}

// settle publishes all that was counted until now, of both meters.
func (a *Agent) settle(ctx context.Context) error {
	if a.metering.Load() == nil {
		return errors.New("metering has not begun yet: the names of pods are waited for")
	}
	return errors.Join(a.meter.Settle(ctx), a.uplinks.settle(ctx))
}
