// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// cniSlack is how much older than the first sight of its interface a result may
// be: the event of a link may come late, the plugins are quick.
const cniSlack = 10 * time.Second

// cniBinder binds a cgroup to its pod, an interface to the pod that libcni's cache says it
// was made for, and where that says nothing as its fallback does. A UID is no address: there is no
// news of an earlier owner to wait for.
type cniBinder struct {
	results  *cniCache // nil if there is none
	cache    *Cache
	fallback flows.Binder
}

// Bind implements [flows.Binder].
func (b cniBinder) Bind(i flows.Interface, seen []netip.Addr, bound *flows.Bound) *flows.Pod {
	if i.PodUID != "" {
		return b.cache.hostPod(i.PodUID)
	}
	if pod := b.sandboxOf(i); pod != nil {
		return pod
	}
	return b.fallback.Bind(i, seen, bound)
}

// sandboxOf returns the pod whose plugins made the interface, nil if the results
// leave a doubt. A file outlives its container where the runtime was not told that
// it ended, and a name comes back, so the file that was written last decides, and
// only if the pods of all others are gone.
func (b cniBinder) sandboxOf(i flows.Interface) *flows.Pod {
	// A bridge and its like are in the result of each pod: the other end of the
	// interface must be in another namespace.
	if b.results == nil || i.PeerNamespace < 0 {
		return nil
	}
	var owner *flows.Pod
	var last, unknown time.Time
	for _, file := range b.results.of(i.Name) {
		if !file.fits(i) {
			continue
		}
		pod := b.cache.sandboxPod(file.result)
		switch {
		case pod == nil:
			unknown = later(unknown, file.written)
		case owner != nil && owner.UID != pod.UID:
			return nil
		default:
			owner, last = pod, later(last, file.written)
		}
	}
	if !last.After(unknown) {
		return nil
	}
	return owner
}

// fits reports whether the result may be about this very interface, and not about
// another one of its name.
func (f *cniCached) fits(i flows.Interface) bool {
	mac := f.result.devices[i.Name]
	switch {
	case mac != "" && i.HardwareAddr != "" && mac != i.HardwareAddr:
		return false
	case !i.Appeared.IsZero() && f.before(i.Appeared.Add(-cniSlack)):
		return false
	case !i.Gone.IsZero() && f.after(i.Gone):
		return false
	case !f.removed.IsZero() && (i.Gone.IsZero() || i.Appeared.After(f.removed)):
		return false // libcni removes a file when the plugins have removed the interface
	}
	return !f.result.contradicts(i.Addresses)
}

// before and after report whether the result was written before or after a time of this process. The clock
// may have been set meanwhile, which changes what a file says and not what was noticed.
func (f *cniCached) before(t time.Time) bool { return f.written.Before(t) && f.noticed.Before(t) }

func (f *cniCached) after(t time.Time) bool {
	return f.written.After(t) && (f.noticed.IsZero() || f.noticed.After(t))
}

// sandboxPod returns the pod of this node that the kubelet made a sandbox for, nil while it is
// not known. When it started is not asked: a UID does not come back, and clocks do.
func (c *Cache) sandboxPod(r *cniResult) *flows.Pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	named := func(e *podEntry) bool { return e.Namespace == r.namespace && e.Name == r.name }
	e := c.pods[r.uid]
	if e == nil {
		e = c.gonePod(r.uid)
	}
	if e == nil {
		e = c.mirrorOf(r.uid, named)
	}
	if e == nil || e.holder.pod == nil || e.HostNetwork || !named(e) {
		return nil
	}
	return e.holder.pod
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
