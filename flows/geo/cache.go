// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"net/netip"
	"sync"
	"unique"

	"github.com/podmeter/podmeter/flows"
)

// cacheSize is how many addresses are kept. An entry takes about 60 bytes with
// its share of the map; equal places are held once.
const cacheSize = 1 << 16

// cache remembers the places of the addresses last asked for. It has two
// generations of half its size: when the young one is full it becomes the old
// one, and what is not asked for again meanwhile goes. So nothing is moved but
// by a hit in the old generation, and a scan over many addresses displaces
// those in use only if they rest for half a cache.
type cache struct {
	half       int
	mu         sync.Mutex
	young, old map[netip.Addr]unique.Handle[flows.Place]
}

func newCache(size int) *cache {
	return &cache{
		half:  max(size/2, 1),
		young: make(map[netip.Addr]unique.Handle[flows.Place]),
		old:   make(map[netip.Addr]unique.Handle[flows.Place]),
	}
}

// get returns the place of an address if it is kept. It allocates nothing,
// unless moving the address to the young generation makes that map grow.
func (c *cache) get(a netip.Addr) (place unique.Handle[flows.Place], ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.young[a]; ok {
		return h, true
	}
	h, ok := c.old[a]
	if ok {
		c.add(a, h)
	}
	return h, ok
}

// put keeps the place of an address, and returns it.
func (c *cache) put(a netip.Addr, p flows.Place) unique.Handle[flows.Place] {
	h := unique.Make(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(a, h)
	return h
}

// add puts an entry into the young generation. The caller holds mu.
func (c *cache) add(a netip.Addr, h unique.Handle[flows.Place]) {
	if len(c.young) >= c.half {
		c.old, c.young = c.young, c.old
		clear(c.young)
	}
	c.young[a] = h
}

// clear forgets everything.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.young)
	clear(c.old)
}
