# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC1091
#
# What the scripts of the cluster share; to be sourced. One cluster is named by
# CLUSTER. Of it the machine has $state, which the node sees at the same path,
# $data, the cgroup /$cgroup, and the processes of the node's pid namespace; nothing
# else.

export CLUSTER=${CLUSTER:-podmeter}
[[ $CLUSTER =~ ^[a-z]([a-z0-9-]{0,14}[a-z0-9])?$ ]] || {
	echo "CLUSTER=$CLUSTER: want up to 16 lower-case letters, digits and -" >&2
	exit 2
}
state=/run/podmeter-cluster/$CLUSTER
data=/var/tmp/podmeter-cluster/$CLUSTER
# A kubelet ends what it does not know in its cgroup, so each has one.
cgroup=podmeter-cluster-$CLUSTER
components=(etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
export PATH=$PATH:/usr/sbin:/sbin

fail() {
	echo "cluster $CLUSTER: $*" >&2
	exit 1
}

root() {
	[ "$(id -u)" -eq 0 ] || fail "a node needs root: sudo make $1"
}

# running reports whether the node's first process is there.
running() {
	[ -f "$state/env" ] || return
	. "$state/env"
	within && return
	[ -d "/proc/$NODE_PID" ] && [ "$(started "$NODE_PID")" = "$NODE_STARTED" ]
}

# started pid: when a process was started, which tells it from a later one.
started() {
	awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null
}

# within reports whether this script is run in the node, as a test there does.
within() { [ "${WITHIN_CLUSTER:-}" = "$CLUSTER" ]; }

# inside command...: runs a command in the node's namespaces.
inside() {
	local enter=(nsenter --target "$NODE_PID" --net --mount --pid --wd=/)
	within && enter=(env --chdir /)
	# kubectl would keep what it has discovered in the home directory.
	PATH=$state/bin:$PATH KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl CONTAINERD_NAMESPACE=k8s.io \
		WITHIN_CLUSTER=$CLUSTER "${enter[@]}" "$@"
}

# cgroups: the folders of $cgroup, which is one for each controller in cgroup v1.
cgroups() {
	local file=/sys/fs/cgroup/cgroup.procs
	[ -f "$file" ] || file="/sys/fs/cgroup/*/cgroup.procs"
	for file in $file; do
		[ -f "$file" ] && echo "${file%/*}/$cgroup"
	done
}

# busybox_root folder: makes it the root of a system of busybox alone.
busybox_root() {
	mkdir -p "$1/bin" "$1/tmp"
	cp "$(command -v busybox)" "$1/bin/busybox"
	busybox --list | grep -v busybox | xargs -I{} ln -sf busybox "$1/bin/{}"
}

# await seconds what command...: until the command succeeds.
await() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.2
	done
}

# awaited seconds what component command...: the same, or the end with the
# component's log.
awaited() {
	local seconds=$1 what=$2 component=$3
	shift 3
	await "$seconds" "$what" "$@" && return
	echo "cluster $CLUSTER: $what did not come within $seconds s; the end of $state/logs/$component.log:" >&2
	tail -n 20 "$state/logs/$component.log" >&2
	exit 1
}

# alive component: whether its process is there, by its id in the node.
alive() {
	[ -s "$state/pids/$1" ] && inside sh -c "[ -d /proc/$(cat "$state/pids/$1") ]"
}
