// SPDX-License-Identifier: Apache-2.0

package identity

import "github.com/podmeter/podmeter/flows"

// Ending reports whether all pods of a workload on this node have been told to end,
// or are gone.
func (c *Cache) Ending(namespace string, workload flows.Workload) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	node := c.nodes[c.here]
	if node == nil {
		return true
	}
	for e := range node.pods {
		if e.Namespace == namespace && e.Workload == workload && !e.Leaving {
			return false
		}
	}
	return true
}

// NodeKnown reports whether a source has told of this node.
func (c *Cache) NodeKnown() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	node := c.nodes[c.here]
	return node != nil && node.Node != nil
}
