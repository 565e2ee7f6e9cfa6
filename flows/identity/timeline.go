// SPDX-License-Identifier: Apache-2.0

package identity

import "time"

// stepLeast is by how much the clock has to be set to be noticed: the wall clock and the
// monotonic one are not read at once.
const stepLeast = time.Second

// timeline turns times into nanoseconds of a clock that is never set: the wall clock as it would go
// on from when the timeline began. So what was known before the clock was set, by
// seconds or hours, can be compared with what comes after that.
type timeline struct {
	began time.Time
	// set is by how much the clock has been set since.
	set time.Duration
	// elapsed returns the time since began by the monotonic clock.
	elapsed func(now time.Time) time.Duration
}

func newTimeline(began time.Time) timeline {
	return timeline{began: began, elapsed: func(now time.Time) time.Duration { return now.Sub(began) }}
}

// now returns what the clock shows, and takes note of whether that was set.
func (l *timeline) now(clock time.Time) int64 {
	elapsed := l.elapsed(clock)
	set := clock.Round(0).Sub(l.began.Round(0)) - elapsed
	if (set - l.set).Abs() >= stepLeast {
		l.set = set
	}
	return l.began.UnixNano() + int64(elapsed)
}

// at returns a time of this process, or one that somebody else's clock showed, which is taken
// for right as this node's is now. Zero is the beginning.
func (l *timeline) at(t time.Time) int64 {
	if t != t.Round(0) { // with a reading of the monotonic clock
		return l.began.UnixNano() + int64(t.Sub(l.began))
	}
	n := nanoseconds(t)
	if n == beginning || n == forever {
		return n
	}
	return n - int64(l.set)
}

// nanoseconds returns a time of the wall clock. An API server takes any year up to 9999, of which
// [time.Time.UnixNano] makes one of long ago.
func nanoseconds(t time.Time) int64 {
	const most = forever / int64(time.Second)
	switch seconds := t.Unix(); {
	case t.IsZero(), seconds <= -most:
		return beginning
	case seconds >= most:
		return forever
	}
	return t.UnixNano()
}
