#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds Kubernetes from its Go modules, and prints the folder that then holds its
# commands. They are kept by the checksum of what they are built from; the first
# time takes about 8 minutes on 2 CPUs.
#
# CLUSTER_CACHE=folder   keep them there instead of in ~/.cache/podmeter/cluster
set -euo pipefail
cd "$(dirname "$0")/kubernetes"
export GOFLAGS=-mod=readonly CGO_ENABLED=0 GOWORK=off

cache=${CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podmeter/cluster}
version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2; exit } $2 == "k8s.io/kubernetes" { print $3; exit }' go.mod)
checksum=$({ cat go.mod go.sum ../build.sh && go env GOVERSION GOARCH; } | sha256sum | cut -c 1-16)
folder=$cache/$version-$checksum
commands=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
if [ -d "$folder" ]; then
	echo "$folder"
	exit
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d . -f 2 <<<"$version")"
done
SECONDS=0
for n in "${!commands[@]}"; do
	echo "building ${commands[n]} $version ($((n + 1)) of ${#commands[@]}, after $SECONDS s)" >&2
	go build -trimpath -ldflags "$flags" -o "$work/${commands[n]}" "k8s.io/kubernetes/cmd/${commands[n]}"
done
chmod 755 "$work"
# Another run may be quicker: then its folder stays.
mv --no-target-directory "$work" "$folder" 2>/dev/null || [ -d "$folder" ]
trap - EXIT
echo "$folder"
