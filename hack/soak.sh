#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Lets a built agent run for a long time in network namespaces of its own, under
# traffic, churn, restarts and kills, and prints the machine, the figures and whether
# it passed. Needs root. docs/RELIABILITY.md has the figures of one run.
#
# All of it is in a pid and a mount namespace of its own, with its own bpffs and tmpfs: however
# it ends, no process, pin or file is left but, when it is killed, an empty folder.
#
# DURATION=10m    how long, at least 1m
# PLOT=file       write a plot of it there, as SVG
# OUT=file        write the output there as well
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SOAK_INSIDE:-}" ]; then
	folder=$(mktemp -d)
	trap 'rmdir "$folder"' EXIT
	SOAK_INSIDE=$folder unshare --mount --pid --fork --kill-child --mount-proc "$PWD/hack/soak.sh"
	exit
fi
folder=$SOAK_INSIDE log=$SOAK_INSIDE/log
mount -t tmpfs tmpfs "$folder"
mount -t bpf bpf /sys/fs/bpf
mkdir "$folder/tmp"
export TMPDIR=$folder/tmp PODMETER_SOAK=${DURATION:-10m} PODMETER_SOAK_PLOT=${PLOT:+$(realpath "$PLOT")} REQUIRE_KERNEL=1
export PODMETER_BINARY=$folder/podmeter

all() {
	printf 'date: %s\n' "$(date -u +%Y-%m-%d)"
	printf 'commit: %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
	printf 'kernel: %s, %s cores online\n' "$(uname -r)" "$(getconf _NPROCESSORS_ONLN)"
	printf 'load: %s\n\n' "$(cut -d ' ' -f 1-3 /proc/loadavg)"
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$PODMETER_BINARY" ./cmd/podmeter
	# The soak ends by itself: the time limit is for what hangs.
	go test -count=1 -timeout 0 -v -run '^TestSoak$' ./cmd/podmeter 2>&1
}

status=0
# Without go test's progress.
all | tee "$log" | grep --line-buffered -vE '^=== |^PASS$' || status=$?
if [ -n "${OUT:-}" ]; then
	cp "$log" "$OUT"
fi
exit "$status"
