// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
)

const (
	// beginning and forever bound lifetimes of which an end is not known.
	beginning, forever = -1 << 62, 1 << 62
	// tolerance is how far a flow may reach beyond its owner's lifetime when
	// nobody else had the address then. API times are whole seconds of another
	// machine's clock, and packets to a pod that ended go on for a while.
	tolerance = int64(5 * time.Second)
	// rounding is how much later than told containers may have ended.
	rounding = int64(time.Second)
)

// rank orders the kinds of claims: the lowest that an address has decides.
type rank uint8

const (
	rankPod rank = iota
	rankService
	rankNode
)

// holder is an object that has addresses.
type holder struct {
	rank  rank
	owner *flows.Owner
	pod   *flows.Pod // only of this node
	// started is when the pod did; leaving is set while it is being deleted.
	started int64
	leaving bool
}

// claim says that an object had an address from one time until another, in
// nanoseconds, the second excluded.
type claim struct {
	holder   *holder
	from, to int64
	// ports are those that a service has the address with; nil is any.
	ports *portSet
	// terminated says that the end is when the containers ended: the interface
	// lives on for a moment. Otherwise it is when the end was noticed.
	terminated bool
}

func (c *claim) touches(first, last int64) bool { return c.from <= last && first < c.to }

func (c *claim) is(q *flows.Query) bool {
	return c.ports == nil || c.ports.has(ServicePort{q.Protocol, q.Port})
}

// claims are who had which address when: open claims, and ended ones until they
// are forgotten.
type claims struct {
	byAddress map[netip.Addr][]claim
	// ended lists ended claims in the order in which their end was noticed; endedOf counts
	// them by rank.
	ended   []endedClaim
	endedOf [rankNode + 1]int
}

type endedClaim struct {
	address netip.Addr
	holder  *holder
	noticed int64
}

// owner returns who had the address from first to last, nil if nobody had.
func (c *claims) owner(address netip.Addr, q flows.Query, first, last int64) *flows.Owner {
	list := c.byAddress[address]
	if len(list) == 0 {
		return nil
	}
	if owner := pick(list, &q, first, last, 0); owner != nil {
		return owner
	}
	return pick(list, &q, first, last, tolerance)
}

// pick returns the one owner among claims that touch the time, give or take
// slack; ownerAmbiguous if there are several, or if it had the address for only
// a part of a longer time, so that others may have had it before or after.
func pick(list []claim, q *flows.Query, first, last, slack int64) *flows.Owner {
	var best *holder
	var from, to int64
	ambiguous := false
	for i := range list {
		cl := &list[i]
		if !cl.is(q) || !cl.touches(first-slack, last+slack) {
			continue
		}
		switch {
		case best == nil || cl.holder.rank < best.rank:
			best, from, to, ambiguous = cl.holder, cl.from, cl.to, false
		case cl.holder == best:
			from, to = min(from, cl.from), max(to, cl.to)
		case cl.holder.rank == best.rank:
			ambiguous = true
		}
	}
	switch {
	case best == nil:
		return nil
	case ambiguous || first < from-tolerance || last > to+tolerance:
		return ownerAmbiguous
	}
	return best.owner
}

// localPod returns the pod whose interface was there from first to last, as far
// as can be told from the address: nil if that may be none or several.
func (c *claims) localPod(address netip.Addr, first, last int64) *flows.Pod {
	var found *holder
	for _, cl := range c.byAddress[address] {
		if cl.holder.pod == nil || !cl.possible(first, last) {
			continue
		}
		if cl.uncertain(last) || found != nil && found != cl.holder {
			return nil
		}
		found = cl.holder
	}
	if found == nil {
		return nil
	}
	return found.pod
}

// possible reports whether the claim's pod may be the one whose interface was
// there from first to last. An interface is made after its pod has started and
// does not outlive it by much.
func (c *claim) possible(first, last int64) bool {
	end := c.to
	if c.terminated {
		end -= rounding // the address was free for another from then on
	}
	return first >= c.holder.started && last >= c.from && first < end && last < c.to+tolerance
}

// uncertain reports whether another pod may have got the address meanwhile: this
// one is being deleted, or its end was noticed and it is not known when it was.
func (c *claim) uncertain(last int64) bool {
	if c.to == forever {
		return c.holder.leaving
	}
	return !c.terminated && last >= c.to
}

// open adds a claim that lasts until further notice.
func (c *claims) open(address netip.Addr, cl claim, now int64) {
	cl.to = forever
	list := c.byAddress[address]
	if cl.from == beginning && slices.ContainsFunc(list, cl.rivals) {
		cl.from = now // nobody knows since when, but not before now
	}
	c.byAddress[address] = append(bounded(list), cl)
	if cl.holder.rank == rankPod {
		c.handOver(address, now)
	}
}

// rivals reports whether another object of the same rank made the other claim.
func (c *claim) rivals(other claim) bool {
	return other.holder != c.holder && other.holder.rank == c.holder.rank && other.ports.meets(c.ports)
}

// sharers counts the services that claim an address with their ports.
func (c *claims) sharers(address netip.Addr) (count int) {
	list := c.byAddress[address]
	for i := range list {
		if list[i].ports != nil && list[i].to == forever {
			count++
		}
	}
	return count
}

// bounded returns the claims of an address without the eldest of those that ended, if
// these are too many: each look-up reads all.
func bounded(list []claim) []claim {
	ended := 0
	for i := range list {
		if list[i].to != forever {
			ended++
		}
	}
	if ended < maxEndedAt {
		return list
	}
	return slices.DeleteFunc(list, func(cl claim) bool {
		eldest := cl.to != forever && ended >= maxEndedAt
		if eldest {
			ended--
		}
		return eldest
	})
}

// handOver ends all pods' open claims of an address but the one that began
// last: an address is given to a pod only when nobody has it any more, and the
// deletion of the pod before may be told later.
func (c *claims) handOver(address netip.Addr, now int64) {
	list := c.byAddress[address]
	latest := int64(beginning)
	for i := range list {
		if list[i].holder.rank == rankPod && list[i].to == forever {
			latest = max(latest, list[i].from)
		}
	}
	for i := range list {
		if cl := &list[i]; cl.holder.rank == rankPod && cl.from < latest {
			c.endOne(address, cl, now, now, false)
		}
	}
}

// end ends an object's open claims of an address.
func (c *claims) end(address netip.Addr, h *holder, at, now int64, terminated bool) {
	list := c.byAddress[address]
	for i := range list {
		if list[i].holder == h {
			c.endOne(address, &list[i], at, now, terminated)
		}
	}
}

func (c *claims) endOne(address netip.Addr, cl *claim, at, now int64, terminated bool) {
	if cl.to != forever {
		return
	}
	cl.to, cl.terminated = max(cl.from, min(at, now)), terminated
	c.ended = append(c.ended, endedClaim{address, cl.holder, now})
	c.endedOf[cl.holder.rank]++
}

// forget removes the claims whose end was noticed before a time, and the eldest of a kind
// of owners that has too many: no kind's coming and going takes the memory of another's.
func (c *claims) forget(before int64) {
	n := 0
	for ; n < len(c.ended) && c.ended[n].noticed < before; n++ {
		c.drop(c.ended[n])
	}
	clear(c.ended[:n])
	c.ended = c.ended[n:]
	for r := range c.endedOf {
		if c.endedOf[r] > maxEnded {
			c.thin(rank(r), maxEnded/4)
		}
	}
}

// thin forgets a number of ended claims, the eldest of a rank.
func (c *claims) thin(r rank, number int) {
	kept := c.ended[:0]
	for _, e := range c.ended {
		if number > 0 && e.holder.rank == r {
			c.drop(e)
			number--
			continue
		}
		kept = append(kept, e)
	}
	clear(c.ended[len(kept):])
	c.ended = kept
}

// drop removes an ended claim.
func (c *claims) drop(e endedClaim) {
	c.endedOf[e.holder.rank]--
	list := c.byAddress[e.address]
	i := slices.IndexFunc(list, func(cl claim) bool { return cl.holder == e.holder && cl.to != forever })
	switch {
	case i < 0: // the address had too many
	case len(list) == 1:
		delete(c.byAddress, e.address)
	default:
		c.byAddress[e.address] = slices.Delete(list, i, i+1)
	}
}
