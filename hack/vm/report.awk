# SPDX-License-Identifier: Apache-2.0
#
# Sums up what test binaries printed: which tests failed and what they said, and what was
# skipped and why. Exits with 0 if all ran, to the end, and none failed.
/^podmeter-vm: / || /^panic: / || /^ *--- FAIL/
/^podmeter-vm: end, status 0$/ { ended = 1 }
/^testing: warning: no tests to run/ { print; empty = 1 }
/^=== [A-Z]+ / { test = $3; next }
/^ *[a-z0-9_]+\.go:[0-9]+: / { said[test] = $0; sub(/^[^:]*:[0-9]+: /, "", said[test]) }
/^ *--- SKIP/ { skipped++; reasons[said[$3]]++ }
/^ *--- PASS/ { passed++ }
/^ *--- FAIL/ { failed++; failures[failed] = $3 }
!/^podmeter-vm: / && !/^ *--- / { output[test] = output[test] $0 "\n" }
END {
	for (f = 1; f <= failed; f++)
		if (output[failures[f]] != "")
			printf "what %s printed:\n%s", failures[f], output[failures[f]]
	for (r in reasons)
		printf "  %4d skipped: %s\n", reasons[r], r
	printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
	exit !(ended && passed && !failed && !empty)
}
