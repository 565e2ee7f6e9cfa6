// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"
)

const (
	// nodeWait is how long after the first list of all nodes this one may be missing:
	// a kubelet may start static pods before its node is made, and no others.
	nodeWait = 10 * time.Second
	nodePoll = time.Second
)

// requireNode returns an error if the API server, once it has told of all nodes, does
// not know this one: no pod would then be this node's. A node that goes later is none
// of the agent's business.
func (a *Agent) requireNode(ctx context.Context) error {
	if a.config.Identity != IdentityKubernetes || comes(ctx, a.identity.source.Synced(), a.identity.cache.NodeKnown) {
		return nil
	}
	return Usage(fmt.Errorf("--node-name %q: the API server has no such node; give the node's name as 'kubectl get nodes' shows it, "+
		"in a manifest by the variable NODE_NAME from the downward API (fieldRef spec.nodeName)", a.config.NodeName))
}

// comes reports whether something is known within nodeWait of the first sync, or the
// context ends before.
func comes(ctx context.Context, synced <-chan struct{}, known func() bool) bool {
	select {
	case <-ctx.Done():
		return true
	case <-synced:
	}
	timeout := time.NewTimer(nodeWait)
	defer timeout.Stop()
	for !known() {
		select {
		case <-ctx.Done():
			return true
		case <-timeout.C:
			return known()
		case <-time.After(nodePoll):
		}
	}
	return true
}
