// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"

	"github.com/podmeter/podmeter/flows"
)

// rank orders claims of one address by who vouches for them: the lowest that an
// address has decides. Between two of them this node's own addresses have their
// place, see [Cache.Owner].
type rank uint8

const (
	// rankPodHere is a pod of this node, by the word of its own kubelet.
	rankPodHere rank = iota
	// rankClusterIP is a Service's own address, which the API server gives out.
	rankClusterIP
	// rankPodInRange is a pod whose address is in its node's range, which the API
	// server has given to no other node.
	rankPodInRange
	// rankPod is a pod whose node has no range, or that of a static file.
	rankPod
	// rankRoaming is a stray in another part of the cluster's ranges: the CNI plugin may
	// give them out itself.
	rankRoaming
	// rankShared is an address of a load balancer, by a Service's status, and its ports.
	rankShared
	// rankNode is what a node's own status and annotations say.
	rankNode
	// rankStray is a pod outside of its node's range: only its kubelet says so.
	rankStray
	// rankExternalIP is spec.externalIPs of a Service and its ports: whoever may create a
	// Service can claim any address there.
	rankExternalIP
	// rankAnnounced is a pod's annotation of its further networks: whoever may patch a pod
	// can claim any address there.
	rankAnnounced
)

func (r rank) ofPod() bool {
	return r != rankClusterIP && r <= rankRoaming || r == rankStray
}

func (r rank) ofPorts() bool { return r == rankShared || r == rankExternalIP }

// podRank returns the rank of a pod's claim of an address. Whether a stray is roaming
// depends on all nodes' ranges, and is decided when it is asked for.
func (c *Cache) podRank(p *Pod, address netip.Addr) rank {
	if c.isLocal(p) {
		return rankPodHere
	}
	node := c.nodes[p.Node]
	if p.Stated || node == nil || node.Node == nil {
		return rankPod
	}
	found := rankPod
	for _, r := range node.PodRanges {
		if r.Contains(address) {
			return rankPodInRange
		}
		if family(r.Addr()) == family(address) {
			found = rankStray
		}
	}
	return found
}

// rerank judges a pod's claims again: its node's ranges may have become known, or its
// deletion been asked for. What came of the judgement before is undone from a time on.
func (c *Cache) rerank(e *podEntry, at, now int64) {
	for _, address := range e.owned() {
		c.claims.rerank(address, e.holder, c.podRank(e.Pod, address), at, now)
	}
}

// strayRank returns what a stray's claim of an address counts as.
func (c *Cache) strayRank(list []claim, address netip.Addr) rank {
	for i := range list {
		if list[i].rank != rankStray {
			continue
		}
		if _, within := c.cluster.lookup(address); within {
			return rankRoaming
		}
		break
	}
	return rankStray
}

// ownerBy returns the owner that a claim of a rank shows.
func (h *holder) ownerBy(r rank) *flows.Owner {
	if r == rankAnnounced && h.announcer != nil {
		return h.announcer
	}
	return h.owner
}

// decide returns the owner of an address, given by whom it is claimed.
func (c *Cache) decide(address netip.Addr, claimed *flows.Owner, r rank) *flows.Owner {
	_, onHost := c.host[address]
	certain := r == rankPodHere || r == rankClusterIP || r == rankShared
	switch {
	case claimed != nil && (certain || !onHost && r <= rankNode):
		return claimed
	case onHost:
		return c.hostOwner
	}
	named, isNamed := c.named.lookup(address)
	outside := flows.KindOf(address) == flows.PeerExternal
	switch {
	case claimed != nil && r == rankStray && (isNamed || !outside):
		return claimed
	case isNamed:
		return named
	}
	if _, ok := c.cluster.lookup(address); ok {
		return ownerCluster
	}
	if claimed != nil && r >= rankExternalIP && !outside {
		return claimed
	}
	return special(address)
}

// owner returns who had the address from first to last, and by what rank; nil if nobody
// had. stray is what rankStray counts as.
func (c *claims) owner(address netip.Addr, q *flows.Query, first, last int64, stray rank) (*flows.Owner, rank) {
	list := c.byAddress[address]
	if len(list) == 0 {
		return nil, 0
	}
	if owner, r := pick(list, q, first, last, 0, stray); owner != nil {
		return owner, r
	}
	return pick(list, q, first, last, tolerance, stray)
}

// choice is the best of the claims that were looked at.
type choice struct {
	best            *holder
	rank            rank
	from, to, began int64
	// told is since when the claim is known, free when the address may have become another's.
	told, free int64
	// departing is whether the best is of a pod of this node that is being deleted, and
	// contested whether other pods claim the address too, by whatever rank.
	departing, contested bool
	tied                 bool
}

// take looks at one more claim, which began at a time of what is asked about.
func (t *choice) take(cl *claim, r rank, began int64) {
	contested := t.best != nil && (t.contested || cl.holder != t.best) && r.ofPod() && t.rank.ofPod()
	switch {
	case t.best == nil, r < t.rank, r == t.rank && r.ofPorts() && cl.holder != t.best && began < t.began:
		*t = choice{best: cl.holder, rank: r, from: cl.from, to: cl.to, began: began, told: cl.told, free: cl.free()}
		t.departing = r == rankPodHere && cl.asserted() && cl.holder.leaving
	case r == rankNode && t.rank == rankNode && cl.holder.outranks(t.best):
		*t = choice{best: cl.holder, rank: r, from: cl.from, to: cl.to, began: began, told: cl.told, free: cl.free()}
	case r > t.rank, r == rankNode && t.best.outranks(cl.holder):
	case cl.holder == t.best:
		t.from, t.to, t.began = min(t.from, cl.from), max(t.to, cl.to), min(t.began, began)
		t.told, t.free = min(t.told, cl.told), max(t.free, cl.free())
	case !r.ofPorts() || began == t.began:
		t.tied = true
	}
	t.contested = t.contested || contested
}

// certain reports whether the best had the address from first to last. It is not if that
// was a part of a longer time, so that others may have had it before or after. Where other
// pods claim it, it is from when the best was told to have it until its end: a pod may
// start long before it gets its address. While a pod is being deleted another one may
// have it.
func (t *choice) certain(first, last int64) bool {
	if t.tied || first < t.from-tolerance || last > t.to+tolerance {
		return false
	}
	return !t.contested || !t.departing && t.told <= first && last < t.free
}

// pick returns the one owner among claims that touch the time, give or take
// slack, by the lowest rank; ownerAmbiguous if that is not certain. Of several Services
// that share a port of an address the first one has it; if none was first, none does.
func pick(list []claim, q *flows.Query, first, last, slack int64, stray rank) (*flows.Owner, rank) {
	for lowest := rank(0); ; lowest++ {
		var t choice
		for i := range list {
			cl, r := &list[i], list[i].rank
			if r == rankStray {
				r = stray
			}
			if r >= lowest && cl.is(q) && cl.touches(first-slack, last+slack) {
				t.take(cl, r, cl.beganWith(q))
			}
		}
		certain := t.certain(first, last)
		switch lowest = t.rank; {
		case t.best == nil:
			return nil, 0
		case certain:
			return t.best.ownerBy(t.rank), t.rank
		case t.rank >= rankExternalIP, t.rank.ofPorts() && t.tied: // the address is what it is without
		default:
			return ownerAmbiguous, t.rank
		}
	}
}

// settle decides between the open claims of pods of one rank: an address is given to
// a pod only when nobody has it any more. Who yields comes back when the others are
// gone, at that time: until then it is the others'. Of one node's pods the one that
// began last has it, as its kubelet may tell late of the end of the one before. Of pods
// of several nodes, of which none knows the other's, those that are being deleted
// yield, and else who came later.
func (c *claims) settle(address netip.Addr, r rank, at, now int64) {
	list := c.byAddress[address]
	var back []*holder
	staying, first := standing(list, r)
	for i := range list {
		cl := &list[i]
		if cl.rank != r || !cl.asserted() {
			continue
		}
		isFirst, isLast := cl.place(list, staying, first)
		switch has := isFirst && isLast; {
		case has && cl.yielded:
			back = append(back, cl.holder)
		case !has && !cl.yielded:
			cl.yielded, cl.to = true, max(cl.from, now)
		}
	}
	for _, h := range back {
		c.comeBack(address, h, at, now)
	}
}

// comeBack lets a claim that had yielded count again: from a time on, or as if it had
// never yielded if that is the beginning.
func (c *claims) comeBack(address netip.Addr, h *holder, at, now int64) {
	list := c.byAddress[address]
	cl := &list[slices.IndexFunc(list, func(cl claim) bool { return cl.holder == h && cl.yielded })]
	before := *cl
	cl.to, cl.yielded = forever, false
	if at == beginning {
		return
	}
	if cl.from = max(cl.from, at); before.to == beginning {
		return
	}
	before.yielded = false
	c.byAddress[address] = append(list, before)
	c.over(address, before.holder, before.rank, now)
}

// rerank gives an object's claims of an address another rank. Claims that yielded to it
// come back from a time on.
func (c *claims) rerank(address netip.Addr, h *holder, r rank, at, now int64) {
	list := c.byAddress[address]
	old := r
	for i := range list {
		if cl := &list[i]; cl.holder == h && cl.rank.ofPod() {
			old, cl.rank = cl.rank, r
		}
	}
	c.settle(address, r, at, now)
	if old != r {
		c.settle(address, old, at, now)
	}
}

// standing reports whether there is a claim of a pod that is not being deleted, and
// when the first of these began, else of all.
func standing(list []claim, r rank) (staying bool, first int64) {
	first = forever
	for i := range list {
		cl := &list[i]
		if cl.rank != r || !cl.asserted() {
			continue
		}
		if stays := !cl.holder.leaving; stays && !staying {
			staying, first = true, cl.began
		} else if stays == staying {
			first = min(first, cl.began)
		}
	}
	return staying, first
}

// place reports whether the pods of a claim's node were the first to have the address,
// and whether it is the last of them.
func (c *claim) place(list []claim, staying bool, first int64) (isFirst, isLast bool) {
	isLast = c.holder.leaving != staying
	for i := range list {
		other := &list[i]
		if other.rank != c.rank || !other.asserted() || other.holder.leaving == staying || other.node() != c.node() {
			continue
		}
		isLast = isLast && other.began <= c.began
		isFirst = isFirst || other.began == first
	}
	return isFirst, isLast
}
