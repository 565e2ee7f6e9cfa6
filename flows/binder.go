// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// Binder finds the pod behind an interface. A veth belongs to one pod for its
// whole life, so the answer is asked for once.
type Binder interface {
	// Bind returns the pod, nil while it cannot be told for certain. seen are
	// the pod's addresses as packets showed them; bound are the pods of other
	// interfaces, by the id of their network namespace on the other end.
	Bind(i Interface, seen []netip.Addr, bound *Bound) *Pod
}

// Bound is which pods have interfaces already, at one moment.
type Bound struct {
	uids       map[string]bool
	namespaces map[int]tenant // by PeerNamespace
}

// tenant is the pod of the living interfaces that show the same namespace id.
type tenant struct {
	pod   *Pod      // nil if they are of two pods: one of them is about to go
	since time.Time // when the eldest was attached
}

// Has reports whether a pod is bound to an interface.
func (b *Bound) Has(pod *Pod) bool { return b.uids[pod.UID] }

func newBound(points map[Point]*point) *Bound {
	b := &Bound{uids: make(map[string]bool), namespaces: make(map[int]tenant)}
	for _, pt := range points {
		if pt.pod != nil {
			b.add(pt.Interface, pt.pod)
		}
	}
	return b
}

func (b *Bound) add(i Interface, pod *Pod) {
	b.uids[pod.UID] = true
	if i.PeerNamespace < 0 || !i.Gone.IsZero() {
		return
	}
	t, known := b.namespaces[i.PeerNamespace]
	switch {
	case !known:
		t = tenant{pod, i.Attached}
	case t.pod == nil || t.pod.UID != pod.UID:
		t.pod = nil
	case i.Attached.Before(t.since):
		t.since = i.Attached
	}
	b.namespaces[i.PeerNamespace] = t
}

// neighbour returns the pod of another interface in the network namespace of
// this one.
func (b *Bound) neighbour(i Interface, now time.Time) *Pod {
	t := b.namespaces[i.PeerNamespace]
	if !i.Gone.IsZero() || now.Sub(i.Attached) < namespaceAge || now.Sub(t.since) < namespaceAge {
		return nil
	}
	return t.pod
}

// namespaceAge is for how long two interfaces must have shown the same namespace
// id to be of one pod. The kernel frees the id of a namespace that ends before it
// removes its interfaces (cleanup_net in net/core/net_namespace.c): for a moment
// they show the id of another one.
const namespaceAge = 10 * time.Second

// NameBinder binds each interface to a pod of its own name: for hosts without
// identity.
type NameBinder struct{}

// Bind implements [Binder].
func (NameBinder) Bind(i Interface, _ []netip.Addr, _ *Bound) *Pod {
	return &Pod{UID: "interface:" + i.Name, Name: plain.Text(i.Name, plain.KernelLimit)}
}

// AddressBinder binds an interface by its addresses: first those that the host
// routes to it alone, then by another interface of the same network namespace
// while both are there, and last by the addresses seen on it, if all belong to
// one pod of this node that is not yet bound.
type AddressBinder struct {
	Directory Directory
	// MinAge is how long ago an interface must have been attached: by then the
	// directory has heard that the last owner of its address ended.
	MinAge time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Bind implements [Binder].
func (b AddressBinder) Bind(i Interface, seen []netip.Addr, bound *Bound) *Pod {
	if b.now().Sub(i.Attached) < b.MinAge {
		return nil
	}
	if pod := b.owner(i, i.Addresses); pod != nil {
		return pod
	}
	if pod := bound.neighbour(i, b.now()); pod != nil {
		return pod
	}
	if pod := b.owner(i, seen); pod != nil && !bound.Has(pod) {
		return pod
	}
	return nil
}

// owner returns the one pod that owns all of the addresses while the interface
// lives; link-local ones, which every interface has, say nothing.
func (b AddressBinder) owner(i Interface, addresses []netip.Addr) *Pod {
	until := i.Gone
	if until.IsZero() {
		until = b.now()
	}
	var owner *Pod
	for _, address := range addresses {
		if address.IsLinkLocalUnicast() || address.IsUnspecified() {
			continue
		}
		pod := b.Directory.LocalPod(address, i.Attached, until)
		if pod == nil || owner != nil && owner.UID != pod.UID {
			return nil
		}
		owner = pod
	}
	return owner
}

func (b AddressBinder) now() time.Time {
	if b.Now == nil {
		return time.Now()
	}
	return b.Now()
}
