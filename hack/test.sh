#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every test and says at the end what was skipped and why.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The page in a browser is a module of its own.
status=0
for module in . hack/page; do
	(cd "$module" && go test -count=1 -v "$@" ./...) >>"$log" 2>&1 || status=$?
done

if [ "$status" -ne 0 ]; then
	printf 'failed; the whole log:\n'
	cat "$log"
	printf '\nand what failed, with what it said:\n'
	awk '/^=== (RUN|NAME|CONT) / { test = $3; if (!(test in said)) order[n++] = test; said[test] = said[test]; next }
		/^ *--- FAIL: / { failed[$3]; next }
		/^(ok|PASS|FAIL|\?|panic:|=== PAUSE)/ || /^ *--- / { test = ""; next }
		test != "" { said[test] = said[test] $0 "\n" }
		END { for (i = 0; i < n; i++) if (order[i] in failed) printf "%s\n%s", order[i], said[order[i]] }' "$log" | tail -n 300
	printf '\n'
fi
# Last, where a reader looks first, and where a log cut short still has it.
grep -E '^(ok|FAIL|---? FAIL|panic:)|^ +--- FAIL' "$log"
skipped=$(grep -cE '^ *--- SKIP' "$log")
printf '\n%s tests skipped\n' "$skipped"
# A reason is the last line of its test, which others may follow before the verdict.
awk '/^=== (RUN|NAME|CONT) / { test = $3 }
	/^ *[a-z0-9_]+\.go:[0-9]+: / { sub(/^ *[a-z0-9_]+\.go:[0-9]+: /, ""); reason[test] = $0 }
	/^ *--- SKIP: / { count[reason[$3]]++ }
	END { for (r in count) printf "  %4d  %s\n", count[r], r }' "$log"
passed=$(grep -cE '^ *--- PASS' "$log")
failed=$(grep -cE '^ *--- FAIL' "$log")
printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
exit "$status"
