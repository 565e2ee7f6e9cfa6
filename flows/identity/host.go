// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"

	"github.com/podmeter/podmeter/flows"
)

// SetHostAddresses tells all addresses of this host's interfaces, instead of
// those told before. Loopback addresses are left out: every pod has its own.
func (c *Cache) SetHostAddresses(addresses []netip.Addr) {
	host := make(map[netip.Addr]struct{}, len(addresses))
	for _, a := range addresses {
		if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() {
			host[a] = struct{}{}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host = host
}

// setHere names this node. The caller holds mu, or alone has the cache.
func (c *Cache) setHere(node string) {
	before := c.here
	c.here = node
	c.describeHost()
	for _, name := range []string{before, node} {
		if e := c.nodes[name]; e != nil {
			c.rezone(e)
			c.rerankPods(e, c.now())
		}
	}
}

// describeHost builds the owner of the host's addresses.
func (c *Cache) describeHost() {
	c.hostOwner = &flows.Owner{Kind: flows.PeerNode, Name: c.here, Node: c.here, Zone: c.zone(c.here)}
}
