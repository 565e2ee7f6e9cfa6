#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the long forms of the tests that do something to the meter while traffic
# runs, and prints the machine, what each test says and whether it passed. Needs
# root. docs/RELIABILITY.md has the figures of one run.
#
# STRESS=regexp   which tests to run
# OUT=file        write all of it there as well
set -euo pipefail
cd "$(dirname "$0")/.."
export PODMETER_STRESS=1 REQUIRE_KERNEL=1
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT

# Agents of the first layout and of this build follow each other, where the history has it.
earlier=$(hack/first.sh "$work/first")
[ -z "$earlier" ] || export PODMETER_EARLIER_BINARY=$earlier

# What is done to the meter, and on what.
harm='Flood|Scan|LedgerDiffers|ExactlyOnce|Killed|Upgrade|Churn|Shadowed|Bypassed|Detached|ShortConnections|Hostile$|FullAgent'

# sized variable: all of datapath, and in their short forms what harms an agent and a soak, with
# maps of flows of one entry, or of one bucket in front of them
sized() {
	printf '\n%s=1\n' "$1"
	(
		unset PODMETER_STRESS
		[ "$1" != linkedEntries ] || export PODMETER_NO_ROOM=1
		export GOFLAGS="-ldflags=-X=github.com/podmeter/podmeter/datapath.$1=1"
		go test -p 1 -count=1 -timeout 60m ./datapath &&
			go test -p 1 -count=1 -timeout 60m -run "$harm" ./cmd/podmeter ./hack/hostile &&
			DURATION=2m hack/soak.sh
	) 2>&1
}

all() {
	printf 'date: %s\n' "$(date -u +%Y-%m-%d)"
	printf 'commit: %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
	printf 'kernel: %s, %s cores online\n' "$(uname -r)" "$(getconf _NPROCESSORS_ONLN)"
	printf 'load: %s\n\n' "$(cut -d ' ' -f 1-3 /proc/loadavg)"
	# One package at a time: none takes the other's CPUs.
	go test -p 1 -count=1 -timeout 60m -v -run "${STRESS:-$harm}" ./datapath ./cmd/podmeter ./hack/hostile 2>&1 || return
	[ -n "${STRESS:-}" ] || { sized linkedBuckets && sized linkedEntries; }
}

status=0
# Without the meter's own log and go test's progress.
all | tee "$log" | grep --line-buffered -vE '^ *time=|^=== |^PASS$' || status=$?
if [ -n "${OUT:-}" ]; then
	cp "$log" "$OUT"
fi
exit "$status"
