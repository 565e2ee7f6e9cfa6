// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"fmt"
	"testing"
	"time"
)

const (
	// Patience is how long [Await] waits: long enough for a busy machine, as a condition
	// that comes is waited for no longer than it takes.
	Patience = 20 * time.Second

	shortPace, longPace = 5 * time.Millisecond, 500 * time.Millisecond
)

// Await waits until a condition holds, and fails the test if that takes longer than
// [Patience].
func Await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	if err := Eventually(Patience, what, holds); err != nil {
		tb.Fatal(err)
	}
}

// Eventually is [Await] for goroutines that are not the test's own, and for who has
// something to do before the test fails.
func Eventually(within time.Duration, what string, holds func() bool) error {
	for deadline := time.Now().Add(within); !holds(); time.Sleep(shortPace) {
		if time.Now().After(deadline) {
			return fmt.Errorf("never came: %s", what)
		}
	}
	return nil
}

// AwaitWithin waits until lacks returns nothing; it names what is still missing, which the
// failure says, and the log each time that a tenth of the bound has passed. It asks less
// often the longer it waits, as an answer may cost a process or a query.
func AwaitWithin(tb testing.TB, within time.Duration, what string, lacks func() string) {
	tb.Helper()
	began := time.Now()
	logged := began
	for pace := shortPace; ; pace = min(2*pace, longPace) {
		missing := lacks()
		switch {
		case missing == "":
			return
		case time.Since(began) > within:
			tb.Fatalf("never came: %s; %s", what, missing)
		case time.Since(logged) > within/10:
			logged = time.Now()
			tb.Logf("after %.0f s still waiting for %s; %s", time.Since(began).Seconds(), what, missing)
		}
		time.Sleep(pace)
	}
}
