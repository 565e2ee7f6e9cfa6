// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Foreign implements [flows.OwnAddresses]. A pod's own addresses are those in its status at
// the time, give or take what news of them may be late, and not what it announces.
func (c *Cache) Foreign(pod *flows.Pod, address netip.Addr, first, last time.Time) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	from, to := c.bounds(first, last)
	e := c.pods[pod.UID]
	if e == nil || len(e.owned()) == 0 {
		return false
	}
	for _, cl := range c.claims.byAddress[address.Unmap()] {
		if cl.holder == e.holder && cl.rank.ofPod() && (cl.asserted() || cl.touches(from-tolerance, to+tolerance)) {
			return false
		}
	}
	return true
}
