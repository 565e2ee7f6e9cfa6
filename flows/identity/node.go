// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Node is what a source tells of a node. It is not changed once given to a
// cache.
type Node struct {
	Name, Zone string
	// Addresses are the node's own, those of its tunnels and gateways included.
	Addresses []netip.Addr
	// PodRanges are the ranges that its pods have addresses of.
	PodRanges []netip.Prefix
	// Created is since when it has its addresses, zero for always.
	Created time.Time
	// Ready is what its condition of that name says.
	Ready bool
	// Over are the bounds that the API's object was beyond.
	Over Bounds
}

// nodeEntry is a node in the cache. It exists without a Node while pods name it.
type nodeEntry struct {
	*Node
	*holder
	pods map[*podEntry]struct{}
	// mirrors are those of them that say that they mirror a static pod, by its UID.
	mirrors map[string]map[*podEntry]struct{}
}

// SetNode tells of a node that is new or has changed.
func (c *Cache) SetNode(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := c.node(n.Name)
	old := entry.Node
	entry.Node = n
	entry.holder.owner = &flows.Owner{Kind: flows.PeerNode, Name: n.Name, Node: n.Name, Zone: n.Zone}
	entry.holder.created, entry.holder.ready = n.Created, n.Ready
	c.moveNode(entry, old, now)
	if old == nil || old.Zone != n.Zone {
		c.rezone(entry)
	}
	c.excess.note("node", "", n.Name, n.Over)
}

// DeleteNode tells that a node is gone.
func (c *Cache) DeleteNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := c.nodes[name]
	if entry == nil || entry.Node == nil {
		return
	}
	old := entry.Node
	entry.Node = nil
	c.moveNode(entry, old, now)
	entry.holder = &holder{} // what ended keeps the old one
	c.rezone(entry)
	c.dropNode(name)
}

// moveNode moves addresses and ranges from what a node was to what it is.
func (c *Cache) moveNode(e *nodeEntry, old *Node, now int64) {
	from, is := int64(beginning), &Node{}
	if e.Node != nil {
		from, is = c.times.at(e.Created), e.Node
	}
	if old == nil {
		old = &Node{}
	} else {
		from = now
	}
	for _, a := range without(old.Addresses, is.Addresses) {
		c.claims.end(a, e.holder, now, now, false)
	}
	for _, a := range without(is.Addresses, old.Addresses) {
		c.claims.open(a, claim{holder: e.holder, rank: rankNode, from: from}, now)
	}
	for _, prefix := range old.PodRanges {
		c.countRange(prefix, -1)
	}
	for _, prefix := range is.PodRanges {
		c.countRange(prefix, 1)
	}
	if !slices.Equal(old.PodRanges, is.PodRanges) {
		c.rerankPods(e, now)
	}
}

// rerankPods judges the claims of a node's pods again, as if what is known now of the
// node had been known before.
func (c *Cache) rerankPods(e *nodeEntry, now int64) {
	for p := range e.pods {
		c.rerank(p, beginning, now)
	}
}

// countRange counts who named a range of the cluster.
func (c *Cache) countRange(prefix netip.Prefix, by int) {
	prefix = prefix.Masked()
	if n := c.cluster.values[prefix] + by; n > 0 {
		c.cluster.set(prefix, n)
	} else {
		c.cluster.remove(prefix)
	}
}

// node returns the entry of a node, made if need be.
func (c *Cache) node(name string) *nodeEntry {
	entry := c.nodes[name]
	if entry == nil {
		entry = &nodeEntry{holder: &holder{}, pods: make(map[*podEntry]struct{})}
		c.nodes[name] = entry
	}
	return entry
}

// dropNode forgets a node that nothing tells of any more.
func (c *Cache) dropNode(name string) {
	if e := c.nodes[name]; e.Node == nil && len(e.pods) == 0 {
		delete(c.nodes, name)
	}
}

func (c *Cache) joinNode(p *podEntry) {
	node := c.node(p.Node)
	node.pods[p] = struct{}{}
	if p.StaticUID == "" {
		return
	}
	if node.mirrors == nil {
		node.mirrors = make(map[string]map[*podEntry]struct{})
	}
	if node.mirrors[p.StaticUID] == nil {
		node.mirrors[p.StaticUID] = make(map[*podEntry]struct{})
	}
	node.mirrors[p.StaticUID][p] = struct{}{}
}

func (c *Cache) leaveNode(p *podEntry) {
	node := c.node(p.Node)
	delete(node.pods, p)
	if mirrors := node.mirrors[p.StaticUID]; mirrors != nil {
		if delete(mirrors, p); len(mirrors) == 0 {
			delete(node.mirrors, p.StaticUID)
		}
	}
	c.dropNode(p.Node)
}

func (c *Cache) zone(node string) string {
	if e := c.nodes[node]; e != nil && e.Node != nil {
		return e.Zone
	}
	return ""
}

// rezone rebuilds what follows from the zone of a node.
func (c *Cache) rezone(e *nodeEntry) {
	for p := range e.pods {
		c.describePod(p)
	}
	c.describeHost()
}
