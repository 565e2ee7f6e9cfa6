// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// defaultHistory is how long owners that ended are remembered.
const defaultHistory = time.Hour

// CacheOptions configure a [Cache].
type CacheOptions struct {
	// Node is this node's name; pods with it are local.
	Node string
	// History is how long an owner is remembered after it was seen to end, one
	// hour if 0. A flow that is older finds only who came later.
	History time.Duration
	// ClusterRanges are pod and service ranges that the source does not tell.
	ClusterRanges []netip.Prefix
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Logger says once of each bound that an object was beyond it; nil for none.
	Logger *slog.Logger
}

// Cache is the directory of owners. What the node and the API server vouch for goes
// before what others say of themselves: the kind of an address is that of the first of
// these that it belongs to:
//
//  1. a pod of this node that has it in its status;
//  2. a service, by ClusterIP;
//  3. any other pod that has it in its status: one whose node has it in its range before
//     others. Not if it is this host's;
//  4. a service, by the load balancer's address in its status, with protocol and port;
//  5. this host: every address of its interfaces but loopback;
//  6. a node: its addresses, those of its tunnels and the gateway of its pod ranges;
//  7. a pod that has it in its status, outside of all ranges though its node has one: not
//     if the address would be external;
//  8. the longest named range (cidr);
//  9. a pod or service range of the cluster (cluster);
//  10. a service, by externalIPs with protocol and port, if the address is private;
//  11. a pod, by the annotation of its further networks, if the address is private;
//  12. a special range: link_local (link-local, loopback, unspecified),
//     multicast (and the limited broadcast address), private (RFC 1918,
//     RFC 6598, RFC 4193);
//  13. everything else is external.
//
// A named range of 0.0.0.0/0 therefore takes all that 1 to 7 leave. A node's port
// of a service is the node, and the broadcast address of a subnet is of the kind
// of that subnet. Of two that have it by the same rule none has, but: of Services the
// first one has it, of nodes the one that is ready, or the younger one, of the pods of one
// node the last one, of those of several nodes the first one that is not being deleted.
type Cache struct {
	history time.Duration
	clock   func() time.Time

	mu sync.RWMutex
	// times are those of claims and queries.
	times  timeline
	claims claims
	named  ranges[*flows.Owner]
	// cluster counts who named a range: several nodes may.
	cluster ranges[int]
	host    map[netip.Addr]struct{}
	// here is this node; hostOwner owns the host's addresses.
	here      string
	hostOwner *flows.Owner

	pods     map[string]*podEntry     // by UID
	gone     []gonePod                // of this node, oldest first
	services map[string]*serviceEntry // by UID
	nodes    map[string]*nodeEntry    // by name
	external external                 // of services

	excess excess
}

// NewCache returns a cache that knows only this node's name and the ranges of
// its options.
func NewCache(options CacheOptions) *Cache {
	c := &Cache{
		history: options.History, clock: options.Now,
		claims:   claims{byAddress: make(map[netip.Addr][]claim)},
		pods:     make(map[string]*podEntry),
		services: make(map[string]*serviceEntry),
		nodes:    make(map[string]*nodeEntry),
		excess:   excess{logger: options.Logger},
	}
	if c.history == 0 {
		c.history = defaultHistory
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	c.times = newTimeline(c.clock())
	for _, prefix := range options.ClusterRanges {
		c.countRange(prefix, 1)
	}
	c.setHere(options.Node)
	return c
}

// Owner implements [flows.Directory]. A query without times is about now.
func (c *Cache) Owner(q flows.Query) *flows.Owner {
	address := q.Address.Unmap()
	c.mu.RLock()
	defer c.mu.RUnlock()
	first, last := c.bounds(q.First, q.Last)
	claimed, r := c.claims.owner(address, &q, first, last, c.strayRank(c.claims.byAddress[address], address))
	return c.decide(address, claimed, r)
}

// LocalPod implements [flows.Directory]. The time is that of an interface, which
// is made after its pod has started and goes with it. While a pod is being
// deleted the next may have its address already, and the answer is nil.
func (c *Cache) LocalPod(address netip.Addr, from, to time.Time) *flows.Pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	first, last := c.bounds(from, to)
	return c.claims.localPod(address.Unmap(), first, last)
}

// Here implements [flows.Directory].
func (c *Cache) Here() (node, zone string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.hostOwner.Node, c.hostOwner.Zone
}

// Counts returns the number of objects known, by kind: pod, service, node, cidr.
func (c *Cache) Counts() map[string]int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	nodes := 0
	for _, e := range c.nodes {
		if e.Node != nil {
			nodes++
		}
	}
	return map[string]int{
		"pod": len(c.pods), "service": len(c.services),
		"node": nodes, "cidr": len(c.named.values),
	}
}

// bounds returns the times of a query as claims hold them, for what is zero now. The caller
// holds mu.
func (c *Cache) bounds(first, last time.Time) (int64, int64) {
	switch {
	case first.IsZero() && last.IsZero():
		first = c.clock()
		last = first
	case first.IsZero():
		first = last
	case last.IsZero():
		last = first
	}
	return c.times.at(first), c.times.at(last)
}

// now returns the time and forgets what ended too long before. The caller
// holds mu.
func (c *Cache) now() int64 {
	now := c.times.now(c.clock())
	c.claims.forget(now - int64(c.history))
	return now
}
