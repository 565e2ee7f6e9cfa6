// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"testing"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/vishvananda/netlink"
)

// testWorld is a world in a node namespace of its own, with the pods that are
// there from the start.
func testWorld(t *testing.T) *world {
	t.Helper()
	ktest.Privileged(t)
	node, err := newNamespace("the node")
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Errorf("close world: %v", err)
		}
	})
	for _, plan := range startPods() {
		if _, err := w.addPod(plan); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// What is sent in a new world is not dropped as a device is not ready for it.
func TestDevicesAreReady(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	namespaces := map[string]*namespace{"the node": w.node, "the internet": w.internet}
	for name, p := range w.pods {
		namespaces[name] = p.namespace
	}
	for name, n := range namespaces {
		links, err := n.links.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if state := l.Attrs().OperState; l.Type() == "veth" && state != netlink.OperUp {
				t.Errorf("%s in %s: got it %s, want it up", l.Attrs().Name, name, state)
			}
		}
	}
}

func TestWorldComesAndGoes(t *testing.T) {
	t.Parallel()
	w := testWorld(t)
	own, err := w.ledgers()
	if err != nil || len(own) != len(startPods()) {
		t.Errorf("got %d ledgers and error %v, want %d", len(own), err, len(startPods()))
	}
	for device, l := range own {
		if got := l[flows.Transmit]; got.Packets < hurried || got.Bytes < hurried*(14+20+8+42) {
			t.Errorf("%s: got %v before any traffic, want at least %d datagrams", device, got, hurried)
		}
	}
	node, err := openNamespace("the node again", dup(t, w.node))
	if err != nil {
		t.Fatal(err)
	}
	defer node.close()
	for range 2 {
		if err := w.close(); err != nil {
			t.Errorf("close world: %v", err)
		}
	}
	left, err := node.ledgers()
	if err != nil {
		t.Fatal(err)
	}
	delete(left, "lo")
	if len(left) != 0 {
		t.Errorf("got interfaces %v after the end, want none", left)
	}
}
