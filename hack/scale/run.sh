#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures what an agent in a cluster of 10,000 pods costs itself and the API
# server. etcd, API server and agent run in network and mount namespaces of their
# own, and nothing is left of them. The first run builds the API server, which
# takes about 8 minutes.
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
# shellcheck disable=SC2016
exec unshare --net --mount sh -c 'ip link set lo up && mount -t bpf bpf /sys/fs/bpf && exec "$@"' scale \
	bin/scale -etcd "${ETCD:-}" "$@"
