#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The loop for daily work: lint, the pure packages under the race detector, and the short
# kernel tests. Each step is printed with its time. What the machine lacks is left out, and
# said.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
CLANG_FORMAT=${CLANG_FORMAT:-clang-format-16}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

began=$(date +%s%N)
failed=()

# since start: the seconds since then
since() { awk -v ns=$(($(date +%s%N) - $1)) 'BEGIN { printf "%.1f", ns / 1e9 }'; }

# step name command...: runs it, and prints its output only if it fails
step() {
	local name=$1 start result=passed
	start=$(date +%s%N)
	shift
	if ! "$@" >"$log" 2>&1; then
		result=FAILED
		failed+=("$name")
		cat "$log"
	fi
	printf '%-8s %6s s  %s\n' "$result" "$(since "$start")" "$name"
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
	step 'pure packages, race detector' env CGO_ENABLED=1 go test -race -short "${pure[@]}"
else
	step 'pure packages, without the race detector, which needs gcc' go test -short "${pure[@]}"
fi
if [ "$(id -u)" -eq 0 ]; then
	# They wait more than they compute: more run at once than there are CPUs.
	step 'short kernel tests' env REQUIRE_KERNEL=1 go test -count=1 -short -parallel 8 "${kernel[@]}"
else
	without 'short kernel tests' 'need root'
fi

printf '%-8s %6s s\n' total "$(since "$began")"
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")"
	exit 1
fi
