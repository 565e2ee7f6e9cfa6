// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"strings"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	corev1 "k8s.io/api/core/v1"
)

// maxContainers bounds the containers that are known of a pod, two for each of its status:
// one that runs and one that ran before. They may start again for ever, and one that ended
// long ago has no sockets left.
const maxContainers = 128

// Container is one that a pod has or had: it gets another id each time that it starts.
type Container struct{ ID, Name string }

// containersOf returns the containers that a pod's status tells of, those that ran
// before the last start included.
func (b *Bounds) containersOf(p *corev1.Pod) (all []Container) {
	for _, statuses := range containerStatuses(p) {
		for _, s := range statuses {
			all = b.container(all, s.ContainerID, s.Name)
			if before := s.LastTerminationState.Terminated; before != nil {
				all = b.container(all, before.ContainerID, s.Name)
			}
		}
	}
	return all
}

// container appends a container by its URL of the API, runtime://id.
func (b *Bounds) container(all []Container, url, name string) []Container {
	_, id, found := strings.Cut(url, "://")
	switch {
	case !found || id == "":
		return all
	case len(all) >= maxContainers:
		*b |= BoundContainers
		return all
	}
	// A copy, as it would keep all of the URL.
	return append(all, Container{strings.Clone(b.text(id, plain.UIDLimit)), shared(b.text(name, plain.LabelLimit))})
}

// rememberContainers adds to a pod's containers those that it had before.
func rememberContainers(entry, old *podEntry) {
	entry.containers = entry.Containers
	if old == nil || len(old.containers) == 0 {
		return
	}
	entry.containers = slices.Clone(entry.Containers)
	for _, container := range old.containers {
		if len(entry.containers) < maxContainers && !slices.Contains(entry.containers, container) {
			entry.containers = append(entry.containers, container)
		}
	}
}

// gonePod is one of this node that has gone, while flows of its containers may still be read,
// its cgroup is still there, or its interface was not bound yet.
type gonePod struct {
	entry *podEntry
	at    int64
}

// keepGone remembers a pod that has gone. The caller holds mu.
func (c *Cache) keepGone(entry *podEntry, now int64) {
	c.gone = slices.DeleteFunc(c.gone, func(g gonePod) bool { return now-g.at > int64(c.history) })
	if c.isLocal(entry.Pod) {
		if len(c.gone) >= maxGone {
			c.gone = slices.Delete(c.gone, 0, maxGone/4)
		}
		c.gone = append(c.gone, gonePod{entry, now})
	}
}

// gonePod returns the pod of this node with the UID that has gone, nil if there was none lately.
// The caller holds mu.
func (c *Cache) gonePod(uid string) *podEntry {
	for i := len(c.gone) - 1; i >= 0; i-- {
		if c.gone[i].entry.UID == uid {
			return c.gone[i].entry
		}
	}
	return nil
}

// container returns the name of a container of this node, empty if it is not known, and
// the pod's UID. The pod is given by what its cgroup is called: the UID of the API, or by
// which the kubelet knows a static pod.
func (c *Cache) container(pod, id string) (uid, name string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	entry := c.podByCgroup(pod)
	if entry == nil {
		return pod, ""
	}
	for _, container := range entry.containers {
		if container.ID == id {
			return entry.UID, container.Name
		}
	}
	return entry.UID, ""
}

// hostPod returns the pod of this node in the node's network whose cgroup is called so,
// nil if none is known.
func (c *Cache) hostPod(pod string) *flows.Pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if entry := c.podByCgroup(pod); entry != nil && entry.HostNetwork {
		return entry.holder.pod
	}
	return nil
}

// podByCgroup returns the pod whose cgroup is called so: by the UID of the API, that of a
// pod that has gone included, before what pods say of themselves.
func (c *Cache) podByCgroup(pod string) *podEntry {
	if entry := c.pods[pod]; entry != nil {
		return entry
	}
	for _, gone := range c.gone {
		if gone.entry.UID == pod {
			return gone.entry
		}
	}
	return c.mirrorOf(pod, func(*podEntry) bool { return true })
}
