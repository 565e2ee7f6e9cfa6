#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the benchmarks one package after the other and prints the machine, the
# results and last the line `hot-flow ns above empty: N (ratio R)`. What needs
# root is skipped without it. Writes nothing but, if asked, the file OUT.
#
# OUT=file        write all of it there as well
# BENCHTIME=1s    of each benchmark but those of bpf/ and cmd/podmeter, which are one measurement
# BENCH=regexp    which benchmarks to run
# PEER=file.o:program  a TC program of another meter, measured in turns with ours
# PLOT=file       draw there what a packet takes by the number of flows, as SVG
#
# That of remote write writes to the Prometheus of make tools.
set -euo pipefail
cd "$(dirname "$0")/.."
export PODMETER_BENCH_PLOT=${PLOT:+$(realpath "$PLOT")} PEER=${PEER:+$(realpath "${PEER%:*}"):${PEER##*:}}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

machine() {
	local model
	model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
	printf 'date: %s\n' "$(date -u +%Y-%m-%d)"
	printf 'commit: %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
	printf 'processor: %s, %s cores online\n' "${model:-$(uname -m)}" "$(getconf _NPROCESSORS_ONLN)"
	printf 'kernel: %s\n' "$(uname -r)"
	printf 'go: %s\n' "$(go env GOVERSION)"
	printf 'load: %s\n\n' "$(cut -d ' ' -f 1-3 /proc/loadavg)"
}

# bench go-test-argument...
bench() {
	go test -p 1 -timeout 30m -run '^$' -bench "${BENCH:-.}" "$@" 2>&1
}

all() {
	local status=0 packages=() folder
	machine
	bench -benchtime 1x ./bpf || status=$?
	for folder in datapath flows metrics; do
		[ -d "$folder" ] && packages+=("./$folder/...")
	done
	bench -benchmem -benchtime "${BENCHTIME:-1s}" "${packages[@]}" || status=$?
	bench -benchmem -benchtime "${BENCHTIME:-1s}" ./cmd/podmeter/agent || status=$?
	bench -benchtime 1x ./cmd/podmeter || status=$?
	return "$status"
}

status=0
# The line is held back, to be the last.
all | tee "$log" | sed '/^hot-flow /d; /\[no test files\]$/d' || status=$?
if ! grep '^hot-flow ' "$log"; then
	echo 'bench: the hot flow was not measured: that needs root, and BENCH to match Packet/hot' >&2
fi
if [ -n "${OUT:-}" ]; then
	cp "$log" "$OUT"
fi
exit "$status"
