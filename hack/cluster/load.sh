#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings images into the cluster's node: archives as 'docker save' or an OCI layout
# in a tar have them.
#
# load.sh archive.tar...
set -euo pipefail
. "$(dirname "$0")/common.sh"
running || fail "is not up: make cluster-up"
for archive in "$@"; do
	inside ctr images import --no-unpack=false - <"$archive"
done
