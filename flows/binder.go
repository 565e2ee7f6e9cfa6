// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podmeter/podmeter/flows/plain"
)

// Binder finds the pod behind an interface. A veth belongs to one pod for its
// whole life, so the answer is asked for once.
type Binder interface {
	// Bind returns the pod, nil while it cannot be told for certain. seen are
	// the pod's addresses as packets showed them, nil while better evidence is asked for;
	// bound is what is known of other interfaces.
	Bind(i Interface, seen []netip.Addr, bound *Bound) *Pod
}

// interfaceUID begins the UID of what stands in for a pod where there is no identity.
const interfaceUID = "interface:"

// NameBinder binds each interface to a pod of its own name: for hosts without
// identity.
type NameBinder struct{}

// Bind implements [Binder].
func (NameBinder) Bind(i Interface, _ []netip.Addr, _ *Bound) *Pod {
	return &Pod{UID: interfaceUID + i.Name, Name: plain.Text(i.Name, plain.KernelLimit)}
}

// AddressBinder binds an interface by its addresses, by the best [evidence] that there
// is: those that the host routes to it alone, then by another interface of the same network
// namespace while both are there, then by the addresses at its other end, and last by those
// that packets show, if all belong to one pod of this node.
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
	age := b.now().Sub(i.Attached)
	if age < 0 && bound.evidence > byNode {
		return nil // which interfaces were there together is not known
	}
	// Attached by an earlier agent at a time that is yet to come: the clock was set back meanwhile.
	if age >= 0 && age < b.MinAge {
		return nil
	}
	switch bound.evidence {
	case byNode:
		if pod := b.owner(&i, i.Addresses); pod != nil {
			return pod
		}
		return bound.neighbour(i, b.now())
	case byOtherEnd:
		return b.otherEnd(&i, bound)
	}
	return b.sender(&i, seen, bound)
}

// owner returns the one pod that owns all of the addresses while the interface
// lives.
func (b AddressBinder) owner(i *Interface, addresses []netip.Addr) (owner *Pod) {
	for _, address := range addresses {
		if !significant(address) {
			continue
		}
		pod := b.local(i, address)
		if pod == nil || owner != nil && owner.UID != pod.UID {
			return nil
		}
		owner = pod
	}
	return owner
}

func (b AddressBinder) local(i *Interface, address netip.Addr) *Pod {
	since, until := i.life(b.now())
	return b.Directory.LocalPod(address, since, until)
}

// otherEnd returns the one pod that owns addresses at the other end, besides which that may
// have some of which nobody knows. Who has the rights to administer the network of a pod can
// give it any address: so no other interface may have it, neither by this evidence nor by
// a better one, and the host may route nobody else's to this one.
func (b AddressBinder) otherEnd(i *Interface, bound *Bound) (owner *Pod) {
	for _, address := range i.PeerAddresses {
		pod := b.significantLocal(i, address)
		switch {
		case pod == nil:
			continue
		case owner != nil && owner.UID != pod.UID, bound.contested(i, address, b.now()), bound.Has(pod):
			return nil
		case bound.had(pod) && b.Directory.LocalPod(address, b.end(i), b.end(i)) == nil:
			return nil // it had an interface, and has ended
		}
		owner = pod
	}
	for _, address := range i.Addresses {
		if pod := b.significantLocal(i, address); pod != nil && owner != nil && pod.UID != owner.UID {
			return nil
		}
	}
	return owner
}

func (b AddressBinder) significantLocal(i *Interface, address netip.Addr) *Pod {
	if !significant(address) {
		return nil
	}
	return b.local(i, address)
}

// senderAge is for how long an interface must have been there before the addresses in its
// packets count: by then the pod that truly has them has shown them too, if it
// talks at all.
const senderAge = 30 * time.Second

// sender returns the one pod that owns all addresses that packets showed. Any pod can
// send from any address, so that is no evidence where there can be another: where the pod has
// or had an interface, where another interface has or shows its address, or where addresses
// at the other end are known. Nor is it the interface of a pod that goes on without it.
func (b AddressBinder) sender(i *Interface, seen []netip.Addr, bound *Bound) *Pod {
	pod := b.owner(i, seen)
	if pod == nil || bound.Has(pod) || bound.had(pod) || slices.ContainsFunc(i.PeerAddresses, significant) {
		return nil
	}
	now := b.now()
	for _, address := range seen {
		switch {
		case !significant(address):
		case bound.contested(i, address, now), bound.shownByOthers(i, address, now):
			return nil
		case !i.Gone.IsZero() && b.Directory.LocalPod(address, now, now) != nil:
			return nil
		}
	}
	if since, _ := i.life(now); i.Gone.IsZero() && now.Sub(since) < senderAge {
		return nil
	}
	return pod
}

// significant reports whether an address can identify a pod: every interface has link-local ones.
func significant(address netip.Addr) bool {
	return !address.IsLinkLocalUnicast() && !address.IsUnspecified() && !address.IsLoopback()
}

func (b AddressBinder) end(i *Interface) time.Time {
	_, until := i.life(b.now())
	return until
}

func (b AddressBinder) now() time.Time {
	if b.Now == nil {
		return time.Now()
	}
	return b.Now()
}
