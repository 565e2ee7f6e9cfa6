#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The first process of the node: makes its mounts and network, and stays as the
# parent of whatever loses its own. up.sh starts it in new namespaces, in which all
# of this ends with it.
set -euo pipefail
. "$(dirname "$0")/common.sh"

. "$state/plan"
read -r pid _ </proc/self/stat # as the machine's /proc has it

mounts() {
	mount --make-rprivate /
	mount -t proc proc /proc
	# A sysfs shows the devices of the network namespace that it was mounted in.
	mkdir -p "$data/cgroup" "$data/lib" "$data/log" "$data/state"
	mount --rbind /sys/fs/cgroup "$data/cgroup"
	mount -t sysfs sysfs /sys
	mount --move "$data/cgroup" /sys/fs/cgroup
	mount -t bpf bpf /sys/fs/bpf
	mount --bind "$data/lib" /var/lib
	mount --bind "$data/log" /var/log
	mount --bind "$state" "$data/state"
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p "$state" /run/netns /run/lock
	mount --move "$data/state" "$state"
	mount --bind "$state/hosts" /etc/hosts
	mount --make-rshared /
}

# network: the node's uplink leads to a namespace that plays the internet.
network() {
	sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
	ip link set lo up
	ip netns add internet
	ip link add eth0 type veth peer name node netns internet
	ip address add "$NODE_IP/24" dev eth0
	ip address add "$NODE_IP6/64" dev eth0 nodad
	ip link set eth0 up
	ip -n internet address add "$INTERNET_IP/24" dev node
	ip -n internet address add "$INTERNET_IP6/64" dev node nodad
	ip -n internet link set lo up
	ip -n internet link set node up
	for prefix in 198.51.100.0/24 203.0.113.0/24 2001:db8:ffff::/48; do
		ip -n internet route add local "$prefix" dev lo
	done
	# A server there may take any of these addresses.
	ip netns exec internet sysctl -q -w net.ipv6.ip_nonlocal_bind=1
	ip route add default via "$INTERNET_IP"
	ip -6 route add default via "$INTERNET_IP6"
}

mounts
network
{
	cat "$state/plan"
	echo "NODE_PID=$pid"
	echo "NODE_STARTED=$(started 1)"
} >"$state/env.new"
mv "$state/env.new" "$state/env"
trap : TERM INT
while :; do
	sleep infinity &
	wait $! || true
done
