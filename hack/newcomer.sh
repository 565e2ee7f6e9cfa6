#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Does what a newcomer does, on a minimal Debian 12 with nothing but Go, git, make and
# ca-certificates: clones what is committed here and runs the two commands of README.md's
# "Try it", to the letter, as root without a terminal. It fails if one of them fails, if a
# test failed or was skipped for another reason than those below, or if anything is left
# behind, there or on the machine.
#
# The Debian is a tmpfs in mount, pid, uts and ipc namespaces of its own with its own bpffs,
# so that it ends with them, however that comes; SIGKILL leaves a folder with one line. It
# has the machine's package sources, certificates, Go, and settings of Go, and shares Go's
# caches and that of `make tools`: what is tried is the set-up, not the download. Whoever
# makes links or cgroups on the machine meanwhile is taken for it. Needs root and
# debootstrap, and 4 GB of memory.
#
# REQUIRE_...=1           given to the commands, as CI does; a newcomer has none
# NEWCOMER_CACHE=folder   keep the bare root there instead of in ~/.cache/podmeter/newcomer,
#                         by suite and packages; it is made anew after 30 days
set -euo pipefail

suite=bookworm packages=git,make,ca-certificates
home=/root/podmeter # of the clone, within the root

# The reasons for which a test may be skipped.
allowed=(
	'^this kernel ' '^kernel without ' '^the kernel makes no ' # what Linux lacks here
	'make tools' 'make e2e' 'make stress' 'make soak' 'make test-vm' # what make test does not do
)
# What of the environment the commands get.
passed=(REQUIRE_KERNEL REQUIRE_KUBE REQUIRE_PROMETHEUS REQUIRE_CHROMIUM
	GOFLAGS GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOVCS GOTOOLCHAIN
	http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY)

say() { echo "newcomer: $*"; }
fail() {
	say "$*" >&2
	exit 1
}

# things lists what may be left behind, one a line. Of cgroups podmeter knows those of v2; what
# clusters of `make e2e` make beside is theirs.
things() {
	find /sys/class/net -mindepth 1 -printf 'link %f\n'
	sed -E 's/^([^ ]+ ){4}([^ ]+) .*/mount \2/' /proc/self/mountinfo
	find /run/netns -mindepth 1 -printf 'network namespace %p\n' 2>/dev/null || true
	awk '$3 == "cgroup2" { print $2 }' /proc/mounts | sort -u |
		xargs -I{} find {} -type d ! -path '*/podmeter-cluster-*' -printf 'cgroup %p\n' 2>/dev/null || true
	"$@"
}

# left before function: the things that are more than before and stay so for 20 s.
left() {
	local before=$1 after deadline=$((SECONDS + 20))
	after=$(comm -13 <(sort -u <<<"$before") <(things "$2" | sort -u))
	while [ -n "$after" ] && [ "$SECONDS" -lt "$deadline" ]; do
		sleep 0.5
		after=$(comm -12 <(echo "$after") <(things "$2" | sort -u))
	done
	echo "$after"
}

# --- On the machine ---

# machine lists further things of the machine: processes of the pid namespace in that file. Its
# files and pins cannot be reached from within, where both are looked for.
machine() {
	local process
	for process in /proc/[0-9]*; do
		[ -s "$folder/pid" ] && [ "$(readlink "$process/ns/pid")" = "$(<"$folder/pid")" ] && echo "process ${process#/proc/}"
	done 2>/dev/null || true
}

# populate root: makes it a minimal Debian, by debootstrap or as that made it before.
populate() {
	local cache=${NEWCOMER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podmeter/newcomer} kept mirror proxy=''
	kept=$cache/$suite-$packages.tar
	if [ -n "$(find "$kept" -mtime -30 2>/dev/null)" ]; then
		say "the bare root is $kept"
		tar --extract --file "$kept" --directory "$1"
		return
	fi
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" 2>/dev/null | head -n 1)
	say "debootstrap makes the bare root, which will be kept as $kept"
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	http_proxy=${proxy:-${http_proxy:-}} debootstrap --variant=minbase --include="$packages" "$suite" "$1" ${mirror:+"$mirror"} >"$1/bootstrap.log" 2>&1 ||
		{ tail -n 20 "$1/bootstrap.log"; fail "debootstrap failed"; }
	rm "$1/bootstrap.log"
	rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
	mkdir -p "$cache"
	tar --create --one-file-system --file "$kept.$$" --directory "$1" . && mv "$kept.$$" "$kept"
}

# configure root: the machine's package sources, certificates and settings of Go.
configure() {
	cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
	if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = "$suite" ]; then
		rm -rf "$1"/etc/apt/sources.list*
		cp -a /etc/apt/sources.list* /etc/apt/trusted.gpg.d /etc/apt/auth.conf* /etc/apt/keyrings "$1/etc/apt/" 2>/dev/null || true
		cp -an /usr/share/keyrings/. "$1/usr/share/keyrings/" 2>/dev/null || true
	fi
	apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv)' >"$1/etc/apt/apt.conf.d/99machine" || true
	cp -r /usr/local/share/ca-certificates/. "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
	chroot "$1" update-ca-certificates >/dev/null 2>&1
	mkdir -p "$1/root/.config/go"
	cp "$(go env GOENV)" "$1/root/.config/go/env" 2>/dev/null || true
}

# attach root: what it has of the machine while it is used.
attach() {
	local tools=${TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/podmeter/tools}
	bind() { mkdir -p "$1" "$2" && mount --bind "${@:3}" "$1" "$2"; }
	bind "$(go env GOROOT)" "$1/usr/local/go" -o ro
	bind "$(go env GOCACHE)" "$1/root/.cache/go-build"
	bind "$(go env GOMODCACHE)" "$1/root/go/pkg/mod"
	[ ! -d "$tools" ] || bind "$tools" "$1/root/.cache/podmeter/tools" -o ro
	mount -t proc proc "$1/proc"
	mount --rbind /sys "$1/sys"
	mount -t bpf bpf "$1/sys/fs/bpf"
	mount --rbind /dev "$1/dev"
	mount -t tmpfs tmpfs "$1/dev/shm"
}

# enter root: goes on in it, with an environment of its own.
enter() {
	local name environment=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
	for name in "${passed[@]}"; do
		[ ! -v "$name" ] || environment+=("$name=${!name}")
	done
	git clone --quiet --no-hardlinks "$repository" "$1$home"
	cp "$script" "$1/newcomer.sh"
	mkdir "$1/machine"
	cd "$1"
	pivot_root . machine
	umount --lazy /machine
	rmdir /machine
	hostname newcomer
	exec env --ignore-environment "${environment[@]}" bash /newcomer.sh --within
}

# --- Within the root ---

# belongings lists further things of the root: the commands' processes, which have sessions
# of their own, and files where no package has any but adduser, whose installation makes one.
belongings() {
	local process
	for process in /proc/[0-9]*; do
		[ "$(session "$process")" = "$(session /proc/1)" ] ||
			printf 'process %s\n' "${process#/proc/} $(tr '\0' ' ' <"$process/cmdline" || true)"
	done 2>/dev/null
	find /sys/fs/bpf -mindepth 1 -printf 'pin %p\n'
	find /tmp /var/tmp /run /dev/shm /root /home /opt /srv /mnt /media /usr/sbin/policy-rc.d* \
		\( -path "$home" -o -path /root/.cache/go-build -o -path /root/go/pkg -o -path /root/.cache/podmeter/tools -o -path /root/.config/go -o -path /run/adduser \) -prune \
		-o -mindepth 1 -printf 'file %p\n' 2>/dev/null || true
}

# session process: its id; that of the first if it is gone.
session() { awk '{ sub(/.*\) /, ""); print $4 }' "$1/stat" 2>/dev/null || session /proc/1; }

# commands prints those of README.md.
commands() {
	awk '/^## Try it$/ { here = 1; next } here && /^    / { print substr($0, 5); some = 1; next } some || /^## / && here { exit }' "$home/README.md"
}

# unexpected log: why tests were skipped that may not be.
unexpected() {
	local pattern
	pattern=$(printf '|%s' "${allowed[@]}")
	awk '/^skipped:$/ { here = 1; next } here && !sub(/^ +[0-9]+  /, "") { exit } here' "$1" | grep -vE "${pattern#|}" || true
}

# try command log: runs it without a terminal. What it leaves behind may hold its output.
try() {
	local status=0 output tee deadline
	say "\$ $1"
	SECONDS=0
	exec {output}> >(exec tee "$2")
	tee=$!
	setsid --wait bash -c "$1" </dev/null >&"$output" 2>&1 {output}>&- || status=$?
	exec {output}>&-
	deadline=$((SECONDS + 10))
	while [ -d "/proc/$tee" ] && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
	[ "$status" -eq 0 ] || fail "$1 failed, after $SECONDS s"
	say "$1 took $SECONDS s"
}

within() {
	local all before command bad log=/newcomer.log
	cd "$home"
	mapfile -t all < <(commands)
	[ ${#all[@]} -eq 2 ] || fail "README.md has ${#all[@]} commands to try, want 2"
	before=$(things belongings)
	for command in "${all[@]}"; do
		try "$command" "$log"
	done
	[[ $(tail -n 1 "$log") =~ ^[0-9]+\ passed,\ 0\ failed,\ [0-9]+\ skipped$ ]] || fail "the last line is not 'N passed, 0 failed, N skipped'"
	bad=$(unexpected "$log")
	[ -z "$bad" ] || fail "tests were skipped that a newcomer can run:"$'\n'"$bad"
	bad=$(left "$before" belongings)
	[ -z "$bad" ] || fail "left behind:"$'\n'"$bad"
}

if [ "${1:-}" = --within ]; then
	within
	exit
fi
script=$(realpath "$0") repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
[ "$(id -u)" -eq 0 ] || fail "needs root"
if [ "${1:-}" = --apart ]; then
	readlink /proc/self/ns/pid >"$2/pid"
	mount --make-rprivate /
	mount -t tmpfs -o mode=755,size=6G newcomer "$2"
	populate "$2"
	configure "$2"
	attach "$2"
	enter "$2"
fi

command -v debootstrap >/dev/null || fail "needs the package debootstrap: hack/setup.sh ci"
folder=$(mktemp -d) child=
finish() {
	[ -z "$child" ] || { kill -KILL "$child" 2>/dev/null && wait "$child" || true; }
	rm -f "$folder/pid"
	rmdir "$folder"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
before=$(things machine)
# In the background, so that a signal is heard at once, but without its ignored ones.
env --default-signal setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --fork --kill-child \
	"$script" --apart "$folder" </dev/null &
child=$!
status=0
wait "$child" || status=$?
child=
bad=$(left "$before" machine)
[ -z "$bad" ] || say "left behind on the machine:"$'\n'"$bad"
[ "$status" -eq 0 ] && [ -z "$bad" ] || fail "failed, after $SECONDS s"
say "a newcomer's two commands passed, and left nothing, after $SECONDS s"
