// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// ServicePort is a port that a service listens on.
type ServicePort struct {
	Protocol uint8 // IP protocol number
	Port     uint16
}

// Service is what a source tells of a service. A cache keeps nothing of it but its names.
type Service struct {
	UID, Namespace, Name string
	// Addresses are the service's alone, whatever the port: its ClusterIPs.
	Addresses []netip.Addr
	// Shared are its only with its ports: those of load balancers, and in a static file
	// external ones.
	Shared []netip.Addr
	// External are spec.externalIPs, which anybody may claim who may create a service:
	// its only with its ports, and only if they are private and nobody else's.
	External []netip.Addr
	Ports    []ServicePort
	// Created is since when it has its addresses, zero for always.
	Created time.Time
	// Over are the bounds that the API's object was beyond.
	Over Bounds
}

type serviceEntry struct {
	*holder
	served
	namespace string
	// crowded is whether some of its addresses had no room for it.
	crowded bool
}

// served is what a service claims: each address of a rank once, with all ports or with
// its own. It is never changed.
type served struct {
	own, shared, external []netip.Addr // sorted
	ports                 *portSet     // of shared and external
}

// served returns what a service claims. Without ports it shares no address.
func (s *Service) served() served {
	next := served{own: sortedAddresses(s.Addresses)}
	if len(s.Ports) == 0 {
		return next
	}
	next.shared, next.external = sortedAddresses(s.Shared), sortedAddresses(s.External)
	next.external = slices.DeleteFunc(next.external, func(a netip.Addr) bool { return flows.KindOf(a) != flows.PeerPrivate })
	if len(next.shared)+len(next.external) > 0 {
		next.ports = newPortSet(s.Ports)
	}
	return next
}

func sortedAddresses(all []netip.Addr) []netip.Addr {
	all = slices.Clone(all)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// has reports whether an address is among sorted ones.
func has(sorted []netip.Addr, a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(sorted, a, netip.Addr.Compare)
	return found
}

// places is how much of the bound on external addresses it takes.
func (s *served) places() int {
	if s.ports == nil {
		return 0
	}
	return len(s.shared) + len(s.external) + len(s.ports.numbers)
}

// SetService tells of a service that is new or has changed. It costs by the service's
// size, and nothing to speak of if what it claims has not changed.
func (c *Cache) SetService(s *Service) {
	next := s.served()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := &serviceEntry{holder: &holder{}, namespace: s.Namespace}
	from := c.times.at(s.Created)
	if old := c.services[s.UID]; old != nil {
		entry.holder, entry.served, entry.crowded, from = old.holder, old.served, old.crowded, now
	}
	c.services[s.UID] = entry
	entry.holder.owner = &flows.Owner{
		Kind: flows.PeerService, Namespace: s.Namespace, Name: s.Name, Service: s.Name,
	}
	over := s.Over
	if !c.external.take(s.Namespace, next.places()-entry.places()) {
		next.shared, next.external, next.ports = nil, nil, nil
		c.external.take(s.Namespace, -entry.places())
		over |= BoundExternal
	}
	if !c.moveService(entry, next, from, now) {
		over |= BoundExternal
	}
	c.excess.note("service", s.Namespace, s.Name, over)
}

// moveService puts what a service claims in the place of what it did. It returns false
// if an address has no room for one more service.
func (c *Cache) moveService(e *serviceEntry, next served, from, now int64) (all bool) {
	had, samePorts := e.served, next.ports.equal(e.ports)
	if samePorts {
		next.ports = had.ports
	} else {
		next.ports = next.ports.following(had.ports, now)
	}
	e.served = next
	for _, a := range had.own {
		if !has(next.own, a) {
			c.claims.endRank(a, e.holder, rankClusterIP, now)
		}
	}
	for _, a := range next.own {
		if !has(had.own, a) {
			c.claims.open(a, claim{holder: e.holder, rank: rankClusterIP, from: from}, now)
		}
	}
	cl := claim{holder: e.holder, rank: rankShared, from: from, ports: next.ports}
	same := samePorts && !e.crowded
	all = c.moveShared(had.shared, next.shared, cl, same, now)
	cl.rank = rankExternalIP
	all = c.moveShared(had.external, next.external, cl, same, now) && all
	e.crowded = !all
	return all
}

// moveShared moves the claims of one rank that a service makes with its ports. same says that it has
// each address that it had with these very ports; otherwise it is looked up.
func (c *Cache) moveShared(had, next []netip.Addr, cl claim, same bool, now int64) (all bool) {
	for _, a := range had {
		if !has(next, a) {
			c.claims.endRank(a, cl.holder, cl.rank, now)
		}
	}
	all = true
	for _, a := range next {
		switch {
		case has(had, a) && (same || c.claims.setPorts(a, cl.holder, cl.rank, cl.ports, now)):
		case c.claims.sharers(a, cl.rank) >= maxSharers:
			all = false
		default:
			c.claims.open(a, cl, now)
		}
	}
	return all
}

// DeleteService tells that a service is gone.
func (c *Cache) DeleteService(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := c.services[uid]
	if entry == nil {
		return
	}
	delete(c.services, uid)
	c.external.take(entry.namespace, -entry.places())
	c.moveService(entry, served{}, now, now)
}

// external counts the external addresses and ports that are claimed.
type external struct {
	all         int
	byNamespace map[string]int
}

// take takes places for a namespace, or gives them back if there are less than none. It
// returns false if there is no room for all of them.
func (x *external) take(namespace string, places int) bool {
	if places > 0 && (x.all+places > maxExternal || x.byNamespace[namespace]+places > maxExternal/4) {
		return false
	}
	if x.byNamespace == nil {
		x.byNamespace = make(map[string]int)
	}
	x.all += places
	x.byNamespace[namespace] += places
	if x.byNamespace[namespace] == 0 {
		delete(x.byNamespace, namespace)
	}
	return true
}
