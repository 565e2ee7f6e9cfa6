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
# What the first build, 56e19b7, has as well is measured in turns with it, and the ratios of the medians
# printed, where the history has it.
#
# That of remote write writes to the Prometheus of make tools.
set -euo pipefail
cd "$(dirname "$0")/.."
export PODMETER_BENCH_PLOT=${PLOT:+$(realpath "$PLOT")} PEER=${PEER:+$(realpath "${PEER%:*}"):${PEER##*:}}
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT

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

# What both builds have, by package.
both='flows Publish
flows PublishHealth
flows PublishServices
flows State
metrics Scrape
metrics ScrapeHealth
datapath DrainHealth'
turns=5

# ratios first: the rows of both builds, in turns, with the medians of their times
ratios() {
	local package name turn build
	while read -r package name; do
		[[ $name =~ ${BENCH:-.} ]] || continue
		for build in "$1" .; do
			(cd "$build" && go test -c -o "$work/test-${build//[^a-z]/}" "./$package") || return
		done
		for ((turn = 0; turn < turns; turn++)); do
			for build in "$1" .; do
				(cd "$build/$package" && "$work/test-${build//[^a-z]/}" -test.run '^$' -test.bench "^Benchmark$name\$" -test.benchtime "${BENCHTIME:-1s}") |
					awk -v build="$([ "$build" = . ] && echo this || echo first)" '/^Benchmark/ { print build, $1, $3 }'
			done
		done
	done <<<"$both" | sort -k 2,2 -k 1,1 -k 3,3n | awk '
		function median() { return values[int((count + 1) / 2)] }
		function end() { if (count) times[build] = median(); if (name != "" && ("first" in times) && ("this" in times))
			printf "%s: %.2f of the first build'"'"'s %d ns\n", name, times["this"] / times["first"], times["first"]; }
		$2 != name { end(); delete times; name = $2; build = $1; count = 0 }
		$1 != build { times[build] = median(); build = $1; count = 0 }
		{ values[++count] = $3 }
		END { end() }'
}

all() {
	local status=0 packages=() folder earlier
	machine
	bench -benchtime 1x ./bpf || status=$?
	for folder in datapath flows metrics; do
		[ -d "$folder" ] && packages+=("./$folder/...")
	done
	bench -benchmem -benchtime "${BENCHTIME:-1s}" "${packages[@]}" || status=$?
	bench -benchmem -benchtime "${BENCHTIME:-1s}" ./cmd/podmeter/agent || status=$?
	earlier=$(hack/first.sh "$work/first") || status=$?
	PODMETER_EARLIER_BINARY=$earlier bench -benchtime 1x ./cmd/podmeter || status=$?
	if [ -n "$earlier" ]; then
		ratios "$work/first" || status=$?
	else
		echo 'no ratios to the first build: the history here does not have it'
	fi
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
