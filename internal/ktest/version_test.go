// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"fmt"
	"runtime"
	"testing"
)

func TestVersion(t *testing.T) {
	for _, test := range []struct {
		release string
		atLeast bool // 6.6
	}{
		{"5.15.0-91-generic", false}, {"6.1.0-18-amd64", false}, {"6.5.13", false},
		{"6.6.0-rc1", true}, {"6.18.2", true}, {"7.0-rc1", true},
	} {
		v, err := parseVersion(test.release)
		if got := v.AtLeast(LinuxTCX); err != nil || got != test.atLeast {
			t.Errorf("%s: got %s, %t and %v, want %t", test.release, v, got, err, test.atLeast)
		}
	}
	if v, err := parseVersion("next"); err == nil {
		t.Errorf("got %s, want an error", v)
	}
}

// verdict records how a test would end.
type verdict struct {
	testing.TB
	said            string
	failed, skipped bool
}

func (v *verdict) Helper() {}
func (v *verdict) Fatalf(format string, args ...any) {
	v.failed, v.said = true, fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (v *verdict) Skipf(format string, args ...any) {
	v.skipped, v.said = true, fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// verdictOf runs a part of a test, which may end it.
func verdictOf(f func(testing.TB)) *verdict {
	v, done := &verdict{}, make(chan struct{})
	go func() {
		defer close(done)
		f(v)
	}()
	<-done
	return v
}

func TestLacks(t *testing.T) {
	now := Kernel(t)
	if v := verdictOf(func(tb testing.TB) { Lacks(tb, "TCX", now) }); !v.failed {
		t.Errorf("what this kernel should have: got %+v, want it to fail", v)
	}
	if v := verdictOf(func(tb testing.TB) { Lacks(tb, "TCX", Version{now.Major, now.Minor + 1}) }); !v.skipped {
		t.Errorf("what the next kernel has: got %+v, want it to be skipped", v)
	}
}
