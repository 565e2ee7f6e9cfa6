#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the tests need, runs all of them and shows how far they are. The last
# line is `N passed, N failed, N skipped`; before it are the reasons for which tests were
# skipped, and what the failed ones said.
#
# test.sh argument...       those of go test
# PACKAGES="pattern..."     these packages alone
# SETUP=on|off              see setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
hack/setup.sh test
(cd hack/test && CGO_ENABLED=0 go build -o ../../bin/test .)
exec bin/test "$@"
