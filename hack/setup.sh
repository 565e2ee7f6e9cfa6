#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages of hack/packages.txt that are missing: those of the
# list "test", or with "ci" those of both. It says which and how large they are before,
# and asks on a terminal, unless CI is set. Their services are neither started nor left
# to start at the next boot. On another system, or without root, it prints what is
# missing.
#
# setup.sh test       what is missing stays so without an error: tests are skipped for it
# setup.sh ci         what is missing at the end is an error
# SETUP=on            do not ask
# SETUP=off           install nothing
# SETUP_ROOT=folder   look for files there instead of in /; for tests
set -euo pipefail
packages=$(dirname "$0")/packages.txt root=${SETUP_ROOT:-}
export LC_ALL=C PATH=$PATH:$root/usr/sbin:$root/sbin
policy=$root/usr/sbin/policy-rc.d
mark="# podmeter's hack/setup.sh keeps services from starting"

say() { echo "set-up: $*"; }

# is_there package found-by: whether it is installed, or what is wanted of it is there.
is_there() {
	local one
	if [ "$2" = - ]; then
		[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
		return
	fi
	for one in ${2//|/ }; do
		case $one in
		/*) [ ! -e "$root$one" ] || return 0 ;;
		*) ! command -v "$one" >/dev/null || return 0 ;;
		esac
	done
	return 1
}

# look sets missing, and why each of it is needed.
look() {
	local of package found_by needed_by
	missing=()
	while read -r of package found_by needed_by; do
		[[ $of = test || $of = "$list" ]] || continue
		is_there "$package" "$found_by" || missing+=("$package") why[$package]=$needed_by
	done <"$packages"
}

list_missing() {
	local package
	for package in "${missing[@]}"; do
		printf '  %-28s %s\n' "$package" "${why[$package]}"
	done
}

# leave reason: the end, with what is missing.
leave() {
	say "$1; these Debian packages are missing:"
	list_missing
	[ "$list" = test ] || exit 1
	say "tests that need them are skipped"
	exit 0
}

known_system() {
	local ID='' ID_LIKE=''
	. "$root/etc/os-release" 2>/dev/null || true
	[[ " $ID $ID_LIKE " =~ \ (debian|ubuntu)\  ]] && command -v apt-get >/dev/null
}

update() {
	say "apt-get update, as $1"
	apt-get update -qq -o APT::Update::Error-Mode=any </dev/null || {
		say "apt-get update failed"
		return 1
	}
}

# choose sets wanted: what apt can install of what is missing.
choose() {
	local package
	wanted=()
	for package in "${missing[@]}"; do
		! apt-cache policy "$package" 2>/dev/null | grep "^ *Candidate: [^(]" >/dev/null || wanted+=("$package")
	done
}

# plan says what will be installed, with apt's own figures.
plan() {
	say "what $list needs and is not installed:"
	list_missing
	say "apt-get install --no-install-recommends ${wanted[*]}"
	{ apt-get install --assume-no --no-install-recommends --no-remove -o Debug::NoLocking=true "${wanted[@]}" </dev/null 2>/dev/null || true; } |
		sed -En '/newly installed|^Need to get|^After this operation/s/^/  /p'
}

agreed() {
	local answer
	[ "${SETUP:-}" != on ] && [ -z "${CI:-}" ] && [ -t 0 ] && [ -t 1 ] || return 0
	read -r -p "Install them? [Y/n] " answer || answer=no # at the end of input
	[[ $answer =~ ^([Yy]([Ee][Ss])?)?$ ]]
}

# Debian's packages start their services, unless this file says no.
forbid_services() {
	allow_services # if an earlier run was killed
	[ ! -e "$policy" ] || cp -a "$policy" "$policy.podmeter"
	printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy.new"
	chmod 755 "$policy.new"
	mv -f "$policy.new" "$policy"
}

allow_services() {
	if [ -e "$policy.podmeter" ]; then
		mv -f "$policy.podmeter" "$policy"
	elif grep -qsF "$mark" "$policy"; then
		rm -f "$policy"
	fi
}

# enabled lists the units that start with the system; without systemctl there are none.
enabled() {
	! command -v systemctl >/dev/null ||
		systemctl --root="${root:-/}" list-unit-files --state=enabled --no-legend --no-pager 2>/dev/null | awk '{ print $1 }' | sort
}

# disable_new before: disables the units that were not enabled before.
disable_new() {
	local new
	mapfile -t new < <(comm -13 <(echo "$1") <(enabled))
	[ ${#new[@]} -eq 0 ] || systemctl --root="${root:-/}" --quiet disable "${new[@]}" || say "cannot disable ${new[*]}"
}

# progress file: shows every 5 s how far apt is, whose output goes to the file.
progress() {
	local line status fetched=0 unpacked=0 set_up=0 next=$((SECONDS + 5))
	while :; do
		status=0
		read -r -t 5 line || status=$?
		if [ "$status" -eq 0 ]; then
			echo "$line" >&3
			case $line in
			Get:*) fetched=$((fetched + 1)) ;;
			Unpacking*) unpacked=$((unpacked + 1)) ;;
			Setting\ up*) set_up=$((set_up + 1)) ;;
			esac
		elif [ "$status" -le 128 ]; then
			return 0 # the end
		fi
		if [ "$SECONDS" -ge "$next" ]; then
			say "packages fetched: $fetched, unpacked: $unpacked, set up: $set_up"
			next=$((SECONDS + 5))
		fi
	done 3>"$1"
}

# try package...: installs them. What apt says is shown if that fails.
try() {
	local log
	log=$(mktemp)
	if DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get install -qy --no-install-recommends --no-remove \
		-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold "$@" </dev/null 2>&1 | progress "$log"; then
		rm "$log"
		return
	fi
	say "apt-get install $* failed:"
	tail -n 20 "$log"
	rm "$log"
	return 1
}

# install installs what is wanted: all of it, or else what can be had.
install() {
	local package before
	had_systemctl=$(command -v systemctl || true)
	before=$(enabled)
	forbid_services
	if ! try "${wanted[@]}" && update "its lists may be old"; then
		for package in "${wanted[@]}"; do
			try "$package" || true
		done
	fi
	# A systemctl that came just now has brought all of the system's units.
	[ -z "$had_systemctl" ] || disable_new "$before"
	allow_services
}

list=${1:-}
[[ $list = test || $list = ci ]] && [[ ${SETUP:-} =~ ^(on|off|)$ ]] || {
	echo "usage: [SETUP=on|off] setup.sh test|ci" >&2
	exit 2
}
declare -A why
look
[ ${#missing[@]} -gt 0 ] || exit 0
[ "${SETUP:-}" != off ] || leave "left out, as SETUP=off says"
known_system || leave "this is neither Debian nor Ubuntu"
[ "$(id -u)" -eq 0 ] || leave "installing needs root"
choose
if [ ${#wanted[@]} -lt ${#missing[@]} ]; then
	update "apt does not know all of it" || true
	choose
fi
[ ${#wanted[@]} -gt 0 ] || leave "apt knows none of it"
plan
agreed || leave "left out"
trap allow_services EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
install
look
[ ${#missing[@]} -eq 0 ] || leave "not all of it can be had here"
say "done, after $SECONDS s"
