// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/agent/page"
)

const sampleEdges = `{"node": "node-a", "total": [4294967296, 2048], "edges": {"rows": [
	{"local": {"kind": "pod", "namespace": "shop", "name": "web"}, "peer": {"kind": "external", "namespace": "", "name": ""},
	 "locality": "external", "total": [1024, 0]},
	{"local": {"kind": "pod", "namespace": "shop", "name": "api"}, "peer": {"kind": "pod", "namespace": "batch", "name": "report"},
	 "locality": "cross_zone", "total": [4294966272, 2048]},
	{"local": {"kind": "pod", "namespace": "", "name": "veth1"}, "peer": {"kind": "node", "namespace": "", "name": "node\u001b-a"},
	 "locality": "same_node", "total": [0, 512]}
	], "others": 3, "rest": {"total": [10, 20]}}, "books": {"difference": 0}}`

const sampleEdgesText = `WORKLOAD  PEER          LOCALITY    SENT     RECEIVED
shop/api  batch/report  cross_zone  4.0 GiB  2.0 KiB
shop/web  external      external    1.0 KiB  0 B
veth1     node node�-a  same_node   0 B      512 B
3 more                              10 B     20 B

pods on node-a: 4.0 GiB sent, 2.0 KiB received; every byte is on the row of a flow
`

func serveEdges(t *testing.T, answer string) (socket string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+page.StatePath, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })
	return serve(t, mux)
}

// Who talks to whom is a table, those that moved most first; names move no cursor.
func TestStatusEdges(t *testing.T) {
	got := new(recorder).run(t, nil, "status", "--edges", "--socket", serveEdges(t, sampleEdges))
	if diff := cmp.Diff(sampleEdgesText, got.stdout); diff != "" || got.code != 0 {
		t.Errorf("got %d and %q, output (-want +got):\n%s", got.code, got.stderr, diff)
	}
	got = new(recorder).run(t, nil, "status", "--edges", "-o", "json", "--socket", serveEdges(t, sampleEdges))
	if got.code != 0 || !strings.Contains(got.stdout, `"locality": "cross_zone"`) {
		t.Errorf("json: got %+v, want the rows", got)
	}
}

// Without traffic that is said; where sums do not agree, too.
func TestStatusEdgesOfOddAgents(t *testing.T) {
	for _, rows := range []string{``, `{"local": {"kind": "pod", "name": "a"}, "peer": {"kind": "external"}, "total": [0, 0]}`} {
		got := new(recorder).run(t, nil, "status", "--edges", "--socket", serveEdges(t, `{"edges": {"rows": [`+rows+`]}}`))
		if want := "no traffic of a pod was counted yet\n"; got.code != 0 || got.stdout != want {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	wrong := strings.Replace(sampleEdges, `"difference": 0`, `"difference": 1500`, 1)
	got := new(recorder).run(t, nil, "status", "--edges", "--socket", serveEdges(t, wrong))
	if want := "1,500 bytes are not on the rows of flows: A BUG"; !strings.Contains(got.stdout, want) {
		t.Errorf("got %+v, want %q", got, want)
	}
	got = new(recorder).run(t, nil, "status", "--edges", "--ready")
	if got.code != 2 {
		t.Errorf("with --ready: got %+v, want wrong usage", got)
	}
}

// A screen of rows is shown, and the sum of all others.
func TestStatusEdgesFoldTheRest(t *testing.T) {
	var rows []string
	for n := range mostEdges + 5 {
		rows = append(rows, fmt.Sprintf(`{"local": {"kind": "pod", "name": "p%02d"}, "peer": {"kind": "external"}, "total": [%d, 1]}`, n, n))
	}
	answer := fmt.Sprintf(`{"edges": {"rows": [%s], "others": 2, "rest": {"total": [100, 200]}}}`, strings.Join(rows, ","))
	got := new(recorder).run(t, nil, "status", "--edges", "--socket", serveEdges(t, answer))
	lines := strings.Split(got.stdout, "\n")
	if first := fmt.Sprintf("p%d ", mostEdges+4); !strings.HasPrefix(lines[1], first) {
		t.Errorf("got %q first, want %q", lines[1], first)
	}
	// 0 to 4 are folded: 10 bytes sent, 5 received.
	if got := strings.Join(strings.Fields(lines[1+mostEdges]), " "); got != "7 more 110 B 205 B" {
		t.Errorf("got %q, want the sum of the others", got)
	}
}

// The agent of this host answers, page or no page.
func TestAgentShowsEdges(t *testing.T) {
	h := newHost(t)
	p := start(t, h.node, nil, h.flags("--node-name", "node-a")...)
	h.awaitAttached(t, p)
	h.send(t, 20)
	h.await(t, p, "the edge", func(*agent.Status) bool {
		s := start(t, h.node, nil, "status", "--edges", "--socket", h.sock)
		if code := s.end(t); code != 0 {
			t.Fatalf("got %d and %q, want 0", code, &s.output)
		}
		for line := range strings.Lines(s.output.String()) {
			if cells := strings.Fields(line); len(cells) > 3 && cells[0] == "veth0" && cells[1] == "node" {
				return strings.Contains(s.output.String(), "every byte is on the row of a flow")
			}
		}
		return false
	})
	p.terminate(t)
}
