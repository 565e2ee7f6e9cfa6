#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the kernel tests on Debian's Linux 6.1, or another series of its, in virtual machines: each
# file of boots/ is one boot, with the tests that it names; two run at a time. Needs Go,
# qemu-system-x86, busybox-static, cpio and kmod, and no privileges.
#
# run.sh [boot...]    these boots alone
# VM_LOGS=folder      keep the logs there
set -euo pipefail
PATH=$PATH:/usr/sbin # modprobe, which needs no root here
cd "$(dirname "$0")/../.."
vm=hack/vm
packages=(bpf datapath cmd/podmeter cmd/podmeter/demo hack/hostile)

work=$(mktemp -d)
declare -A machines=() began=() # the boots that run, by their process: its name and its begin
finish() {
	local machine
	for machine in "${!machines[@]}"; do
		kill "$machine" 2>/dev/null || true # timeout ends the machine with itself
		wait "$machine" || true
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
logs=${VM_LOGS:-$work/logs}
mkdir -p "$logs"

# The tree, as tests read files of it, with each package's test binary in its folder, and podmeter.
tests() {
	local package
	mkdir "$1"
	tar --create --exclude ./.git --exclude ./bin . | tar --extract --directory "$1"
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$1/bin/podmeter" ./cmd/podmeter
	for package in "${packages[@]}"; do
		CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o "$1/$package/test" "./$package"
	done
}

# modules kernel folder: modules by their place in the order in which they are to be loaded.
modules() {
	local kernel=$1 name release path
	release=$(cat "$kernel/release")
	shift
	mkdir -p "$1"
	for name in $(grep -v '^#' "$vm/modules"); do
		modprobe --dirname "$kernel" --set-version "$release" --show-depends "$name"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
		cp "$path" "$1/"
		basename "$path"
	done >"$1/order"
}

# root makes what is the same of every kernel.
root() {
	local root=$work/root
	mkdir -p "$root"/{bin,boots,dev,etc,proc,run,sys,tmp,var}
	cp "$(command -v busybox)" "$root/bin/busybox"
	cp "$vm/init" "$root/init"
	cp "$vm"/boots/* "$root/boots/"
	echo '127.0.0.1 localhost node' >"$root/etc/hosts"
	tests "$root/podmeter"
}

# initramfs series: makes that of a kernel, once.
initramfs() {
	[ ! -f "$work/initramfs-$1" ] || return 0
	rm -rf "$work/root/modules"
	kernels[$1]=$("$vm/kernel.sh" "$1")
	modules "${kernels[$1]}" "$work/root/modules"
	(cd "$work/root" && find . | cpio --quiet --create --format newc --owner 0:0) >"$work/initramfs-$1"
}

# boot name becomes the machine, which ends when it is off or its time is over; run
# it in the background. Its output goes to two logs.
boot() {
	series=6.1
	. "$vm/boots/$1"
	# -no-reboot and panic=-1 make the end of a kernel that panics the machine's.
	# The self-tests of ciphers, which nothing here uses, can hang in an emulated processor.
	exec timeout --kill-after 10 "$limit" qemu-system-x86_64 -accel tcg -cpu max -smp "$cpus" -m 4G \
		-nodefaults -no-user-config -display none -no-reboot \
		-serial "file:$logs/$1.kernel" -serial "file:$logs/$1.tests" \
		-kernel "${kernels[$series]}/vmlinuz" -initrd "$work/initramfs-$series" \
		-append "console=ttyS0 quiet panic=-1 cryptomgr.notests podmeter.boot=$1 $append" </dev/null
}

# report name status: whether all of its tests ran and passed. What failed comes last, as logs
# of CI are cut at their beginning.
report() {
	local log=$logs/$1.tests summary
	sed -i 's/\r$//' "$log"
	if summary=$(awk -f "$vm/report.awk" "$log"); then
		echo "$summary"
		return
	fi
	printf 'boot %s: not all of its tests passed (qemu: exit %s); the end of the kernel log, the end of its own, and what failed:\n' "$1" "$2"
	tail -n 40 "$logs/$1.kernel"
	tail -n 200 "$log"
	echo "$summary"
	return 1
}

# series boot: the kernel's series that it is of
series() { (series=6.1 && . "$vm/boots/$1" && echo "$series"); }

# reap waits until a boot has ended, and tells of it.
reap() {
	local ended status=0
	wait -n -p ended "${!machines[@]}" || status=$?
	report "${machines[$ended]}" "$status" || failed=1
	printf 'boot %s took %d s\n' "${machines[$ended]}" $((SECONDS - began[$ended]))
	unset "machines[$ended]"
}

declare -A kernels=()
root
boots=("$@")
[ $# -gt 0 ] || boots=(plain nohz_full plain612 cpus128 lockdown)
failed=0
for name in "${boots[@]}"; do
	[ ${#machines[@]} -lt 2 ] || reap
	initramfs "$(series "$name")"
	: >"$logs/$name.tests"
	boot "$name" &
	machines[$!]=$name began[$!]=$SECONDS
done
while [ ${#machines[@]} -gt 0 ]; do reap; done
exit "$failed"
