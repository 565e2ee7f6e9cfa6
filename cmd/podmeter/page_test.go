// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What is at / is the page if it was asked for, else links, as ever. How it looks to a
// browser is for hack/page.
func TestAgentPage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := start(t, h.node, nil, h.flags()...)
	h.awaitAttached(t, p)
	if got := h.scrape(t, "/"); bytes.Contains(got, []byte("page.js")) || !bytes.Contains(got, []byte(`href="/readyz"`)) {
		t.Errorf("without --page: got %s, want links alone", got)
	}
	p.terminate(t)
	p = start(t, h.node, nil, h.flags("--page", "--node-name", "node-a")...)
	h.awaitAttached(t, p)
	if got := h.scrape(t, "/"); !bytes.Contains(got, []byte(`src="page/page.js"`)) {
		t.Errorf("with --page: got %s, want the page", got)
	}
	var state struct{ Node string }
	if err := json.Unmarshal(h.scrape(t, "/page/state"), &state); err != nil || state.Node != "node-a" {
		t.Errorf("state: got node %q, %v, want node-a", state.Node, err)
	}
	p.terminate(t)
}
