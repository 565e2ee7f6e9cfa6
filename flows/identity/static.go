// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Static is the source that reads a YAML file: for hosts whose pods, containers
// or virtual machines are known beforehand. testdata/static.yaml shows all of its
// format.
type Static struct {
	cache *Cache
	file  string
	node  string // from elsewhere than the file, empty if unknown

	mu      sync.Mutex // one reload at a time
	now     *content
	updated time.Time
	devices map[string]string // interface → pod UID
	problem string
}

// NewStatic reads the file into the cache. The error names every fault of the
// file with its line. The file may name this node if the cache's options do not.
func NewStatic(cache *Cache, file string) (*Static, error) {
	node, _ := cache.Here()
	s := &Static{cache: cache, file: file, node: node, now: &content{}}
	return s, s.Reload()
}

// Reload reads the file again. If it has faults, the cache stays as it is. An
// address that moves to another pod is the old one's until now.
func (s *Static) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.reload()
	s.problem = ""
	if err != nil {
		s.problem = err.Error()
	}
	return err
}

func (s *Static) reload() error {
	data, err := readFile(s.file)
	if err != nil {
		return fmt.Errorf("read static file: %w", err)
	}
	next, err := readContent(s.file, data, s.node)
	if err != nil {
		return fmt.Errorf("read static file: %w", err)
	}
	s.cache.replace(s.now, next)
	s.devices = make(map[string]string)
	for _, p := range next.pods {
		if p.Interface != "" {
			s.devices[p.Interface] = p.UID
		}
	}
	s.now, s.updated = next, s.cache.clock()
	return nil
}

// replace puts one content in the place of another.
func (c *Cache) replace(old, next *content) {
	c.mu.Lock()
	c.setHere(next.node)
	c.replaceRanges(old, next)
	c.mu.Unlock()
	for _, p := range missing(old.pods, next.pods, func(p *Pod) string { return p.UID }) {
		c.DeletePod(p)
	}
	for _, service := range missing(old.services, next.services, func(s *Service) string { return s.UID }) {
		c.DeleteService(service.UID)
	}
	for _, node := range missing(old.nodes, next.nodes, func(n *Node) string { return n.Name }) {
		c.DeleteNode(node.Name)
	}
	for _, node := range next.nodes {
		c.SetNode(node)
	}
	for _, p := range next.pods {
		c.SetPod(p)
	}
	for _, service := range next.services {
		c.SetService(service)
	}
}

// missing returns what is in one list and by its key not in the other.
func missing[T any](list, other []T, key func(T) string) []T {
	keys := make(map[string]bool, len(other))
	for _, item := range other {
		keys[key(item)] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(item T) bool { return keys[key(item)] })
}

func (c *Cache) replaceRanges(old, next *content) {
	for _, prefixes := range [][]netip.Prefix{old.podRanges, old.serviceRanges} {
		for _, prefix := range prefixes {
			c.countRange(prefix, -1)
		}
	}
	for _, prefixes := range [][]netip.Prefix{next.podRanges, next.serviceRanges} {
		for _, prefix := range prefixes {
			c.countRange(prefix, 1)
		}
	}
}

// Run implements [Source]: a file changes when Reload is called.
func (s *Static) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Synced implements [Source].
func (s *Static) Synced() <-chan struct{} { return closed() }

// Status implements [Source].
func (s *Static) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		Source: "static", Synced: true, Updated: s.updated,
		Objects: s.cache.Counts(), Problem: s.problem,
	}
}

// Binder implements [Source]. A pod with an interface in the file has that one,
// on its word; the others are found by their addresses.
func (s *Static) Binder() flows.Binder {
	return staticBinder{s, flows.AddressBinder{Directory: s.cache, Now: s.cache.clock}}
}

type staticBinder struct {
	static    *Static
	addresses flows.AddressBinder
}

// Bind implements [flows.Binder].
func (b staticBinder) Bind(i flows.Interface, seen []netip.Addr, bound *flows.Bound) *flows.Pod {
	if pod := b.static.podOf(i.Name); pod != nil {
		return pod
	}
	return b.addresses.Bind(i, seen, bound)
}

// podOf returns the pod that has the interface in the file.
func (s *Static) podOf(device string) *flows.Pod {
	s.mu.Lock()
	uid, ok := s.devices[device]
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return s.cache.localPod(uid)
}
