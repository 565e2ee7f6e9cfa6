// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"

	"github.com/podmeter/podmeter/flows"
)

// None is the source for hosts without identity: each interface is a pod of its
// own. Its cache knows named ranges and this host's addresses.
type None struct{ Cache *Cache }

// Run implements [Source]. There is nothing to do.
func (n None) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Synced implements [Source].
func (n None) Synced() <-chan struct{} { return closed() }

// Binder implements [Source].
func (n None) Binder() flows.Binder { return flows.NameBinder{} }

// Status implements [Source].
func (n None) Status() Status {
	return Status{Source: "none", Synced: true, Objects: n.Cache.Counts()}
}
