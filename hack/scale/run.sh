#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures what an agent in a cluster of 10,000 pods costs itself and the API
# server. etcd, API server and agent run in network and mount namespaces of their
# own, and nothing is left of them. The first run builds the API server, which
# takes about 8 minutes.
#
# The first layout's agent, where the history has it, is measured beside it.
#
# ETCD=command       another etcd than the one in PATH
# run.sh argument... those of hack/scale/main.go
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" -eq 0 ] || {
	echo "BPF programs and namespaces need root: sudo make bench-api" >&2
	exit 1
}
command -v "${ETCD:-etcd}" >/dev/null || {
	echo "lacks packages: apt-get install --no-install-recommends etcd-server" >&2
	exit 1
}
PODMETER_KUBE_BIN=${PODMETER_KUBE_BIN:-$(hack/tools.sh kubernetes)}
export PODMETER_KUBE_BIN
go build -o bin/scale ./hack/scale

first=56e19b7 earlier=
if git cat-file -e "$first^{commit}" 2>/dev/null; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	git archive "$first" | tar --extract --directory "$work"
	earlier=$work/podmeter-first
	(cd "$work" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$earlier" ./cmd/podmeter)
else
	echo "scale: no ratios: the history lacks $first, whose agent would be measured beside this one" >&2
fi
# shellcheck disable=SC2016
unshare --net --mount sh -c 'ip link set lo up && mount -t bpf bpf /sys/fs/bpf && exec "$@"' scale \
	bin/scale -etcd "${ETCD:-}" -earlier "$earlier" "$@"
