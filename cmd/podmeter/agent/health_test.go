// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

func TestOverdue(t *testing.T) {
	for _, test := range []struct {
		age, interval time.Duration
		stuck         bool
	}{
		{0, 5 * time.Second, false},
		{35 * time.Second, 5 * time.Second, false},
		{35*time.Second + 1, 5 * time.Second, true},
		{10 * time.Minute, 10 * time.Minute, false},
		{11 * time.Minute, 10 * time.Minute, true},
		{-time.Hour, time.Second, false}, // the clock was set
	} {
		if err := overdue(test.age, test.interval); (err != nil) != test.stuck {
			t.Errorf("%v old with one due every %v: got %v, want stuck %v", test.age, test.interval, err, test.stuck)
		}
	}
}
