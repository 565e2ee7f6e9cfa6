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

// holder is an object that has addresses.
type holder struct {
	owner *flows.Owner
	// announcer is the owner of the addresses that the object has by its own word alone.
	announcer *flows.Owner
	pod       *flows.Pod // only of this node
	// started is when the pod did, told when it was first heard of; leaving is set while it
	// is being deleted.
	started int64
	told    int64
	leaving bool
	// heard is when the pod was last told of without being finished.
	heard int64
	// lost is when the pod was last told to have lost an address, 0 if it never was.
	lost int64
	// created is when a node was, ready whether it says so.
	created time.Time
	ready   bool
}

// since returns from when on the pod may have an interface. A start that lay in the future
// when it was heard of is no evidence: the clock has been set back.
func (h *holder) since() int64 {
	if h.started > h.told {
		return beginning
	}
	return h.started
}

// outranks reports whether a node has an address before another that has it too: of a host
// that was renamed or made again the stale object is not ready, or the elder.
func (h *holder) outranks(o *holder) bool {
	if h.ready != o.ready {
		return h.ready
	}
	return h.created.After(o.created)
}

// claim says that an object had an address from one time until another, in
// nanoseconds, the second excluded.
type claim struct {
	holder   *holder
	rank     rank
	from, to int64
	// began is from, or that of the claim that came back as this one.
	began int64
	// told is when the claim was heard of.
	told int64
	// yielded says that the object makes the claim still, but others of its rank have had
	// the address since the end: if that is the beginning, as long as it does.
	yielded bool
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

// beganWith returns when the claim began of what a query asks about: a service may have
// the port for a shorter time than the address.
func (c *claim) beganWith(q *flows.Query) int64 {
	if c.ports == nil {
		return c.began
	}
	return max(c.began, c.ports.since(ServicePort{q.Protocol, q.Port}))
}

// claims are who had which address when: open claims, and ended ones until they
// are forgotten.
type claims struct {
	byAddress map[netip.Addr][]claim
	// ended lists ended claims in the order in which their end was noticed; endedOf counts
	// them by the rank that they had then, and endedPorts the ports of their sets.
	ended      []endedClaim
	endedOf    [rankAnnounced + 1]int
	endedPorts int
}

type endedClaim struct {
	address netip.Addr
	holder  *holder
	noticed int64
	rank    rank
}

// of reports whether it may be this claim of the address that ended: one of a pod may
// have got another rank.
func (e *endedClaim) of(c *claim) bool {
	return c.holder == e.holder && !c.asserted() && (c.rank == e.rank || c.rank.ofPod() && e.rank.ofPod())
}

// asserted reports whether the object makes the claim still.
func (c *claim) asserted() bool { return c.to == forever || c.yielded }

// node is the name of the pod's node.
func (c *claim) node() string { return c.holder.owner.Node }

// localPod returns the pod whose interface was there from first to last, as far
// as can be told from the address: nil if that may be none or several. What a pod announces
// is no evidence of its interface.
func (c *claims) localPod(address netip.Addr, first, last int64) *flows.Pod {
	var found *holder
	for _, cl := range c.byAddress[address] {
		if cl.holder.pod == nil || cl.rank == rankAnnounced || !cl.possible(first, last) {
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
	return first >= c.holder.since() && last >= c.from && first < c.free() && last < c.to+tolerance
}

// free returns from when on the address may have been another's.
func (c *claim) free() int64 {
	if c.terminated {
		return c.to - rounding
	}
	return c.to
}

// uncertain reports whether another pod may have got the address meanwhile: this
// one is being deleted, or its end was noticed and it is not known when it was.
func (c *claim) uncertain(last int64) bool {
	if c.to == forever {
		return c.holder.leaving
	}
	return !c.terminated && last >= c.to
}

// open adds a claim that lasts until further notice. Who says that it begins later than
// now has the address now: the clock of its node is ahead.
func (c *claims) open(address netip.Addr, cl claim, now int64) {
	list := c.byAddress[address]
	if cl.from == beginning && slices.ContainsFunc(list, cl.rivals) {
		cl.from = now // nobody knows since when, but not before now
	}
	cl.from = min(cl.from, now)
	cl.began, cl.to, cl.told = cl.from, forever, now
	if cl.rank.ofPod() {
		cl.to, cl.yielded = beginning, true // until it is decided
	}
	c.byAddress[address] = append(list, cl)
	if !cl.rank.ofPod() {
		return
	}
	c.settle(address, cl.rank, beginning, now)
	list = c.byAddress[address]
	opened := &list[len(list)-1]
	staying, first := standing(list, cl.rank)
	if isFirst, _ := opened.place(list, staying, first); isFirst && opened.to == beginning {
		opened.to = now // until the next one of its node had it, of which was told before
	}
}

// rivals reports whether another object of the same kind made the other claim.
func (c *claim) rivals(other claim) bool {
	if c.rank.ofPod() {
		return other.holder != c.holder && other.rank.ofPod()
	}
	return other.holder != c.holder && other.rank == c.rank && other.ports.meets(c.ports)
}

// sharers counts the services that claim an address with their ports by one rank.
func (c *claims) sharers(address netip.Addr, r rank) (count int) {
	list := c.byAddress[address]
	for i := range list {
		if list[i].rank == r && list[i].to == forever {
			count++
		}
	}
	return count
}

// ofNode counts the pods of a node that claim an address.
func (c *claims) ofNode(address netip.Addr, node string) (count int) {
	list := c.byAddress[address]
	for i := range list {
		if cl := &list[i]; cl.rank.ofPod() && cl.asserted() && cl.node() == node {
			count++
		}
	}
	return count
}

// setPorts gives a service's claim of an address other ports from now on: the claim with
// those before ends. It returns false if there is none.
func (c *claims) setPorts(address netip.Addr, h *holder, r rank, ports *portSet, now int64) bool {
	i := c.held(address, h, r)
	if i < 0 {
		return false
	}
	next := c.byAddress[address][i]
	if next.ports == ports {
		return true
	}
	next.from, next.told, next.ports = now, now, ports
	c.endOne(address, i, now, now, false)
	c.byAddress[address] = append(c.byAddress[address], next)
	return true
}

// held returns the place of the claim that an object that is no pod makes by a rank, -1
// if it makes none.
func (c *claims) held(address netip.Addr, h *holder, r rank) int {
	return slices.IndexFunc(c.byAddress[address], func(cl claim) bool { return cl.holder == h && cl.rank == r && cl.asserted() })
}

// record adds a claim of the past.
func (c *claims) record(address netip.Addr, cl claim, now int64) {
	cl.began, cl.told = cl.from, now
	if cl.to = min(cl.to, now); cl.to <= cl.from {
		return
	}
	c.byAddress[address] = append(c.byAddress[address], cl)
	c.over(address, cl.holder, cl.rank, now)
}

// end ends an object's claim of an address. Claims that yielded to it come back.
func (c *claims) end(address netip.Addr, h *holder, at, now int64, terminated bool) {
	list := c.byAddress[address]
	i := slices.IndexFunc(list, func(cl claim) bool { return cl.holder == h && cl.asserted() })
	if i < 0 {
		return
	}
	r := list[i].rank
	c.endOne(address, i, at, now, terminated)
	if at = min(at, now); terminated {
		at -= rounding // see free
	}
	if r.ofPod() {
		c.settle(address, r, at, now)
	}
}

// endRank is end for the claim of an object that is no pod.
func (c *claims) endRank(address netip.Addr, h *holder, r rank, now int64) {
	if i := c.held(address, h, r); i >= 0 {
		c.endOne(address, i, now, now, false)
	}
}

// endOne ends a claim that is asserted. Of one that had yielded it may turn out that it
// had ended before; one that never had the address leaves nothing.
func (c *claims) endOne(address netip.Addr, i int, at, now int64, terminated bool) {
	cl := &c.byAddress[address][i]
	h, r := cl.holder, cl.rank
	if cl.to == beginning {
		c.remove(address, i)
		return
	}
	if at = min(at, now); at < cl.to {
		cl.to, cl.terminated = max(cl.from, at), terminated
	}
	cl.yielded = false
	c.endedPorts += cl.ports.hold()
	c.over(address, h, r, now)
}

// removeEnded removes a claim that has ended.
func (c *claims) removeEnded(address netip.Addr, i int) {
	c.endedPorts -= c.byAddress[address][i].ports.release()
	c.remove(address, i)
}

func (c *claims) remove(address netip.Addr, i int) {
	if list := c.byAddress[address]; len(list) == 1 {
		delete(c.byAddress, address)
	} else {
		c.byAddress[address] = slices.Delete(list, i, i+1)
	}
}

// over notes that a claim has ended, to be forgotten later. The eldest of those that ended
// is forgotten now if these are too many: each look-up reads all.
func (c *claims) over(address netip.Addr, h *holder, r rank, now int64) {
	c.ended = append(c.ended, endedClaim{address, h, now, r})
	c.endedOf[r]++
	eldest, ended := -1, 0
	for i, list := 0, c.byAddress[address]; i < len(list); i++ {
		if list[i].asserted() {
			continue
		}
		if ended++; eldest < 0 {
			eldest = i
		}
	}
	if ended > maxEndedAt {
		c.removeEnded(address, eldest)
	}
}

// forget removes the claims whose end was noticed before a time, and the eldest of a rank
// that has too many: no rank's coming and going takes the memory of another's. So it does
// the eldest of services where these have too many ports.
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
	if c.endedPorts > maxEndedPorts {
		c.forgetWhere(func(e endedClaim) bool { return e.rank.ofPorts() && c.endedPorts > maxEndedPorts/4*3 })
	}
}

// thin forgets a number of ended claims, the eldest of a rank.
func (c *claims) thin(r rank, number int) {
	c.forgetWhere(func(e endedClaim) bool {
		is := number > 0 && e.rank == r
		if is {
			number--
		}
		return is
	})
}

// forgetWhere forgets the ended claims of which is says so, which is asked about the eldest first.
func (c *claims) forgetWhere(is func(endedClaim) bool) {
	kept := c.ended[:0]
	for _, e := range c.ended {
		if is(e) {
			c.drop(e)
			continue
		}
		kept = append(kept, e)
	}
	clear(c.ended[len(kept):])
	c.ended = kept
}

// drop removes an ended claim, unless the address had too many.
func (c *claims) drop(e endedClaim) {
	c.endedOf[e.rank]--
	if i := slices.IndexFunc(c.byAddress[e.address], func(cl claim) bool { return e.of(&cl) }); i >= 0 {
		c.removeEnded(e.address, i)
	}
}
