// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podmeter/podmeter/flows"
)

const (
	// networkStatus is the annotation that says which networks a pod was given beside the
	// cluster's, and with which addresses: Multus and others write it, by the de-facto standard
	// of the Network Plumbing Working Group.
	networkStatus = "k8s.v1.cni.cncf.io/network-status"
	// maxNetworkStatus bounds its size. A network takes some 200 bytes.
	maxNetworkStatus = 64 << 10
	// maxNetworks and maxSecondaryAddresses bound what is read of it, for all networks
	// together.
	maxNetworks           = 32
	maxSecondaryAddresses = 32
)

// secondaryOf returns the addresses that the annotation gives a pod beside those of its
// status. Whoever may patch the pod can write it, so that only private addresses count: the
// internet is not to be renamed, and link-local addresses are everybody's.
func (b *Bounds) secondaryOf(p *corev1.Pod, own []netip.Addr) (all []netip.Addr) {
	text := p.Annotations[networkStatus]
	if text == "" || p.Spec.HostNetwork {
		return nil
	}
	var networks []struct {
		IPs []string `json:"ips"`
	}
	if len(text) > maxNetworkStatus || json.Unmarshal([]byte(text), &networks) != nil {
		*b |= BoundNetworks
		return nil
	}
	if len(networks) > maxNetworks {
		*b |= BoundNetworks
		networks = networks[:maxNetworks]
	}
	for _, network := range networks {
		for _, ip := range network.IPs {
			if len(all) == maxSecondaryAddresses {
				*b |= BoundNetworks
				return all
			}
			all = appendSecondary(all, ip, own)
		}
	}
	return all
}

func appendSecondary(all []netip.Addr, text string, own []netip.Addr) []netip.Addr {
	for _, a := range appendAddress(nil, text) {
		if flows.KindOf(a) == flows.PeerPrivate && !slices.Contains(own, a) {
			all = appendOnce(all, a)
		}
	}
	return all
}

// announced are the addresses that a pod has by its annotation alone.
func (p *Pod) announced() []netip.Addr {
	if p.HostNetwork || p.Finished {
		return nil
	}
	return p.Secondary
}

// announce opens the claims of addresses that an annotation has come to name. Those of a pod
// that was known before begin now: the address may have been another's until then. It returns
// false if an address has no room for one more.
func (c *Cache) announce(old, entry *podEntry, now int64) (all bool) {
	from := c.startOf(entry.Pod)
	var had []netip.Addr
	if old != nil {
		had, from = old.announced(), now
		had = slices.DeleteFunc(slices.Clone(had), func(a netip.Addr) bool { // there was no room for it
			return c.claims.held(a, entry.holder, rankAnnounced) < 0
		})
	}
	all = true
	for _, address := range without(entry.announced(), had) {
		if c.claims.sharers(address, rankAnnounced) >= maxSharers {
			all = false
			continue
		}
		c.claims.open(address, claim{holder: entry.holder, rank: rankAnnounced, from: from}, now)
	}
	return all
}

// withdraw ends the claims of addresses that a pod does not announce any more.
func (c *Cache) withdraw(old *podEntry, addresses []netip.Addr, p *Pod, now int64) {
	for _, address := range addresses {
		i := c.claims.held(address, old.holder, rankAnnounced)
		switch {
		case i < 0: // there was no room for it
		case p.Ended.IsZero():
			c.claims.endOne(address, i, now, now, false)
		default:
			c.claims.endOne(address, i, c.times.at(p.Ended)+rounding, now, true)
		}
	}
}
