// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"strings"
)

// maxCopies is of how many pods is said that they are no mirrors: whoever may create pods
// may create more than anybody reads.
const maxCopies = 64

// mirrorOf returns the mirror of a static pod of this node, nil if none is known. Whoever
// may create a pod may give it the annotation of a mirror, so of several the eldest is it,
// also when it has gone, until the kubelet makes it again under its name. The caller holds
// mu.
func (c *Cache) mirrorOf(uid string, suits func(*podEntry) bool) *podEntry {
	node := c.nodes[c.here]
	if uid == "" || node == nil {
		return nil
	}
	var eldest, again *podEntry
	for e := range node.mirrors[uid] {
		if suits(e) {
			eldest = elder(eldest, e)
		}
	}
	for _, gone := range c.gone {
		if gone.entry.StaticUID == uid && suits(gone.entry) {
			eldest = elder(eldest, gone.entry)
		}
	}
	for e := range node.mirrors[uid] {
		if eldest != nil && e.Namespace == eldest.Namespace && e.Name == eldest.Name {
			again = elder(again, e)
		}
	}
	return cmp.Or(again, eldest)
}

// elder returns the one of two pods that the API server took first. In doubt it is the
// one that is called as the kubelet calls mirrors (generatePodName in
// pkg/kubelet/config/common.go of kubernetes), or that was heard of first.
func elder(a, b *podEntry) *podEntry {
	switch {
	case a == nil || b == nil:
		return cmp.Or(a, b)
	case !a.Created.Equal(b.Created):
		return earlier(a, b, a.Created.Before(b.Created))
	case a.calledAsMirror() != b.calledAsMirror():
		return earlier(a, b, a.calledAsMirror())
	case a.holder.told != b.holder.told:
		return earlier(a, b, a.holder.told < b.holder.told)
	}
	return earlier(a, b, a.UID < b.UID)
}

func earlier(a, b *podEntry, first bool) *podEntry {
	if first {
		return a
	}
	return b
}

func (e *podEntry) calledAsMirror() bool {
	return strings.HasSuffix(e.Name, "-"+strings.ToLower(e.Node))
}

// copiesOf returns the mirror of a static pod, and the pods of this node that have its
// annotation as well.
func (c *Cache) copiesOf(uid string) (mirror *podEntry, copies []*podEntry) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	mirror = c.mirrorOf(uid, func(*podEntry) bool { return true })
	if mirror == nil {
		return nil, nil
	}
	for e := range c.nodes[c.here].mirrors[uid] {
		if e.Namespace != mirror.Namespace || e.Name != mirror.Name {
			copies = append(copies, e)
		}
	}
	return mirror, copies
}

// setPod tells the cache of a pod, and says of each copy of a mirror once that it is none.
func (k *Kubernetes) setPod(p *Pod) {
	k.cache.SetPod(p)
	if p.StaticUID == "" || len(k.copies) > maxCopies {
		return
	}
	mirror, copies := k.cache.copiesOf(p.StaticUID)
	for _, e := range copies {
		if k.copies[e.UID] || len(k.copies) > maxCopies {
			continue
		}
		if k.copies[e.UID] = true; len(k.copies) > maxCopies {
			k.logger.Warn("more pods have the annotation of a mirror that is another's; no more of them are told of", "copies", maxCopies)
			return
		}
		k.logger.Warn("a pod has the annotation of a mirror that is another's, and is not taken for it",
			"namespace", e.Namespace, "pod", e.Name, "mirror", mirror.Namespace+"/"+mirror.Name)
	}
}
