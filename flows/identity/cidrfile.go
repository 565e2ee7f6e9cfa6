// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/regular"
)

// CIDRFile is a YAML file of ranges that the user named: a mapping of names to
// lists of CIDR ranges. Within others, the longer range wins.
type CIDRFile struct {
	cache *Cache
	file  string
}

// NewCIDRFile reads the file into the cache. The error names every fault of the
// file with its line.
func NewCIDRFile(cache *Cache, file string) (*CIDRFile, error) {
	f := &CIDRFile{cache, file}
	return f, f.Reload()
}

// Reload reads the file again. If it has faults, the old ranges stay.
func (f *CIDRFile) Reload() error {
	data, err := regular.Read(f.file, fileLimit)
	if err != nil {
		return fmt.Errorf("read CIDR file: %w", err)
	}
	named, err := readCIDRs(f.file, data)
	if err != nil {
		return fmt.Errorf("read CIDR file: %w", err)
	}
	f.cache.setNamed(named)
	return nil
}

func (c *Cache) setNamed(named map[netip.Prefix]string) {
	var r ranges[*flows.Owner]
	for prefix, name := range named {
		r.set(prefix, &flows.Owner{Kind: flows.PeerCIDR, Name: name})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named = r
}

// readCIDRs reads a CIDR file; the error joins all its faults.
func readCIDRs(file string, data []byte) (map[netip.Prefix]string, error) {
	s := strict{file: file}
	named, lines := make(map[netip.Prefix]string), make(map[netip.Prefix]int)
	if root := s.parse(data); root != nil {
		s.pairs(root, "file", func(key, value *yaml.Node) {
			name := s.name(key, "name", plain.NameLimit)
			if value = target(value); value.Kind == yaml.SequenceNode && len(value.Content) == 0 {
				s.fault(value.Line, "%s: has no ranges", name)
			}
			s.sequence(value, name, func(n *yaml.Node) {
				prefix := s.prefix(n, name)
				if first, ok := lines[prefix]; ok {
					s.fault(target(n).Line, "%s: %s given twice, first on line %d", name, prefix, first)
				} else if prefix.IsValid() {
					named[prefix], lines[prefix] = name, target(n).Line
				}
			})
		})
	}
	return named, s.err()
}
