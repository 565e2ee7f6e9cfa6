#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests in a cluster of their own, which is brought up before and down
# after them, with each CNI plugin in turn: all of them with ptp, with bridge those
# that depend on the plugin. Needs root, and what make cluster-up needs.
#
# LONG=1           with outages of 2 minutes, 300 pods and a minute of flood
# CNI=ptp|bridge   with this plugin alone
# RUN=pattern      these tests alone
# KEEP=1           leave the cluster up
set -euo pipefail
cd "$(dirname "$0")/../.."
export CLUSTER=${CLUSTER:-podmeter-e2e} POD_IPS=${POD_IPS:-40}
. hack/cluster/common.sh
plugins=(${CNI:-ptp bridge})
declare -A tests=([ptp]=. [bridge]='^(TestParity|TestParityAcrossRollouts|TestAttribution|TestContainers|TestHostPods|TestPodsOfASecondOnOneAddress)$')
work=$(mktemp -d)
# folders are those of the machine among which a cluster might leave some.
folders() {
	find /etc /opt /usr/libexec /var/lib /var/log "$HOME" -xdev -maxdepth 2 -type d \
		! -path "$HOME/.cache/*" ! -path "$HOME/go/*" 2>/dev/null | sort
}
before=$(folders)
finish() {
	local status=$? left
	rm -rf "$work"
	[ -z "${KEEP:-}" ] || return "$status"
	hack/cluster/down.sh
	left=$(comm -13 <(echo "$before") <(folders))
	[ -z "$left" ] || {
		echo "the cluster has left folders behind:"$'\n'"$left" >&2
		exit 1
	}
	exit "$status"
}
trap finish EXIT

make image
busybox_root "$work/root"
export CGO_ENABLED=0
go build -trimpath -o "$work/root/bin/traffic" ./hack/e2e/traffic
hack/cluster/image.sh podmeter.test/traffic:1 "$work/root" /bin/traffic serve :9000 >"$work/traffic.tar"
go test -c -trimpath -o "$work/test" ./hack/e2e

# selects pattern names...: whether one of the tests is named so. The pattern may name
# a subtest, which -test.list does not know.
selects() {
	local pattern=$1
	shift
	"$work/test" -test.list "$(cut -d / -f 1 <<<"$pattern")" | grep "${@/#/-e}" >/dev/null # -q would break the pipe
}

status=0
for plugin in "${plugins[@]}"; do
	[ -n "${KEEP:-}" ] || hack/cluster/down.sh
	pattern=${RUN:-${tests[$plugin]}}
	CNI=$plugin hack/cluster/up.sh
	. "$state/env"
	hack/cluster/load.sh bin/podmeter-image.tar "$work/traffic.tar"
	if selects "$pattern" Prometheus QuickStart RemoteWrite Stack JobsOfASecond; then
		hack/e2e/prometheus.sh
	fi
	if selects "$pattern" Helm; then
		(cd hack/deploy && go build -trimpath -o "$work/helm" helm.sh/helm/v4/cmd/helm)
	fi
	hack/cluster/enter.sh kubectl apply -k "$PWD/deploy/kubernetes/base"
	hack/cluster/enter.sh kubectl rollout status --namespace podmeter --timeout 120s daemonset/podmeter
	hack/cluster/enter.sh env -C "$PWD/hack/e2e" PODMETER_E2E="$NODE" PODMETER_E2E_LONG="${LONG:-}" \
		PODMETER_E2E_HELM="$work/helm" PODMETER_E2E_TRAFFIC="$work/root/bin/traffic" PODMETER_METRICS="http://$NODE_IP:9739/metrics" \
		"$work/test" -test.v -test.timeout 80m -test.run "$pattern" || status=1
done
exit "$status"
