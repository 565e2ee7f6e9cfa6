// SPDX-License-Identifier: Apache-2.0

// Package memory tells what the memory limits of the process's cgroups leave it. The same
// limit holds for its BPF maps.
package memory

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mount is where cgroups are, by convention.
const mount = "/sys/fs/cgroup"

// hierarchy is one that may have the memory controller.
type hierarchy struct {
	root        string // below mount
	controller  string // between the colons of /proc/self/cgroup
	limit, used string // files
	cached      []string
}

// A machine has the controller in one of them, of which the second is v1.
var hierarchies = []hierarchy{
	{"", "", "memory.max", "memory.current", []string{"active_file", "inactive_file"}},
	{"memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", []string{"total_active_file", "total_inactive_file"}},
}

// Room returns how many bytes may still be taken before a limit of the process's cgroup, or
// of one above, kills it: what files are cached is given back. It is the largest number where
// no limit is known.
func Room() int64 { return room(mount) }

func room(mount string) int64 {
	least := int64(math.MaxInt64)
	for _, h := range hierarchies {
		least = min(least, h.room(filepath.Join(mount, h.root)))
	}
	return least
}

func (h *hierarchy) room(root string) int64 {
	least := int64(math.MaxInt64)
	for path := h.own(root); ; path = filepath.Dir(path) {
		limit, limited := readNumber(filepath.Join(path, h.limit))
		used, known := readNumber(filepath.Join(path, h.used))
		if limited && known {
			least = min(least, limit-used+h.givenBack(filepath.Join(path, "memory.stat")))
		}
		if path == root || len(path) <= len(root) {
			return least
		}
	}
}

// own is the directory of the process's cgroup, as it sees the hierarchy.
func (h *hierarchy) own(root string) string {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return root
	}
	for line := range strings.Lines(string(content)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[1] == h.controller {
			return filepath.Join(root, parts[2])
		}
	}
	return root
}

// givenBack is how much of the memory holds what files have, too.
func (h *hierarchy) givenBack(path string) (sum int64) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && slices.Contains(h.cached, name) {
			sum += n
		}
	}
	return sum
}

// readNumber reads a file with a number; not so one without, as of no limit.
func readNumber(path string) (int64, bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	return n, err == nil
}
