#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The loop for daily work: lint, the pure packages under the race detector, and the short
# kernel tests. Each step is printed with its time; the kernel tests, which wait more than
# they compute, run beside all the others. What the machine lacks is left out, and said.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
CLANG_FORMAT=${CLANG_FORMAT:-clang-format-16}
logs=$(mktemp -d)
beside=() # the process and the name of what runs beside
trap '[ ${#beside[@]} -eq 0 ] || kill -TERM -- "-${beside[0]}" 2>/dev/null; rm -rf "$logs"' EXIT

began=$(date +%s%N)
failed=()

# since start: the seconds since then
since() { awk -v ns=$(($(date +%s%N) - $1)) 'BEGIN { printf "%.1f", ns / 1e9 }'; }

# run log command...: runs it and keeps what it says, its status and its time.
run() {
	local log=$1 start status=0
	start=$(date +%s%N)
	shift
	"$@" >"$log" 2>&1 || status=$?
	echo "$status $(since "$start")" >"$log.end"
}

# ended name log: prints a step that has ended, and its output only if it failed.
ended() {
	local name=$1 log=$2 status=137 took='' result=passed
	read -r status took <"$log.end"
	if [ "$status" -ne 0 ]; then
		result=FAILED
		failed+=("$name")
		cat "$log"
	fi
	printf '%-8s %6s s  %s\n' "$result" "$took" "$name"
}

# step name command...
step() {
	local name=$1
	shift
	run "$logs/step" "$@"
	ended "$name" "$logs/step"
}

# beside name command...: the same beside the steps that follow, until joined.
beside() {
	local name=$1
	shift
	set -m # a process group of its own, to be ended with all that is in it
	run "$logs/beside" "$@" </dev/null &
	set +m
	beside=("$!" "$name")
}

joined() {
	wait "${beside[0]}"
	ended "${beside[1]}" "$logs/beside"
	beside=()
}

# without name reason: a step that is left out
without() { printf '%-8s %8s  %s: %s\n' skipped '' "$1" "$2"; }

formatted() {
	local unformatted
	unformatted=$(gofmt -l .)
	[ -z "$unformatted" ] || { printf 'gofmt these: %s\n' "$unformatted"; return 1; }
}

page() (cd hack/page && go mod tidy -diff && go vet ./...)

# What needs no kernel, and what does.
pure=(./flows/... ./metrics/... ./cmd/podmeter/agent/... ./cmd/podmeter/daemonset/... ./cmd/podmeter/geoip/...)
kernel=(./internal/ktest ./bpf ./datapath ./cmd/podmeter ./cmd/podmeter/demo)

if [ "$(id -u)" -eq 0 ]; then
	# internal/ktest lets more of them run at once than there are CPUs. No result is taken
	# from the cache, which does not know the kernel.
	beside 'short kernel tests' env REQUIRE_KERNEL=1 go test -count=1 -short -p 4 "${kernel[@]}"
else
	without 'short kernel tests' 'need root'
fi
step gofmt formatted
step 'go mod tidy' go mod tidy -diff
step 'go vet' go vet ./...
step 'go vet, of the page' page
step staticcheck go tool staticcheck ./...
if command -v "$CLANG_FORMAT" >/dev/null; then
	step clang-format "$CLANG_FORMAT" --dry-run --Werror bpf/*.c bpf/*.h bpf/*/*.c
else
	without clang-format "needs Debian's clang-format-16"
fi
if command -v gcc >/dev/null; then
	step 'pure packages, race detector' env CGO_ENABLED=1 go test -race -short -parallel 8 "${pure[@]}"
else
	step 'pure packages, without the race detector, which needs gcc' go test -short -parallel 8 "${pure[@]}"
fi
[ ${#beside[@]} -eq 0 ] || joined

printf '%-8s %6s s\n' total "$(since "$began")"
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")"
	exit 1
fi
