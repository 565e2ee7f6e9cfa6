// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

func TestChoosesInterfaces(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	for _, name := range []string{"cali1", "other1"} {
		w.host.Veth(t, name, ktest.NewNamespace(t), "eth0")
	}
	w.host.VethWithin(t, "local0", "local1")
	for _, test := range []struct {
		globs, want []string
	}{
		{nil, []string{"cali1", "other1", "veth0"}},
		{[]string{"!veth*"}, []string{"cali1", "other1"}},
		{[]string{"cali*", "local*", "!local1"}, []string{"cali1", "local0"}},
		{[]string{"none*"}, nil},
	} {
		t.Run(strings.Join(test.globs, ","), func(t *testing.T) {
			m := startMeter(t, w.host, func(o *Options) { o.Interfaces = test.globs })
			names := func() (names []string) {
				for _, i := range m.Interfaces() {
					names = append(names, i.Name)
				}
				return names
			}
			ktest.Await(t, "a drain after the first listing", func() bool { return m.LastDrain().Count > 3 })
			if got := names(); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if len(test.want) > 0 {
				return
			}
			w.host.Veth(t, "none9", ktest.NewNamespace(t), "eth0")
			m.awaitState(t, "none9", StateAttached)
		})
	}
}

// Lost link events cost nothing but a listing.
func TestOverrunListsAgain(t *testing.T) {
	t.Parallel()
	host := ktest.NewNamespace(t)
	var hold sync.Mutex
	m := startMeter(t, host, func(o *Options) {
		o.receiveBuffer = 1
		o.within = func(f func() error) error {
			hold.Lock()
			defer hold.Unlock()
			return host.Do(f)
		}
	})
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	pod := ktest.NewNamespace(t)
	const veths = 60
	hold.Lock()
	for i := range veths {
		host.Veth(t, fmt.Sprint("veth", i), pod, fmt.Sprint("eth", i))
	}
	for i := range veths / 2 {
		host.DeleteLink(t, fmt.Sprint("veth", i))
	}
	hold.Unlock()
	ktest.Await(t, "exactly the living are attached", func() bool {
		all := m.Interfaces()
		return len(all) == veths/2 && !slices.ContainsFunc(all, func(i InterfaceStatus) bool { return i.State != StateAttached })
	})
}

// While a point's kernel entries are being deleted nobody can take its ifindex.
func TestPointIsTakenUntilDeleted(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	r.put(&attachment{point: 7, drains: 1})
	over := r.drained([]uint32{7})
	taken := false
	r.with(7, func(a *attachment) { taken = a != nil })
	if len(over) != 1 || !taken {
		t.Errorf("after its last drain: got %v over, taken %t, want it over and still taken", over, taken)
	}
}

// A closed meter refuses, and does not touch what was its maps.
func TestClosedMeterRefuses(t *testing.T) {
	t.Parallel()
	m := startMeter(t, ktest.NewNamespace(t), nil)
	m.stop()
	if err := m.Drain(context.Background()); err != ErrClosed {
		t.Errorf("drain: got %v, want %v", err, ErrClosed)
	}
	if _, err := m.Outcomes(); err != ErrClosed {
		t.Errorf("outcomes: got %v, want %v", err, ErrClosed)
	}
}
