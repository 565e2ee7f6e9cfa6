// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
)

// TestStaticIdentity reads the file as the agent does.
func TestStaticIdentity(t *testing.T) {
	text := must(staticIdentity(append(startPods(), laterPods()...)))(t)
	file := filepath.Join(t.TempDir(), "static.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := identity.NewCache(identity.CacheOptions{})
	if _, err := identity.NewStatic(cache, file); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	now := time.Now()
	for _, c := range []struct {
		address netip.Addr
		kind    flows.PeerKind
		name    string
	}{
		{webPod(3).addresses[0], flows.PeerPod, "web"},
		{apiPod().addresses[1], flows.PeerPod, "api"},
		{nodeAddresses()[0], flows.PeerNode, nodeName},
		{netip.MustParseAddr("10.244.1.250"), flows.PeerCluster, ""},
		{zurich, flows.PeerExternal, ""},
		{wellington, flows.PeerExternal, ""},
	} {
		owner := cache.Owner(flows.Query{Address: c.address, First: now, Last: now})
		if owner.Kind != c.kind || owner.Name != c.name {
			t.Errorf("%s: got %v %q, want %v %q", c.address, owner.Kind, owner.Name, c.kind, c.name)
		}
	}
}
