#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests in a cluster of their own, which is brought up before and down
# after them, with each CNI plugin in turn. Needs root, and what make cluster-up
# needs.
#
# CNI=ptp|bridge   with this plugin alone
# RUN=pattern      these tests alone
# KEEP=1           leave the cluster up
set -euo pipefail
cd "$(dirname "$0")/../.."
export CLUSTER=${CLUSTER:-podmeter-e2e}
plugins=(${CNI:-ptp bridge})
work=$(mktemp -d)
finish() {
	[ -n "${KEEP:-}" ] || hack/cluster/down.sh
	rm -rf "$work"
}
trap finish EXIT

CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/podmeter" ./cmd/podmeter
CGO_ENABLED=0 go test -c -trimpath -o "$work/test" ./hack/e2e

# meter starts the agent in the node.
meter() {
	hack/cluster/enter.sh env NODE_NAME="$node" setsid "$work/podmeter" agent --kubeconfig "$kubeconfig" \
		--interfaces '!eth0' </dev/null >"$work/agent.log" 2>&1 &
	hack/cluster/enter.sh sh -c "for n in \$(seq 300); do '$work/podmeter' status --ready >/dev/null 2>&1 && exit; sleep 0.2; done; exit 1" ||
		{ cat "$work/agent.log" && exit 1; }
}

status=0
for plugin in "${plugins[@]}"; do
	[ -n "${KEEP:-}" ] || hack/cluster/down.sh
	CNI=$plugin hack/cluster/up.sh
	state=/run/podmeter-cluster/$CLUSTER
	kubeconfig=$state/kubeconfig node=$(sed -n 's/^NODE=//p' "$state/env")
	meter
	hack/cluster/enter.sh env -C "$PWD/hack/e2e" PODMETER_E2E="$node" PODMETER_METRICS=http://127.0.0.1:9739/metrics \
		"$work/test" -test.v -test.run "${RUN:-.}" || status=1
done
exit "$status"
