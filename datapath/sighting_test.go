// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
)

// Since when an interface is there is known of those that came under our eyes, also
// if they are attached later, again, or by the next meter.
func TestKnowsWhenInterfacesAppeared(t *testing.T) {
	t.Parallel()
	host, a := ktest.NewNamespace(t), newArchive()
	host.Veth(t, "old0", ktest.NewNamespace(t), "eth0")
	o := testOptions(t, host, nil)
	cleanPins(t, o)
	l := a.start(t, o)
	seen := func(name string) (i flows.Interface) {
		l.attachments.each(func(a *attachment) {
			if a.name == name {
				i = a.domain()
			}
		})
		return i
	}
	ktest.Await(t, "old0 is attached", l.settled(1))
	before := time.Now()
	host.Veth(t, "new0", ktest.NewNamespace(t), "eth0")
	ktest.Await(t, "new0 is attached", l.settled(2))
	after := time.Now()
	check := func(when string) {
		t.Helper()
		if got := seen("old0"); got.HardwareAddr == "" || !got.Appeared.IsZero() {
			t.Errorf("%s: old0 with address %q appeared %v, want one, and no time", when, got.HardwareAddr, got.Appeared)
		}
		if got := seen("new0").Appeared; got.Before(before) || got.After(after) {
			t.Errorf("%s: new0 appeared %v, want between %v and %v", when, got, before, after)
		}
	}
	check("attached")
	l.stop(t)
	l = a.start(t, o)
	ktest.Await(t, "both are attached again", l.settled(2))
	check("restarted")
	l.stop(t)
}
