// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Pod is what a source tells of a pod. It is not changed once given to a cache.
type Pod struct {
	flows.Pod // Zone is ignored: it is the node's
	// Addresses are those of its status; HostNetwork pods own none of them.
	Addresses   []netip.Addr
	HostNetwork bool
	// Containers are those of a pod of this node that has several, each with the id that
	// its last start has given it.
	Containers []Container
	// StaticUID is the UID by which the kubelet knows the static pod that this one
	// mirrors, empty of any other.
	StaticUID string
	// Interface names the device on the host, empty when not known.
	Interface string
	// Started is since when it has its first addresses, zero for always.
	Started time.Time
	// Finished says that it will run no more. Ended is then when its containers
	// ended, zero when that is not known.
	Finished bool
	Ended    time.Time
	// Leaving says that its deletion was asked for.
	Leaving bool
	// Over are the bounds that the API's object was beyond.
	Over Bounds
}

// podEntry is a pod in the cache.
type podEntry struct {
	*Pod
	*holder
	containers []Container // those that ended included
}

// LocalPod is a pod of this node.
type LocalPod struct {
	UID, Namespace, Name string
	HostNetwork          bool
	// Running is false when it has finished, or has no address yet.
	Running bool
}

// SetPod tells of a pod that is new or has changed.
func (c *Cache) SetPod(p *Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	old := c.pods[p.UID]
	entry := &podEntry{Pod: p}
	if old != nil {
		entry.holder = old.holder
		c.leaveNode(old)
	} else {
		entry.holder = &holder{rank: rankPod}
	}
	rememberContainers(entry, old)
	c.pods[p.UID] = entry
	c.joinNode(entry)
	c.describePod(entry)
	c.movePod(old, entry, now)
	c.excess.note("pod", p.Namespace, p.Name, p.Over)
}

// DeletePod tells that a pod is gone, with the last that was known of it.
func (c *Cache) DeletePod(p *Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	entry := c.pods[p.UID]
	if entry == nil {
		return
	}
	c.leaveNode(entry)
	delete(c.pods, p.UID)
	c.keepContainers(entry, now)
	for _, address := range entry.owned() {
		c.endPodClaim(entry.holder, address, p, now)
	}
}

// movePod ends the claims of addresses that a pod lost and opens those of
// addresses it got.
func (c *Cache) movePod(old, entry *podEntry, now int64) {
	from := nanoseconds(entry.Started)
	var had []netip.Addr
	if old != nil {
		had, from = old.owned(), now // another sandbox than the first
		if len(had) == 0 {
			from = nanoseconds(entry.Started)
		}
	}
	owned := entry.owned()
	for _, address := range without(had, owned) {
		c.endPodClaim(entry.holder, address, entry.Pod, now)
	}
	if old == nil && entry.Finished && (entry.Ended.IsZero() || entry.Ended.UnixNano() < now-int64(c.history)) {
		return // it ended before anybody asks, or nobody knows when
	}
	for _, address := range without(owned, had) {
		c.claims.open(address, claim{holder: entry.holder, from: from}, now)
	}
	if entry.Finished {
		for _, address := range owned {
			c.endPodClaim(entry.holder, address, entry.Pod, now)
		}
	}
}

func (c *Cache) endPodClaim(h *holder, address netip.Addr, p *Pod, now int64) {
	if p.Ended.IsZero() {
		c.claims.end(address, h, now, now, false)
		return
	}
	c.claims.end(address, h, p.Ended.UnixNano()+rounding, now, true)
}

// owned are the addresses that are the pod's own.
func (p *Pod) owned() []netip.Addr {
	if p.HostNetwork {
		return nil
	}
	return p.Addresses
}

// describePod builds what queries about a pod return.
func (c *Cache) describePod(e *podEntry) {
	zone := c.zone(e.Node)
	e.holder.started, e.holder.leaving = nanoseconds(e.Started), e.Leaving
	e.holder.owner = &flows.Owner{
		Kind: flows.PeerPod, Namespace: e.Namespace,
		Name: cmp.Or(e.Workload.Name, e.Name), WorkloadType: e.Workload.Type,
		Pod: e.Name, Node: e.Node, Zone: zone,
	}
	e.holder.pod = nil
	if c.isLocal(e.Pod) {
		pod := e.Pod.Pod
		pod.Zone = zone
		e.holder.pod = &pod
	}
}

func (c *Cache) isLocal(p *Pod) bool { return p.Node == c.here }

// LocalPods returns the pods of this node, in no order.
func (c *Cache) LocalPods() []LocalPod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var local []LocalPod
	node := c.nodes[c.here]
	if node == nil {
		return nil
	}
	for e := range node.pods {
		local = append(local, LocalPod{
			UID: e.UID, Namespace: e.Namespace, Name: e.Name, HostNetwork: e.HostNetwork,
			Running: !e.Finished && len(e.Addresses) > 0,
		})
	}
	return local
}

// nanoseconds returns a time as claims hold it.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return beginning
	}
	return t.UnixNano()
}

// localPod returns the pod of this node with the UID, nil if there is none.
func (c *Cache) localPod(uid string) *flows.Pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.pods[uid]; e != nil {
		return e.holder.pod
	}
	return nil
}
