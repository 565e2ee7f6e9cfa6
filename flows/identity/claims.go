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

// maxHistory is how many ended claims of an address are remembered: a pod that comes and
// goes every minute has 60 in the hour that they are kept, and whoever flaps faster pushes
// out the eldest.
const maxHistory = 128

// holder is an object that has addresses.
type holder struct {
	owner *flows.Owner
	pod   *flows.Pod // only of this node
	// started is when the pod did, told when it was first heard of; leaving is set while it
	// is being deleted.
	started int64
	told    int64
	leaving bool
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
	// protocol and port limit a claim to a service's port; 0 is any.
	port     uint16
	protocol uint8
	// terminated says that the end is when the containers ended: the interface
	// lives on for a moment. Otherwise it is when the end was noticed.
	terminated bool
}

func (c *claim) touches(first, last int64) bool { return c.from <= last && first < c.to }

func (c *claim) is(q *flows.Query) bool {
	return c.protocol == 0 && c.port == 0 || c.protocol == q.Protocol && c.port == q.Port
}

// claims are who had which address when: open claims, and ended ones until they
// are forgotten.
type claims struct {
	byAddress map[netip.Addr][]claim
	// ended lists ended claims in the order in which their end was noticed.
	ended []endedClaim
}

type endedClaim struct {
	address netip.Addr
	holder  *holder
	noticed int64
}

// asserted reports whether the object makes the claim still.
func (c *claim) asserted() bool { return c.to == forever || c.yielded }

// node is the name of the pod's node.
func (c *claim) node() string { return c.holder.owner.Node }

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
	return first >= c.holder.started && last >= c.from && first < c.free() && last < c.to+tolerance
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
	return other.holder != c.holder && other.rank == c.rank &&
		other.protocol == c.protocol && other.port == c.port
}

// record adds a claim of the past.
func (c *claims) record(address netip.Addr, cl claim, now int64) {
	cl.began, cl.told = cl.from, now
	if cl.to = min(cl.to, now); cl.to <= cl.from {
		return
	}
	c.byAddress[address] = append(c.byAddress[address], cl)
	c.over(address, cl.holder, now)
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

// endPort is end for the claim of a service's port.
func (c *claims) endPort(e endpoint, h *holder, r rank, now int64) {
	i := slices.IndexFunc(c.byAddress[e.address], func(cl claim) bool {
		return cl.holder == h && cl.rank == r && cl.asserted() && cl.protocol == e.protocol && cl.port == e.port
	})
	if i >= 0 {
		c.endOne(e.address, i, now, now, false)
	}
}

// endOne ends a claim that is asserted. Of one that had yielded it may turn out that it
// had ended before; one that never had the address leaves nothing.
func (c *claims) endOne(address netip.Addr, i int, at, now int64, terminated bool) {
	cl := &c.byAddress[address][i]
	h := cl.holder
	if cl.to == beginning {
		c.remove(address, i)
		return
	}
	if at = min(at, now); at < cl.to {
		cl.to, cl.terminated = max(cl.from, at), terminated
	}
	cl.yielded = false
	c.over(address, h, now)
}

func (c *claims) remove(address netip.Addr, i int) {
	if list := c.byAddress[address]; len(list) == 1 {
		delete(c.byAddress, address)
	} else {
		c.byAddress[address] = slices.Delete(list, i, i+1)
	}
}

// over notes that a claim has ended, to be forgotten later.
func (c *claims) over(address netip.Addr, h *holder, now int64) {
	c.ended = append(c.ended, endedClaim{address, h, now})
	list := c.byAddress[address]
	if len(list) <= maxHistory {
		return
	}
	if i := slices.IndexFunc(list, func(cl claim) bool { return !cl.asserted() }); i >= 0 {
		c.remove(address, i)
	}
}

// forget removes the claims whose end was noticed before a time.
func (c *claims) forget(before int64) {
	n := 0
	for ; n < len(c.ended) && c.ended[n].noticed < before; n++ {
		e := c.ended[n]
		i := slices.IndexFunc(c.byAddress[e.address], func(cl claim) bool { return cl.holder == e.holder && !cl.asserted() })
		if i >= 0 {
			c.remove(e.address, i)
		}
	}
	clear(c.ended[:n])
	c.ended = c.ended[n:]
}
