// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"runtime"
	"testing"
)

// Do returns also where a helper ends the test from within, which ends the goroutine alone.
func TestNamespaceDo(t *testing.T) {
	Privileged(t)
	ns := NewNamespace(t)
	mine := errors.New("mine")
	if err := ns.Do(func() error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v, want what it returned", err)
	}
	if err := ns.Do(func() error { return nil }); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errEnded) {
		t.Errorf("got %v, want that it did not return", err)
	}
}
