#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a command in the cluster's node: its network, mounts and processes, with
# kubectl, ctr and KUBECONFIG at hand.
#
# enter.sh kubectl get pods -A
set -euo pipefail
. "$(dirname "$0")/common.sh"
running || fail "is not up: make cluster-up"
[ $# -gt 0 ] || set -- bash
inside "$@"
