// SPDX-License-Identifier: Apache-2.0

package identity

import (
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
	// Secondary are those that only its annotation tells, by the word of who may write it.
	Secondary []netip.Addr
	// Containers are those of a pod of this node that has several, each with the id that
	// its last start has given it.
	Containers []Container
	// StaticUID is the UID by which the kubelet knows the static pod that this one
	// mirrors, empty of any other.
	StaticUID string
	// Interface names the device on the host, empty when not known.
	Interface string
	// Created is when the API server took it, zero if that is not known.
	Created time.Time
	// Started is since when it has its first addresses, zero for always.
	Started time.Time
	// Finished says that it will run no more. Ended is then when its containers
	// ended, zero when that is not known.
	Finished bool
	Ended    time.Time
	// Leaving says that its deletion was asked for.
	Leaving bool
	// Idle says that none of its containers runs: each waits for its image, or to be started
	// again, or has ended. A runtime may keep no process of its own for the pod meanwhile.
	Idle bool
	// Over are the bounds that the API's object was beyond.
	Over Bounds
	// Stated says that its addresses are the user's word, and not its kubelet's.
	Stated bool
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
		c.withdraw(old, without(old.announced(), p.announced()), p, now)
	} else {
		entry.holder = &holder{told: now}
	}
	if old == nil || !old.Started.Equal(p.Started) { // else it is as it was when the clock was that of its start
		entry.holder.started = c.times.at(p.Started)
	}
	rememberContainers(entry, old)
	c.pods[p.UID] = entry
	c.joinNode(entry)
	c.describePod(entry)
	over := p.Over
	if !c.movePod(old, entry, now) {
		over |= BoundAddresses
	}
	if !c.announce(old, entry, now) {
		over |= BoundNetworks
	}
	c.excess.note("pod", p.Namespace, p.Name, over)
	c.rerank(entry, now, now)
	if !p.Finished {
		entry.holder.heard = now
	}
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
	c.keepGone(entry, now)
	for _, address := range entry.owned() {
		c.endPodClaim(entry.holder, address, p, now)
	}
	c.withdraw(entry, entry.announced(), p, now)
}

// movePod ends the claims of addresses that a pod lost and opens those of
// addresses it got. It returns false if an address has no room for one more pod of its node.
func (c *Cache) movePod(old, entry *podEntry, now int64) (all bool) {
	from := c.startOf(entry.Pod)
	var had []netip.Addr
	if old != nil {
		had, from = old.owned(), now // another sandbox than the first
		if len(had) == 0 {
			from = entry.holder.notBefore(c.startOf(entry.Pod))
		}
	}
	owned := entry.owned()
	for _, address := range without(had, owned) {
		c.endPodClaim(entry.holder, address, entry.Pod, now)
		entry.holder.lost = now
	}
	all = true
	for _, address := range without(owned, had) {
		cl := claim{holder: entry.holder, rank: c.podRank(entry.Pod, address), from: from}
		switch {
		case entry.Finished:
			c.recordPodClaim(old, entry.Pod, address, cl, now)
		case c.claims.ofNode(address, entry.Node) >= maxSharers:
			all = false
		default:
			c.claims.open(address, cl, now)
		}
	}
	if entry.Finished {
		for _, address := range owned {
			c.endPodClaim(entry.holder, address, entry.Pod, now)
		}
	}
	return all
}

// notBefore returns since when a pod that started at a time can have an address that it is told to have now: if
// it lost one before, this is another sandbox's.
func (h *holder) notBefore(started int64) int64 {
	if h.lost == 0 {
		return started
	}
	return max(started, h.lost)
}

// startOf returns since when a pod can have an address: not before the API server took
// it, whatever its kubelet says, unless it is the mirror of a static pod of this node.
func (c *Cache) startOf(p *Pod) int64 {
	if p.Started.Before(p.Created) && !(p.StaticUID != "" && c.isLocal(p)) {
		return c.times.at(p.Created)
	}
	return c.times.at(p.Started)
}

// recordPodClaim takes note of an address that a pod has in its status only when it has
// ended: it may be another's by now. If it had ended before, its addresses are known.
func (c *Cache) recordPodClaim(old *podEntry, p *Pod, address netip.Addr, cl claim, now int64) {
	if old != nil && old.Finished || p.Ended.IsZero() || c.times.at(p.Ended) < now-int64(c.history) {
		return
	}
	cl.to, cl.terminated = c.times.at(p.Ended)+rounding, true
	c.claims.record(address, cl, now)
}

func (c *Cache) endPodClaim(h *holder, address netip.Addr, p *Pod, now int64) {
	if p.Ended.IsZero() || c.isBehind(h, p) {
		c.claims.end(address, h, now, now, false)
		return
	}
	c.claims.end(address, h, c.times.at(p.Ended)+rounding, now, true)
}

// isBehind reports whether a pod says that it ended before it was last told of as one that has not: the
// clock of its node is behind, and its end is no evidence. That of this node is the agent's.
func (c *Cache) isBehind(h *holder, p *Pod) bool {
	return !c.isLocal(p) && c.times.at(p.Ended)+int64(newsAge) < h.heard
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
	zone, workload := c.zone(e.Node), e.OwnWorkload()
	e.holder.leaving = e.Leaving
	e.holder.owner = &flows.Owner{
		Kind: flows.PeerPod, Namespace: e.Namespace,
		Name: workload.Name, WorkloadType: workload.Type,
		Pod: e.Name, Node: e.Node, Zone: zone,
	}
	e.holder.announcer = nil
	if len(e.announced()) > 0 {
		announced := *e.holder.owner
		announced.Announced = true
		e.holder.announcer = &announced
	}
	e.holder.pod = nil
	if c.isLocal(e.Pod) {
		pod := e.Pod.Pod
		pod.Zone, pod.Workload = zone, workload
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
		local = append(local, e.local())
	}
	return local
}

func (e *podEntry) local() LocalPod {
	return LocalPod{
		UID: e.UID, Namespace: e.Namespace, Name: e.Name, HostNetwork: e.HostNetwork,
		Running: !e.Finished && len(e.Addresses) > 0,
	}
}

// runningPod returns the pod of this node that a cgroup calls so, and whether it runs, with a
// container that does, and is not being deleted.
func (c *Cache) runningPod(uid string) (pod LocalPod, running bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.podByCgroup(uid)
	if e == nil || c.pods[e.UID] != e || !c.isLocal(e.Pod) {
		return LocalPod{}, false
	}
	return e.local(), e.runs()
}

// runsPods reports whether there is such a pod.
func (c *Cache) runsPods() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	node := c.nodes[c.here]
	if node == nil {
		return false
	}
	for e := range node.pods {
		if e.runs() {
			return true
		}
	}
	return false
}

func (e *podEntry) runs() bool { return e.local().Running && !e.Leaving && !e.Idle }

// localPod returns the pod of this node with the UID, nil if there is none.
func (c *Cache) localPod(uid string) *flows.Pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.pods[uid]; e != nil {
		return e.holder.pod
	}
	return nil
}
