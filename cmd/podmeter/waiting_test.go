// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
)

// What waits for a pod is listed with its interface and the address that a pod would have to
// have, in the status and for the page, until there is such a pod.
func TestAgentListsWhatWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	file := filepath.Join(h.dir, "pods.yaml")
	write := func(address string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("pods:\n- {name: a, namespace: x, ips: ["+address+"]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("203.0.113.9")
	p := start(t, h.node, nil, h.flags("--page", "--static-file", file)...)
	h.awaitMetered(t, p)
	h.exchange(t, 40, 30)
	const least = 70 * 142 // of the datagrams alone
	status := h.await(t, p, "the bytes wait", func(s *agent.Status) bool { return len(s.Waiting) == 1 && s.Waiting[0].Bytes >= least })
	got := status.Waiting[0]
	if got.Name != "veth0" || strings.Join(got.Needs, " ") != "198.51.100.2" || got.Since.IsZero() || !got.Gone.IsZero() {
		t.Errorf("got %+v, want veth0 and 198.51.100.2", got)
	}
	var page struct {
		UnboundBytes uint64
		Waiting      []struct{ Interface string }
	}
	if err := json.Unmarshal(h.scrape(t, "/page/state"), &page); err != nil || len(page.Waiting) != 1 || page.UnboundBytes < least ||
		page.Waiting[0].Interface != "veth0" {
		t.Errorf("the page: got %+v, %v", page, err)
	}
	write("198.51.100.2")
	if err := p.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.await(t, p, "nothing waits any more", func(s *agent.Status) bool {
		return len(s.Waiting) == 0 && len(s.Interfaces) == 1 && s.Interfaces[0].Pod == "a" && s.UnboundBytes == 0
	})
	p.terminate(t)
}
