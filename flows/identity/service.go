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

// Service is what a source tells of a service. It is not changed once given to
// a cache.
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
}

type serviceEntry struct {
	*Service
	*holder
}

// endpoint is an address, or with a port a part of one.
type endpoint struct {
	address  netip.Addr
	protocol uint8
	port     uint16
}

// endpoints are what a service claims by a rank.
func (s *Service) endpoints(r rank) (all []endpoint) {
	shared := s.Shared
	switch r {
	case rankClusterIP:
		for _, address := range s.Addresses {
			all = append(all, endpoint{address: address})
		}
		return all
	case rankExternalIP:
		shared = s.External
	}
	for _, address := range shared {
		if r == rankExternalIP && flows.KindOf(address) != flows.PeerPrivate {
			continue
		}
		for _, port := range s.Ports {
			all = append(all, endpoint{address, port.Protocol, port.Port})
		}
	}
	return all
}

// SetService tells of a service that is new or has changed.
func (c *Cache) SetService(s *Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := &serviceEntry{Service: s, holder: &holder{}}
	from, before := nanoseconds(s.Created), &Service{}
	if old := c.services[s.UID]; old != nil {
		entry.holder, before, from = old.holder, old.Service, now
	}
	c.services[s.UID] = entry
	entry.holder.owner = &flows.Owner{
		Kind: flows.PeerService, Namespace: s.Namespace, Name: s.Name, Service: s.Name,
	}
	c.moveService(entry.holder, before, s, from, now)
}

// moveService moves claims from what a service was to what it is.
func (c *Cache) moveService(h *holder, before, is *Service, from, now int64) {
	for _, r := range [...]rank{rankClusterIP, rankShared, rankExternalIP} {
		had, claimed := before.endpoints(r), is.endpoints(r)
		for _, p := range had {
			if !slices.Contains(claimed, p) {
				c.claims.endPort(p, h, r, now)
			}
		}
		for _, p := range claimed {
			if !slices.Contains(had, p) {
				c.claims.open(p.address, claim{holder: h, rank: r, from: from, protocol: p.protocol, port: p.port}, now)
			}
		}
	}
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
	c.moveService(entry.holder, entry.Service, &Service{}, now, now)
}
