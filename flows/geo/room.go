// SPDX-License-Identifier: Apache-2.0

package geo

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// roomReserve is what a database has to leave of the memory limit, in bytes.
const roomReserve = 16 << 20

// room returns how many bytes the process may still take before a limit of a cgroup of its
// own, of the v2 hierarchy at root, or of one above kills it: what files are cached is given
// back. It is the largest number where no limit is known.
func room(root string) int64 {
	least := int64(math.MaxInt64)
	for path := ownCgroup(root); ; path = filepath.Dir(path) {
		limit, limited := readNumber(filepath.Join(path, "memory.max"))
		used, known := readNumber(filepath.Join(path, "memory.current"))
		if limited && known {
			least = min(least, limit-used+cached(filepath.Join(path, "memory.stat")))
		}
		if path == root || len(path) <= len(root) {
			return least
		}
	}
}

// ownCgroup is the directory of the process's cgroup, as it sees the hierarchy.
func ownCgroup(root string) string {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return root
	}
	for line := range strings.Lines(string(content)) {
		if path, v2 := strings.CutPrefix(line, "0::"); v2 {
			return filepath.Join(root, strings.TrimSpace(path))
		}
	}
	return root
}

// cached is how much of the memory holds what files have, too.
func cached(path string) (sum int64) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == "active_file" || name == "inactive_file") {
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
