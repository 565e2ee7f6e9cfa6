// SPDX-License-Identifier: Apache-2.0

package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Outage logs that something fails, once, and that it works again, once, with the number
// of failures and the time between. It is for what is tried over and over: a receiver, a
// disk, a server.
type Outage struct {
	// Log and Level are where and how the failure is logged; the end is an information.
	Log   *slog.Logger
	Level slog.Level
	// Wrong and Over are the messages.
	Wrong, Over string

	mu       sync.Mutex
	failures uint64
	since    time.Time
}

// Set notes the outcome of a try, nil being a success. The attributes are added to either
// line.
func (o *Outage) Set(err error, attributes ...any) {
	if err != nil {
		o.failed(err, attributes)
		return
	}
	o.mu.Lock()
	failures, since := o.failures, o.since
	o.failures = 0
	o.mu.Unlock()
	if failures > 0 {
		o.Log.Info(o.Over, append(attributes[:len(attributes):len(attributes)],
			"failures", failures, "for", time.Since(since).Round(time.Millisecond))...)
	}
}

func (o *Outage) failed(err error, attributes []any) {
	o.mu.Lock()
	o.failures++
	first := o.failures == 1
	if first {
		o.since = time.Now()
	}
	o.mu.Unlock()
	if first {
		o.Log.Log(context.Background(), o.Level, o.Wrong, append(attributes[:len(attributes):len(attributes)], "error", err)...)
	}
}

// Failing reports whether the last try failed.
func (o *Outage) Failing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failures > 0
}
