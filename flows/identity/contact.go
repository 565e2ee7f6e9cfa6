// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// contact is when the API server was last heard. It sends each watch a bookmark
// about every minute though nothing happens. All watches share a connection, so
// that what comes by one is news of all that are open; what has none is as old as
// the end of its last.
type contact struct {
	clock func() time.Time

	mu    sync.Mutex
	last  time.Time // zero for never
	kinds map[string]watching
}

// watching is how one kind of objects is watched: by a watch, or by none since.
type watching struct {
	by    *noted
	since time.Time // zero for never
}

func newContact(clock func() time.Time) *contact {
	return &contact{clock: clock, kinds: make(map[string]watching)}
}

// observe returns a ListWatch whose answers are noted, and tells of its resource
// that nothing is known yet.
func (c *contact) observe(resource string, lw *cache.ListWatch) *cache.ListWatch {
	c.set(resource, watching{})
	list, follow := lw.ListWithContextFunc, lw.WatchFuncWithContext
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			objects, err := list(ctx, options)
			if err == nil {
				c.set(resource, watching{since: c.heard()})
			}
			return objects, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := follow(ctx, options)
			if err != nil {
				return nil, err
			}
			return c.follow(resource, events), nil
		},
	}
}

// at returns since when nothing new is known of some kind of objects, zero if
// nothing ever was.
func (c *contact) at() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.last
	for _, w := range c.kinds {
		if w.by == nil && w.since.Before(at) {
			at = w.since
		}
	}
	return at
}

// heard notes an answer, and returns when it came.
func (c *contact) heard() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = c.clock()
	return c.last
}

func (c *contact) set(resource string, w watching) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[resource] = w
}

// ended notes the end of a watch. The next one may be there already.
func (c *contact) ended(resource string, n *noted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds[resource].by == n {
		c.kinds[resource] = watching{since: c.last}
	}
}

// follow returns a watch whose events are noted, bookmarks included.
func (c *contact) follow(resource string, w watch.Interface) watch.Interface {
	n := &noted{Interface: w, events: make(chan watch.Event), stopped: make(chan struct{})}
	c.heard()
	c.set(resource, watching{by: n})
	go func() {
		defer close(n.events)
		defer c.ended(resource, n)
		for event := range w.ResultChan() {
			c.heard()
			select {
			case n.events <- event:
			case <-n.stopped:
				return
			}
		}
	}()
	return n
}

// noted is a watch that passes another's events on.
type noted struct {
	watch.Interface
	events  chan watch.Event
	stop    sync.Once
	stopped chan struct{}
}

// ResultChan implements [watch.Interface].
func (n *noted) ResultChan() <-chan watch.Event { return n.events }

// Stop implements [watch.Interface].
func (n *noted) Stop() {
	n.stop.Do(func() { close(n.stopped) })
	n.Interface.Stop()
}
