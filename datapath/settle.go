// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"time"
)

// Settle drains both sets: when it returns all that programs counted before the call is
// published. The ledgers are compared before each of the two drains, far enough apart
// that what they tell of an interface on which no packet has moved meanwhile is settled
// and published too. It waits for a drain that is going on, or until ctx is done.
func (m *Meter) Settle(ctx context.Context) error {
	if err := m.takeGate(ctx); err != nil {
		return err
	}
	defer func() { <-m.gate }()
	if m.released {
		return ErrClosed
	}
	for range sets {
		if err := m.awaitComparison(ctx); err != nil {
			return err
		}
		if err := m.drain(); err != nil {
			return err
		}
	}
	return nil
}

// awaitComparison makes a comparison of the ledgers due, once another reading says more
// than the last one. The caller holds the gate.
func (m *Meter) awaitComparison(ctx context.Context) error {
	timer := time.NewTimer(settleAfter - time.Since(m.compared))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait between two readings: %w", context.Cause(ctx))
	case <-timer.C:
		m.compared = time.Time{}
		return nil
	}
}

// takeGate waits for the gate, or until ctx is done.
func (m *Meter) takeGate(ctx context.Context) error {
	select {
	case m.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a drain: %w", context.Cause(ctx))
	}
}
