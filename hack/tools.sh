#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds from their Go modules what tests need and Debian does not have: Kubernetes and
# the Prometheus that the manifests name. It is kept outside of the tree, by the checksum
# of what it is built from. That needs Go alone.
#
# tools.sh              builds what is not there
# tools.sh NAME         the same with kubernetes or prometheus alone, and prints its folder
# tools.sh find NAME    prints its folder if it is there, and else fails
# TOOLS=folder          keep it there instead of in ~/.cache/podmeter/tools
set -euo pipefail
cache=$(realpath -m "${TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/podmeter/tools}")
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly

declare -A module=([kubernetes]=hack/cluster/kubernetes [prometheus]=hack/prometheus)
declare -A takes=([kubernetes]="8 minutes" [prometheus]="5 minutes") # on 2 CPUs, with nothing built before

version() {
	case $1 in
	kubernetes) sed -En 's/^\t?(require )?k8s\.io\/kubernetes (v[^ ]+).*/\2/p' "${module[$1]}/go.mod" ;;
	prometheus) sed -n 's/^ *image: .*prometheus:\(v.*\)/\1/p' deploy/kubernetes/overlays/prometheus/prometheus.yaml ;;
	esac
}

# build_NAME version folder: builds it, within its module.
build_kubernetes() {
	local flags="-s -w" package packages=()
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		flags+=" -X $package.gitVersion=$1 -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d . -f 2 <<<"$1")"
	done
	for package in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
		packages+=("k8s.io/kubernetes/cmd/$package")
	done
	go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$2/" "${packages[@]}"
}

build_prometheus() {
	go build -v -trimpath -buildvcs=false -tags 'netgo remove_all_sd enable_kubernetes_sd' \
		-ldflags "-s -w -X github.com/prometheus/common/version.Version=${1#v}" -o "$2/" github.com/prometheus/prometheus/cmd/prometheus
}

# folder name: where it is, or will be. Another Go builds the same.
folder() {
	local checksum
	checksum=$({ cat "${module[$1]}/go.mod" "${module[$1]}/go.sum" && version "$1" && declare -f "build_$1" && uname -m; } | sha256sum)
	echo "$cache/$1-$(version "$1")-${checksum::16}"
}

# progress name: shows every 10 s how much `go build -v` has done, of which nothing is
# known before. What it says else is passed on.
progress() {
	local line status packages=0 modules=0 next=$((SECONDS + 10))
	while :; do
		status=0
		read -r -t 10 line || status=$?
		if [ "$status" -eq 0 ]; then
			case $line in
			"go: downloading "*) modules=$((modules + 1)) ;;
			*[!a-zA-Z0-9./_~-]*) echo "$line" >&2 ;;
			*) packages=$((packages + 1)) ;;
			esac
		elif [ "$status" -le 128 ]; then
			return 0 # the end
		fi
		if [ "$SECONDS" -ge "$next" ]; then
			echo "tools: $1: after $SECONDS s, modules downloaded: $modules, packages compiled: $packages" >&2
			next=$((SECONDS + 10))
		fi
	done
}

# build name: makes its folder. Another run may be quicker: then its folder stays.
build() {
	local to version
	to=$(folder "$1") version=$(version "$1")
	[ ! -d "$to" ] || return 0
	echo "tools: building $1 $version to $to, which takes about ${takes[$1]} the first time" >&2
	SECONDS=0
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	(cd "${module[$1]}" && "build_$1" "$version" "$work") 2>&1 | progress "$1"
	chmod 755 "$work"
	mv --no-target-directory "$work" "$to" 2>/dev/null || [ -d "$to" ]
	rm -rf "$work"
	echo "tools: $1 is built, after $SECONDS s" >&2
}

usage() {
	sed -n 's/^# \(tools.sh .*\)/usage: \1/p' "$0" >&2
	exit 2
}

find=
if [ "${1:-}" = find ]; then
	find=1
	shift
	[ $# -eq 1 ] || usage
fi
[ $# -gt 0 ] || set -- kubernetes prometheus
[ $# -eq 1 ] || all=1
for name; do
	[ -n "${module[$name]:-}" ] || usage
	if [ -n "$find" ] && [ ! -d "$(folder "$name")" ]; then
		echo "run make tools: there is no $(folder "$name")" >&2
		exit 1
	fi
	build "$name"
	[ -n "${all:-}" ] || folder "$name"
done
