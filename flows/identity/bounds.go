// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// What is kept of one object, whatever it holds: an API server takes 1.5 MB of each,
// of anybody who may make one.
const (
	// maxOwnAddresses bounds the addresses of a pod, and those that are a Service's
	// alone: Kubernetes gives either one of each family.
	maxOwnAddresses = 16
	// maxNodeAddresses bounds those of a node: a cloud may list all of its network
	// cards', some 50.
	maxNodeAddresses = 256
	// maxNodeRanges bounds the pod ranges of a node: Kubernetes gives it one of each
	// family.
	maxNodeRanges = 16
	// minNodeBits4 and minNodeBits6 are the least bits of the prefix of one: a whole cluster
	// seldom has as much. Where no controller gives them out a kubelet writes what it likes.
	minNodeBits4, minNodeBits6 = 8, 32
	// maxServiceAddresses bounds a Service's external and load-balancer addresses:
	// some load balancers list every node.
	maxServiceAddresses = 256
	// maxServicePorts bounds the ports that these have: more than any but a Service
	// that stands for a range of ports.
	maxServicePorts = 1024
)

// Together an address may be that of several objects, and many objects have many.
const (
	// maxExternal bounds the external addresses and ports of all Services, each
	// counted as one; a quarter is the most that those of one namespace have. It is
	// some 20 MB, and holds 250 Services of a cluster of 500 nodes that are all listed.
	maxExternal = 1 << 17
	// maxSharers bounds the Services that share one external address: those of load
	// balancers, and besides these those of externalIPs. So it does the pods of one node
	// that have one address, and those that announce one.
	maxSharers = 256
	// maxEndedAt bounds what is remembered of one address's earlier owners, maxEnded
	// that of all addresses, for each rank: flows are read some seconds after
	// they were counted, and what ends a hundred times a second is remembered for
	// twenty minutes.
	maxEndedAt = 64
	maxEnded   = 1 << 17
	// maxEndedPorts bounds the ports that services had before, a set that several claims
	// share counted once: some 6 MB.
	maxEndedPorts = 1 << 19
	// maxGone bounds the pods of this node that are remembered for their containers.
	maxGone = 4096
)

// Bounds are those that an object was beyond: what was beyond is left out.
type Bounds uint8

// The bounds of an object.
const (
	BoundText       Bounds = 1 << iota // a name was cut or cleaned, see package plain
	BoundAddresses                     // of a pod, Service or node, or too many pods of a node have one
	BoundRanges                        // of a node
	BoundPorts                         // of a Service
	BoundContainers                    // of a pod of this node
	BoundExternal                      // the Service's external addresses found no room
	BoundCgroups                       // of this node
	BoundNetworks                      // of a pod's annotation, or it cannot be read
)

var boundNames = map[Bounds]string{
	BoundText: "text", BoundAddresses: "addresses", BoundRanges: "ranges", BoundPorts: "ports",
	BoundContainers: "containers", BoundExternal: "external", BoundCgroups: "cgroups",
	BoundNetworks: "networks",
}

// text returns a name as it is kept.
func (b *Bounds) text(s string, limit int) string {
	kept := plain.Text(s, limit)
	if kept != s {
		*b |= BoundText
	}
	return kept
}

// address appends what is an address and not there yet, while there is room.
func (b *Bounds) address(all []netip.Addr, text string, most int) []netip.Addr {
	if len(all) < most {
		return appendAddress(all, text)
	}
	if text != "" {
		*b |= BoundAddresses
	}
	return all
}

// claimed is address for what a status says, whose writer may write any: what is everybody's, as
// loopback, link-local and multicast addresses are, is nobody's by that.
func (b *Bounds) claimed(all []netip.Addr, text string, most int) []netip.Addr {
	for _, a := range appendAddress(nil, text) {
		if kind := flows.KindOf(a); kind == flows.PeerLinkLocal || kind == flows.PeerMulticast {
			return all
		}
	}
	return b.address(all, text, most)
}

// podRange returns a range of a node's pods; ok is false if it is none, or too wide.
func (b *Bounds) podRange(text string) (prefix netip.Prefix, ok bool) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, false
	}
	least := minNodeBits6
	if prefix.Addr().Is4() {
		least = minNodeBits4
	}
	if prefix.Bits() < least {
		*b |= BoundRanges
		return prefix, false
	}
	return prefix.Masked(), true
}

// without returns the addresses that others are not among. It costs by the sum of both.
func without(all, others []netip.Addr) (rest []netip.Addr) {
	if slices.Equal(all, others) {
		return nil
	}
	known := make(map[netip.Addr]struct{}, len(others))
	for _, a := range others {
		known[a] = struct{}{}
	}
	for _, a := range all {
		if _, ok := known[a]; !ok {
			rest = append(rest, a)
		}
	}
	return rest
}

// excess counts the objects that were beyond a bound, and logs the first of each.
type excess struct {
	logger *slog.Logger // nil for none
	mu     sync.Mutex
	counts map[Bounds]uint64
}

// note takes note of an object that is beyond the bounds, if there are any.
func (e *excess) note(kind, namespace, name string, bounds Bounds) {
	if bounds == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = make(map[Bounds]uint64)
	}
	for _, bound := range slices.Sorted(maps.Keys(boundNames)) {
		if bounds&bound == 0 {
			continue
		}
		if e.counts[bound]++; e.counts[bound] == 1 && e.logger != nil {
			e.logger.Warn("an object is beyond a bound, what is beyond is cut or left out; further ones are counted in podmeter_identity_bounded_total",
				"bound", boundNames[bound], "kind", kind, "namespace", namespace, "name", name)
		}
	}
}

// Bounded returns how many times an object was beyond a bound, by bound.
func (c *Cache) Bounded() map[string]uint64 {
	c.excess.mu.Lock()
	defer c.excess.mu.Unlock()
	counts := make(map[string]uint64, len(boundNames))
	for bound, name := range boundNames {
		counts[name] = c.excess.counts[bound]
	}
	return counts
}
