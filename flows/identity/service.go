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
	// Shared are its only with its ports: external and load-balancer addresses.
	Shared []netip.Addr
	Ports  []ServicePort
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

// endpoints are all that a service claims.
func (s *Service) endpoints() []endpoint {
	var all []endpoint
	for _, address := range s.Addresses {
		all = append(all, endpoint{address: address})
	}
	for _, address := range s.Shared {
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
	entry := &serviceEntry{Service: s, holder: &holder{rank: rankService}}
	from := nanoseconds(s.Created)
	var had []endpoint
	if old := c.services[s.UID]; old != nil {
		entry.holder, had, from = old.holder, old.endpoints(), now
	}
	c.services[s.UID] = entry
	entry.holder.owner = &flows.Owner{
		Kind: flows.PeerService, Namespace: s.Namespace, Name: s.Name, Service: s.Name,
	}
	c.moveService(entry, had, from, now)
}

func (c *Cache) moveService(e *serviceEntry, had []endpoint, from, now int64) {
	claimed := e.endpoints()
	for _, p := range had {
		if !slices.Contains(claimed, p) {
			c.claims.endPort(p, e.holder, now)
		}
	}
	for _, p := range claimed {
		if !slices.Contains(had, p) {
			c.claims.open(p.address, claim{holder: e.holder, from: from, protocol: p.protocol, port: p.port}, now)
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
	for _, p := range entry.endpoints() {
		c.claims.endPort(p, entry.holder, now)
	}
}
