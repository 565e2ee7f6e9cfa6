// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Drains on request come one at a time and apart, and no more wait than there are places.
func TestDrainRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, began := newDrainRequests(), make(chan time.Time, 2*drainsWaiting)
		finish := make(chan struct{})
		drain := func(context.Context) error {
			began <- time.Now()
			<-finish
			return nil
		}
		results := make(chan error, 2*drainsWaiting)
		var asked sync.WaitGroup
		for range drainsWaiting + 2 {
			asked.Go(func() { results <- r.do(t.Context(), drain) })
		}
		synctest.Wait()
		if len(began) != 0 && len(began) != 1 {
			t.Errorf("got %d drains at once, want one", len(began))
		}
		for range 2 {
			if err := <-results; !errors.Is(err, errBusy) {
				t.Errorf("beyond the places: got %v, want %v", err, errBusy)
			}
		}
		close(finish)
		asked.Wait()
		var last time.Time
		for range drainsWaiting {
			if err := <-results; err != nil {
				t.Errorf("got %v, want a drain", err)
			}
			at := <-began
			if !last.IsZero() && at.Sub(last) < drainPause {
				t.Errorf("got drains %v apart, want %v at least", at.Sub(last), drainPause)
			}
			last = at
		}
	})
}

// Whoever goes leaves his place, and the error of a drain is told.
func TestDrainRequestEnds(t *testing.T) {
	r := newDrainRequests()
	failure := errors.New("clear: busy")
	if err := r.do(t.Context(), func(context.Context) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
	r.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * drainsWaiting {
		if err := r.do(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("while another drains: got %v, want %v", err, context.Canceled)
		}
	}
}
