#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the kernel tests on Debian's Linux 6.1 in a virtual machine: each file of
# boots/ is one boot of it, with the tests that it names. Needs Go,
# qemu-system-x86, busybox-static, cpio and kmod, and no privileges.
#
# run.sh [boot...]    these boots alone
# VM_LOGS=folder      keep the logs there
set -euo pipefail
PATH=$PATH:/usr/sbin # modprobe, which needs no root here
cd "$(dirname "$0")/../.."
vm=hack/vm
packages=(bpf datapath cmd/podmeter cmd/podmeter/demo)

work=$(mktemp -d)
machine=
finish() {
	if [ -n "$machine" ]; then
		kill "$machine" 2>/dev/null || true # timeout ends the machine with itself
		wait "$machine" || true
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
logs=${VM_LOGS:-$work/logs}
mkdir -p "$logs"

# The tree, as tests read files of it, with each package's test binary in its folder.
tests() {
	local package
	mkdir "$1"
	tar --create --exclude ./.git --exclude ./bin . | tar --extract --directory "$1"
	for package in "${packages[@]}"; do
		CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o "$1/$package/test" "./$package"
	done
}

# Modules by their place in the order in which they are to be loaded.
modules() {
	local name release path
	release=$(cat "$kernel/release")
	mkdir -p "$1"
	for name in $(grep -v '^#' "$vm/modules"); do
		modprobe --dirname "$kernel" --set-version "$release" --show-depends "$name"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
		cp "$path" "$1/"
		basename "$path"
	done >"$1/order"
}

initramfs() {
	local root=$work/root
	mkdir -p "$root"/{bin,boots,dev,etc,proc,run,sys,tmp,var}
	cp "$(command -v busybox)" "$root/bin/busybox"
	cp "$vm/init" "$root/init"
	cp "$vm"/boots/* "$root/boots/"
	echo '127.0.0.1 localhost node' >"$root/etc/hosts"
	modules "$root/modules"
	tests "$root/podmeter"
	(cd "$root" && find . | cpio --quiet --create --format newc --owner 0:0) >"$work/initramfs"
}

# boot name becomes the machine, which ends when it is off or its time is over; run
# it in the background. Its output goes to two logs.
boot() {
	. "$vm/boots/$1"
	# -no-reboot and panic=-1 make the end of a kernel that panics the machine's.
	# The self-tests of ciphers, which nothing here uses, can hang in an emulated processor.
	exec timeout --kill-after 10 "$limit" qemu-system-x86_64 -accel tcg -cpu max -smp "$cpus" -m 4G \
		-nodefaults -no-user-config -display none -no-reboot \
		-serial "file:$logs/$1.kernel" -serial "file:$logs/$1.tests" \
		-kernel "$kernel/vmlinuz" -initrd "$work/initramfs" \
		-append "console=ttyS0 quiet panic=-1 cryptomgr.notests podmeter.boot=$1 $append" </dev/null
}

# report name status: whether all of its tests ran and passed
report() {
	local log=$logs/$1.tests
	sed -i 's/\r$//' "$log"
	awk -f "$vm/report.awk" "$log" && return
	printf 'boot %s: not all of its tests passed (qemu: exit %s); the end of the kernel log and the whole log:\n' "$1" "$2"
	tail -n 40 "$logs/$1.kernel"
	cat "$log"
	return 1
}

kernel=$("$vm/kernel.sh")
initramfs
boots=("$@")
[ $# -gt 0 ] || boots=(plain nohz_full cpus64 lockdown)
failed=0
for name in "${boots[@]}"; do
	: >"$logs/$name.tests"
	SECONDS=0
	boot "$name" &
	machine=$!
	status=0
	wait "$machine" || status=$?
	machine=
	report "$name" "$status" || failed=1
	printf 'boot %s took %d s\n' "$name" "$SECONDS"
done
exit "$failed"
