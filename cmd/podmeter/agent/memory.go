// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/internal/memory"
)

const (
	// gcPercent is how much garbage, in percent of what is in use, there may be before it is
	// collected. An agent works for some milliseconds each drain and rests in between: half of
	// Go's 100 takes it 15 MiB less and no CPU that could be measured.
	gcPercent = 50
	// memoryReserve is what garbage leaves of the limit of the agent's container, in bytes:
	// for the kubelet's probes, which run in it (16 MiB each), and for buffers until it is looked
	// again.
	memoryReserve = 40 << 20
	// memoryPace is how often it is looked at how much is left.
	memoryPace = time.Second
)

// beThrifty collects garbage earlier than Go does by itself, unless the environment says
// when.
func beThrifty() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// returnMemory gives back what the start took: the lists of the API server and the kernel's
// types are read once.
func returnMemory() { debug.FreeOSMemory() }

// keepToLimit lets garbage take what the limit of the agent's container leaves besides the
// databases and buffers that are there and besides the maps, which grow by so many bytes at most,
// until done is closed; unless the environment says how much Go may have.
func keepToLimit(done <-chan struct{}, growth int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	most := goLimit(memory.Room(), goMemory()) - growth // whatever grows as fast as it can
	ticker := time.NewTicker(memoryPace)
	defer ticker.Stop()
	for {
		own := goMemory()
		limit := max(min(most, goLimit(memory.Room(), own)), 0)
		debug.SetMemoryLimit(limit)
		if own > limit { // and an agent that rests until the next drain would keep it
			debug.FreeOSMemory()
		}
		select {
		case <-ticker.C:
		case <-done:
			return
		}
	}
}

// goLimit returns how much Go may have if it has own bytes and so many more are left of the
// container's limit.
func goLimit(room, own int64) int64 {
	if room > math.MaxInt64-own {
		return math.MaxInt64
	}
	return own + room - memoryReserve
}

// socketGrowth is by how many bytes maps of sockets may grow.
func (a *Agent) socketGrowth() int64 {
	if a.sockets == nil {
		return 0
	}
	return datapath.SocketMapMemory
}

// goMemory returns how many bytes Go has of the system.
func goMemory() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64() - sample[1].Value.Uint64())
}
