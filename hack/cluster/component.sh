#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts, stops or kills one component of the cluster, as an outage test needs it.
#
# component.sh start|stop|kill|restart NAME
set -euo pipefail
. "$(dirname "$0")/common.sh"
running || fail "is not up: make cluster-up"

certificates=$state/certificates

# arguments name: sets command, as the component is run inside the node.
arguments() {
	case $1 in
	etcd)
		command=(etcd --data-dir /var/lib/etcd --unsafe-no-fsync
			--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
			--listen-peer-urls http://127.0.0.1:2380 --log-level warn) ;;
	containerd)
		command=(containerd --config "$state/containerd.toml") ;;
	kube-apiserver)
		command=(kube-apiserver --etcd-servers http://127.0.0.1:2379 --secure-port 6443
			--advertise-address "$NODE_IP" --tls-cert-file "$certificates/apiserver.crt"
			--tls-private-key-file "$certificates/apiserver.key" --client-ca-file "$certificates/ca.crt"
			--token-auth-file "$state/tokens.csv" --authorization-mode Node,RBAC
			--allow-privileged --service-cluster-ip-range "$SERVICE_CIDRS"
			--service-account-issuer https://kubernetes.default.svc
			--service-account-key-file "$certificates/accounts.key"
			--service-account-signing-key-file "$certificates/accounts.key"
			--enable-aggregator-routing=false --kubelet-preferred-address-types InternalIP) ;;
	kube-controller-manager)
		command=(kube-controller-manager --kubeconfig "$state/kubeconfig" --cluster-cidr "$POD_CIDRS"
			--allocate-node-cidrs --node-cidr-mask-size-ipv4 24 --service-cluster-ip-range "$SERVICE_CIDRS"
			--root-ca-file "$certificates/ca.crt" --leader-elect=false
			--service-account-private-key-file "$certificates/accounts.key"
			--use-service-account-credentials)
		[ "$STACK" = ipv4 ] || command+=(--node-cidr-mask-size-ipv6 64) ;;
	kube-scheduler)
		command=(kube-scheduler --kubeconfig "$state/kubeconfig" --leader-elect=false) ;;
	kubelet)
		command=(kubelet --kubeconfig "$state/kubelet.kubeconfig" --config "$state/kubelet.yaml"
			--hostname-override "$NODE" --node-ip "$NODE_IPS" --root-dir /var/lib/kubelet
			--housekeeping-interval 2s # of cAdvisor, whose counters are compared
			--node-labels topology.kubernetes.io/zone=zone-a,topology.kubernetes.io/region=region-1) ;;
	kube-proxy)
		command=(kube-proxy --kubeconfig "$state/kubeconfig" --proxy-mode nftables --hostname-override "$NODE"
			--cluster-cidr "$POD_CIDRS" --conntrack-max-per-core 0
			--conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0) ;;
	*) fail "no component $1: want one of ${components[*]}" ;;
	esac
}

# answers name: whether the component does its work.
answers() {
	case $1 in
	etcd) inside etcdctl --endpoints http://127.0.0.1:2379 endpoint health ;;
	containerd) inside ctr version ;;
	kube-apiserver) inside kubectl get --raw /readyz ;;
	kube-controller-manager) inside busybox wget -q --no-check-certificate -O /dev/null https://127.0.0.1:10257/healthz ;;
	kube-scheduler) inside busybox wget -q --no-check-certificate -O /dev/null https://127.0.0.1:10259/healthz ;;
	kubelet) inside busybox wget -q -O /dev/null http://127.0.0.1:10248/healthz ;;
	kube-proxy) inside busybox wget -q -O /dev/null http://127.0.0.1:10256/healthz ;;
	esac
}

start() {
	local command
	arguments "$1"
	alive "$1" && return
	(
		cd /
		exec 0</dev/null 1>>"$state/logs/$1.log" 2>&1
		inside setsid sh -c 'echo $$ >"$0"; exec "$@"' "$state/pids/$1" "${command[@]}" &
	)
	awaited 120 "an answer of $1" "$1" answers "$1"
}

# finish signal name: ends it and waits until it is gone.
finish() {
	alive "$2" || return 0
	inside kill "-$1" "$(cat "$state/pids/$2")"
	gone() { ! alive "$1"; }
	await 180 "end of $2" gone "$2" || fail "$2 does not end"
	rm -f "$state/pids/$2"
}

[ $# -eq 2 ] || {
	sed -n 's/^# \(component.sh .*\)/usage: \1/p' "$0" >&2
	exit 2
}
arguments "$2"
case $1 in
start) start "$2" ;;
stop) finish TERM "$2" ;;
kill) finish KILL "$2" ;;
restart)
	finish TERM "$2"
	start "$2"
	;;
*) fail "cannot $1 a component: want start, stop, kill or restart" ;;
esac
