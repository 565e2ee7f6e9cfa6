// SPDX-License-Identifier: Apache-2.0

package geoip

import (
	"context"
	"log/slog"
)

// notices logs what is wrong once, and once more when it is over. It is for one
// goroutine.
type notices struct {
	log    *slog.Logger
	active map[string]bool
}

func newNotices(log *slog.Logger) *notices {
	return &notices{log: log, active: make(map[string]bool)}
}

// note is about one thing that may be wrong: wrong says so, over says that it is
// not any more.
type note struct {
	level       slog.Level // of wrong
	wrong, over string
}

// set takes note of whether a thing is wrong now.
func (n *notices) set(what note, wrong bool, attributes ...any) {
	if wrong == n.active[what.wrong] {
		return
	}
	n.active[what.wrong] = wrong
	if wrong {
		n.log.Log(context.Background(), what.level, what.wrong, attributes...)
	} else {
		n.log.Info(what.over)
	}
}
