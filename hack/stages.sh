# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Stages of a long run with their times; to be sourced. A stage that fails ends the run,
# and what it said is the last before the table of all stages.

rows=() running=()

# row name began ended note: adds one to the table.
row() { rows+=("$(printf '%-12s %3d:%02d  %s' "$1" $((($3 - $2) / 60)) $((($3 - $2) % 60)) "${4:-}")"); }

# result status: what the table says of it.
result() { [ "$1" -eq 0 ] || echo "failed, exit $1"; }

# stage name command...
stage() {
	local name=$1 began=$SECONDS status=0
	shift
	printf '\n=== %s: %s\n' "$name" "$*"
	"$@" || status=$?
	row "$name" "$began" "$SECONDS" "$(result "$status")"
	[ "$status" -eq 0 ] || exit "$status"
}

# beside name command...: the same beside the following stages, until joined.
beside() {
	local name=$1 log
	shift
	log=$(mktemp)
	printf '\n=== %s, beside what follows: %s\n' "$name" "$*"
	set -m # a process group of its own, to be ended with all that is in it
	{
		status=0
		"$@" >"$log" 2>&1 </dev/null || status=$?
		echo "$status $SECONDS" >"$log.end"
	} &
	set +m
	running+=("$! $SECONDS $log $name")
}

# joined: waits for what runs beside.
joined() {
	local pid began log name status ended
	while [ ${#running[@]} -gt 0 ]; do
		read -r pid began log name <<<"${running[0]}"
		wait "$pid" || true
		read -r status ended <"$log.end"
		printf '\n=== %s, which ran beside, said%s:\n' "$name" "$([ "$status" -eq 0 ] && echo ' at its end')"
		tail -n "$([ "$status" -eq 0 ] && echo 20 || echo 1000)" "$log"
		forget "$(result "$status")"
		[ "$status" -eq 0 ] || exit "$status"
	done
}

# forget note: takes the first of what runs beside to the table, and its log away.
forget() {
	local pid began log name status ended=$SECONDS
	read -r pid began log name <<<"${running[0]}"
	[ ! -s "$log.end" ] || read -r status ended <"$log.end"
	row "$name" "$began" "$ended" "$1"
	rm -f "$log" "$log.end"
	running=("${running[@]:1}")
}

# summarize ends what still runs, and shows the table.
summarize() {
	local pid
	while [ ${#running[@]} -gt 0 ]; do
		pid=${running[0]%% *}
		kill -TERM -- "-$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
		forget "ended with the others"
	done
	printf '\n%-12s %6s\n' stage time
	printf '%s\n' "${rows[@]}" "$(printf '%-12s %3d:%02d' total $((SECONDS / 60)) $((SECONDS % 60)))"
}
trap summarize EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
