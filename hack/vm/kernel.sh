#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kernel.sh [series]: unpacks the newest Linux of a series of Debian's that apt knows, 6.1 by
# default, and prints the folder that then holds it: vmlinuz, release, and modules.dep beside
# the modules. Nothing is installed; what was unpacked is kept by the package's checksum.
#
# VM_KERNEL=package   take this package instead
# VM_CACHE=folder     keep it there instead of in ~/.cache/podmeter/vm
set -euo pipefail
PATH=$PATH:/usr/sbin # depmod and modprobe, which need no root here

series=${1:-6.1}
cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podmeter/vm}

# find_kernel sets package and its checksum, as apt knows them.
find_kernel() {
	package=${VM_KERNEL:-$(apt-cache pkgnames "linux-image-$series." |
		grep -E "^linux-image-${series/./\\.}\\.[0-9]+(-[0-9]+|\\+deb12)-cloud-amd64$" | sort -V | tail -n 1)} || return
	checksum=$(apt-cache show --no-all-versions "$package" | sed -n 's/^SHA256: //p')
	[ -n "$checksum" ]
}

# unpack makes the folder out of the package. Another run may be quicker: then
# its folder stays.
unpack() {
	(cd "$work" && apt-get -o APT::Sandbox::User=root download -q "$package" >&2) &&
		echo "$checksum  $(echo "$work"/*.deb)" | sha256sum --check --quiet >&2 &&
		dpkg-deb --extract "$work"/*.deb "$work/all" &&
		release=$(basename "$work"/all/lib/modules/*) &&
		mkdir "$work/kernel" &&
		mv "$work/all/boot/vmlinuz-$release" "$work/kernel/vmlinuz" &&
		mv "$work/all/lib" "$work/kernel/lib" &&
		depmod --basedir "$work/kernel" "$release" &&
		echo "$release" >"$work/kernel/release" &&
		{ mv --no-target-directory "$work/kernel" "$cache/$checksum" || [ -f "$cache/$checksum/release" ]; }
}

# kernel finds the package and unpacks it if that was not done before.
kernel() {
	find_kernel && { [ -f "$cache/$checksum/release" ] || unpack; }
}

mkdir -p "$cache"
work=$(mktemp -d "$cache/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
# What apt knows may be nothing yet, or of packages that are no longer there.
if ! kernel && ! { apt-get update -q >&2 && kernel; }; then
	echo "kernel.sh: apt has no ${VM_KERNEL:-linux-image-$series.*-cloud-amd64, which is in Debian 12}" >&2
	exit 1
fi
echo "$cache/$checksum"
