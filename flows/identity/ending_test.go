// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"

	"github.com/podmeter/podmeter/flows"
)

func TestEnding(t *testing.T) {
	c := newTestCache(&clock{start})
	meter := flows.Workload{Type: "daemonset", Name: "meter"}
	of := func(name, namespace, node string, w flows.Workload, leaving bool) *Pod {
		return &Pod{Pod: flows.Pod{UID: name, Name: name, Namespace: namespace, Node: node, Workload: w}, Leaving: leaving}
	}
	check := func(when string, want bool) {
		t.Helper()
		if got := c.Ending("ns", meter); got != want {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	check("nothing is known of this node", true)
	c.SetPod(of("elsewhere", "ns", "there", meter, false))
	c.SetPod(of("another's", "ns", "here", flows.Workload{Type: "daemonset", Name: "other"}, false))
	c.SetPod(of("namesake's", "other", "here", meter, false))
	check("none is here", true)
	c.SetPod(of("first", "ns", "here", meter, false))
	check("it runs", false)
	c.SetPod(of("first", "ns", "here", meter, true))
	check("it is to end", true)
	c.SetPod(of("second", "ns", "here", meter, false))
	check("another has come", false)
	c.DeletePod(of("second", "ns", "here", meter, false))
	check("which has gone", true)
}

func TestNodeKnown(t *testing.T) {
	c := newTestCache(&clock{start})
	check := func(when string, want bool) {
		t.Helper()
		if got := c.NodeKnown(); got != want {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	c.SetNode(&Node{Name: "there"})
	check("another is there", false)
	c.SetPod(&Pod{Pod: flows.Pod{UID: "p", Name: "p", Namespace: "ns", Node: "here"}})
	check("a pod names it", false)
	c.SetNode(&Node{Name: "here"})
	check("it is there", true)
	c.DeleteNode("here")
	check("it is gone", false)
}
