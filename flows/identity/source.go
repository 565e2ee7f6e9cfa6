// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"time"

	"github.com/podmeter/podmeter/flows"
)

// Source fills a [Cache] and binds interfaces with it.
type Source interface {
	// Run keeps the cache up to date until the context ends. It returns nil
	// then, or the error that keeps it from doing so.
	Run(context.Context) error
	// Synced is closed when everything has been read once.
	Synced() <-chan struct{}
	// Binder finds the pods behind interfaces.
	Binder() flows.Binder
	// Status tells how well the source does. It may be called at any time.
	Status() Status
}

// Status is how well a source does.
type Status struct {
	// Source is its name: kubernetes, static or none.
	Source string
	// Synced says that everything was read once.
	Synced bool
	// Updated is when it last heard from where it reads, zero if never.
	Updated time.Time
	// Objects counts what is known, by kind: pod, service, node, cidr.
	Objects map[string]int
	// Problem says what keeps it from knowing everything, empty if nothing does.
	Problem string
}

// closed is the Synced of sources that know everything from the start.
func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
