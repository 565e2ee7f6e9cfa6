// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A node may come after the first list of all, but not long after; what is known
// later is not asked for.
func TestNodeHasToCome(t *testing.T) {
	const never = time.Hour
	for name, test := range map[string]struct {
		synced, known, ended time.Duration
		want                 bool
		after                time.Duration
	}{
		"there from the start":    {0, 0, never, true, 0},
		"comes with the sync":     {5 * time.Minute, time.Minute, never, true, 5 * time.Minute},
		"comes late":              {time.Minute, 65*time.Second + 1, never, true, 66 * time.Second},
		"never comes":             {time.Minute, never, never, false, 70 * time.Second},
		"no sync":                 {never, never, 2 * time.Minute, true, 2 * time.Minute},
		"the end comes before it": {0, never, 5 * time.Second, true, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), test.ended)
				defer cancel()
				synced := make(chan struct{})
				timer := time.AfterFunc(test.synced, func() { close(synced) })
				defer timer.Stop()
				got := comes(ctx, synced, func() bool { return time.Since(began) >= test.known })
				if took := time.Since(began); got != test.want || took != test.after {
					t.Errorf("got %v after %v, want %v after %v", got, took, test.want, test.after)
				}
			})
		})
	}
}
