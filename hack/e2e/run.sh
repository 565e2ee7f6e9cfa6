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

make image IMAGE_ARCHITECTURES="$(go env GOARCH)"
CGO_ENABLED=0 go test -c -trimpath -o "$work/test" ./hack/e2e

status=0
for plugin in "${plugins[@]}"; do
	[ -n "${KEEP:-}" ] || hack/cluster/down.sh
	CNI=$plugin hack/cluster/up.sh
	. "/run/podmeter-cluster/$CLUSTER/env"
	hack/cluster/load.sh bin/podmeter-image.tar
	hack/cluster/enter.sh kubectl apply -k "$PWD/deploy/kubernetes/base"
	hack/cluster/enter.sh kubectl rollout status --namespace podmeter --timeout 120s daemonset/podmeter
	hack/cluster/enter.sh env -C "$PWD/hack/e2e" PODMETER_E2E="$NODE" PODMETER_METRICS="http://$NODE_IP:9739/metrics" \
		"$work/test" -test.v -test.run "${RUN:-.}" || status=1
done
exit "$status"
