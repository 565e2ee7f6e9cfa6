#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Ends the cluster and removes everything of it.
set -euo pipefail
. "$(dirname "$0")/common.sh"
root cluster-down

gone() { ! running; }
if running; then
	# All processes of its pid namespace end with the first, and with the last of
	# them the mounts and devices that only they could see.
	kill -KILL "$NODE_PID"
	await 30 "its end" gone || fail "process $NODE_PID does not end"
fi
# Cgroups are the machine's.
empty() {
	local all
	mapfile -t all < <(cgroups)
	find "${all[@]}" -depth -type d -exec rmdir {} + 2>/dev/null
	[ -z "$(find "${all[@]}" -maxdepth 0 2>/dev/null)" ]
}
await 20 "its cgroups' end" empty || fail "a process is still in a cgroup $cgroup below /sys/fs/cgroup"
rm -rf --one-file-system "$state" "$data"
rmdir "$(dirname "$state")" "$(dirname "$data")" 2>/dev/null || true
