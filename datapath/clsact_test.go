// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// clsactThere reports whether an interface has a clsact qdisc.
func (w *wire) clsactThere(t testing.TB) (there bool) {
	t.Helper()
	err := w.host.Do(func() error {
		all, err := netlink.QdiscList(device(w.index))
		for _, q := range all {
			there = there || q.Type() == "clsact"
		}
		return err
	})
	if err != nil {
		t.Fatalf("list qdiscs: %v", err)
	}
	return there
}

func (w *wire) addClsact(t testing.TB) {
	t.Helper()
	if err := w.host.Do(func() error { return netlink.QdiscAdd(clsact(w.index)) }); err != nil {
		t.Fatalf("add clsact qdisc: %v", err)
	}
}

func (w *wire) deleteClsact(t testing.TB) {
	t.Helper()
	if err := w.host.Do(func() error { return netlink.QdiscDel(clsact(w.index)) }); err != nil {
		t.Fatalf("delete clsact qdisc: %v", err)
	}
}

// uninstall is [Uninstall] in a namespace.
func uninstall(t testing.TB, host *ktest.Namespace, path string) (removed []string) {
	t.Helper()
	err := host.Do(func() (err error) {
		removed, err = Uninstall(path)
		return err
	})
	if err != nil {
		t.Fatalf("uninstall %s: %v", path, err)
	}
	if exists(path) {
		t.Errorf("pin path %s is still there", path)
	}
	return removed
}

// marks are the names of the marks in a pin path.
func marks(t testing.TB, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), clsactPrefix) {
			names = append(names, entry.Name())
		}
	}
	return names
}

// clsactCase is what happens on an interface before the first meter, while it runs,
// and between it and the next.
type clsactCase struct {
	name                    string
	before, during, between func(testing.TB, *wire)
	stays                   bool // the qdisc that is there at the end
}

func clsactCases() []clsactCase {
	another := func(t testing.TB, w *wire) {
		w.deleteClsact(t)
		w.addClsact(t)
		w.nudge(t)
	}
	anotherDevice := func(t testing.TB, w *wire) {
		w.host.DeleteLink(t, w.name)
		w.host.VethAt(t, w.index, w.name, ktest.NewNamespace(t), "eth0")
	}
	return []clsactCase{
		{name: "ours"},
		{name: "was there", before: func(t testing.TB, w *wire) { w.addClsact(t) }, stays: true},
		{name: "another's since, while we ran", during: another, stays: true},
		{name: "another's since, while no meter ran", between: another, stays: true},
		{
			name: "the device is another, with another's qdisc", stays: true,
			between: func(t testing.TB, w *wire) { anotherDevice(t, w); w.addClsact(t) },
		},
		{name: "the device is another, without qdisc", between: anotherDevice},
		{
			name: "used by another", stays: true,
			during: func(t testing.TB, w *wire) {
				w.add(t, bpfFilter(t, hookIngress, 1, unix.ETH_P_ALL, 1, "foreign"))
			},
		},
	}
}

// Who made the clsact qdisc is known after the meter's end, and what was known of
// an earlier device or an earlier qdisc is not believed.
func TestClsactGoesOnlyIfItIsOurs(t *testing.T) {
	t.Parallel()
	cases, host := clsactCases(), ktest.NewNamespace(t)
	a, o := newArchive(), testOptions(t, host, nil)
	o.Attach = AttachNetlink
	cleanPins(t, o)
	wires := make([]*wire, len(cases))
	step := func(n int, f func(testing.TB, *wire)) {
		if f != nil {
			f(t, wires[n])
		}
	}
	for n, c := range cases {
		wires[n] = newPod(t, host, fmt.Sprint("veth", n), fmt.Sprint("198.51.100.", n+2))
		step(n, c.before)
	}
	l := a.start(t, o)
	ktest.Await(t, "all are attached", l.attached(len(cases)))
	started := time.Now()
	for n, c := range cases {
		step(n, c.during)
	}
	ktest.Await(t, "one is attached again", func() bool {
		return l.attached(len(cases))() && slices.ContainsFunc(l.Interfaces(), func(i InterfaceStatus) bool { return i.Since.After(started) })
	})
	l.kill(t)
	for n, c := range cases {
		step(n, c.between)
	}
	l = a.start(t, o)
	ktest.Await(t, "all are attached", l.attached(len(cases)))
	l.stop(t)
	uninstall(t, host, o.PinPath)
	for n, c := range cases {
		if got := wires[n].clsactThere(t); got != c.stays {
			t.Errorf("%s: got a clsact qdisc %t, want %t", c.name, got, c.stays)
		}
	}
}

// nudge makes a link event of the interface.
func (w *wire) nudge(t testing.TB) {
	t.Helper()
	err := w.host.Do(func() error {
		l, err := netlink.LinkByIndex(w.index)
		if err != nil {
			return err
		}
		return netlink.LinkSetAlias(l, "nudged")
	})
	if err != nil {
		t.Fatalf("set alias: %v", err)
	}
}

// An agent that runs takes the qdisc with it when an interface is no longer wanted,
// and forgets the marks of interfaces that are gone.
func TestMarksGoWithWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	m := startMeter(t, w.host, func(o *Options) { o.Attach = AttachNetlink })
	m.awaitState(t, "veth0", StateAttached)
	if got := marks(t, m.options.PinPath); len(got) != 1 {
		t.Errorf("attached: got marks %v, want one", got)
	}
	w.host.DeleteLink(t, "veth0")
	ktest.Await(t, "veth0 is forgotten", func() bool { return m.state("veth0") == "" })
	if got := marks(t, m.options.PinPath); len(got) != 0 {
		t.Errorf("interface gone: got marks %v, want none", got)
	}
}

// A device that vanished before its hook was detached: its ifindex is another's by
// then, who has a clsact qdisc of his own, empty.
func TestLateDetachSparesTheNext(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	w := newWire(t)
	if err := d.createPoint(uint32(w.index)); err != nil {
		t.Fatal(err)
	}
	path := testPins(t)
	h := attachTo(t, w, newAttacher(AttachNetlink, &objects.MeterObjects, path))
	w.host.DeleteLink(t, "veth0")
	w.host.VethAt(t, w.index, "veth1", ktest.NewNamespace(t), "eth0")
	w.addClsact(t)
	w.add(t, bpfFilter(t, hookIngress, 1, unix.ETH_P_ALL, 1, "foreign"))
	if err := w.host.Do(h.detach); err != nil {
		t.Errorf("detach: %v", err)
	}
	if !w.clsactThere(t) {
		t.Error("the next device's clsact qdisc is gone")
	}
	if got := marks(t, path); len(got) != 0 {
		t.Errorf("got marks %v, want none", got)
	}
}

// A mark of an earlier device or qdisc is no leave to delete what is there now,
// neither for who attaches to it nor for uninstall.
func TestStaleMarkIsNotBelieved(t *testing.T) {
	t.Parallel()
	d, objects := newTestDrainer(t, 4096)
	w := newWire(t)
	if err := d.createPoint(uint32(w.index)); err != nil {
		t.Fatal(err)
	}
	w.addClsact(t)
	path := testPins(t)
	stale := markOf(path, w.index)
	if err := stale.set(); err != nil {
		t.Fatal(err)
	}
	a := newAttacher(AttachNetlink, &objects.MeterObjects, path)
	h := attachTo(t, w, a)
	if stale.isSet() {
		t.Error("attached: the mark is still there")
	}
	if err := w.host.Do(h.detach); err != nil {
		t.Errorf("detach: %v", err)
	}
	if !w.clsactThere(t) {
		t.Fatal("detached: the clsact qdisc is gone")
	}
	for _, remove := range []struct {
		name string
		by   func() error
	}{
		{"adopted by the next", func() error { return a.removeStrangers(nil) }},
		{"uninstalled", func() error { _, err := Uninstall(path); return err }},
	} {
		if err := stale.set(); err != nil {
			t.Fatal(err)
		}
		if err := w.host.Do(remove.by); err != nil {
			t.Errorf("%s: %v", remove.name, err)
		}
		if stale.isSet() || !w.clsactThere(t) {
			t.Errorf("%s: got the mark %t, clsact %t, want the qdisc alone", remove.name, stale.isSet(), w.clsactThere(t))
		}
	}
}

// With no room for our filter nothing is left of the attempt.
func TestFailedAttachmentLeavesNoQdisc(t *testing.T) {
	t.Parallel()
	_, objects := newTestDrainer(t, 4096)
	w := newWire(t)
	path := testPins(t)
	a := newAttacher(AttachNetlink, &objects.MeterObjects, path)
	a.programs[flows.Transmit] = refused(t)
	err := w.host.Do(func() error {
		_, _, err := a.attach(w.index, false)
		return err
	})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("attach: got %v, want %v", err, unix.EINVAL)
	}
	if w.clsactThere(t) || len(marks(t, path)) > 0 {
		t.Errorf("got a clsact qdisc %t, marks %v, want neither", w.clsactThere(t), marks(t, path))
	}
}

// refused is a program that no TC hook takes.
func refused(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}
