#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# first.sh folder    puts the tree of the first layout's build into the folder, with its podmeter, and
#                    prints the path of that; prints nothing where the history does not have it
set -euo pipefail
cd "$(dirname "$0")/.."
first=56e19b7
git cat-file -e "$first^{commit}" 2>/dev/null || exit 0
mkdir -p "$1"
git archive "$first" | tar --extract --directory "$1"
cd "$1"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o podmeter-first ./cmd/podmeter
echo "$PWD/podmeter-first"
