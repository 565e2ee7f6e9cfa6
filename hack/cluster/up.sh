#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings up a Kubernetes of one node, in network, mount and pid namespaces of its
# own. What is up already stays.
#
# CLUSTER=name   to tell several apart; podmeter by default
# CNI=ptp        or bridge
# STACK=dual     or ipv4
# POD_IPS=250    how many addresses pods take turns with: few come back soon
set -euo pipefail
. "$(dirname "$0")/common.sh"
root cluster-up
here=$(cd "$(dirname "$0")" && pwd)
CNI=${CNI:-ptp} STACK=${STACK:-dual} POD_IPS=${POD_IPS:-250}
[[ $CNI = ptp || $CNI = bridge ]] || fail "CNI=$CNI: want ptp or bridge"
[[ $STACK = dual || $STACK = ipv4 ]] || fail "STACK=$STACK: want dual or ipv4"
[[ $POD_IPS =~ ^[0-9]+$ && $POD_IPS -ge 1 && $POD_IPS -le 250 ]] || fail "POD_IPS=$POD_IPS: want 1 to 250"

# needs command package...: in pairs.
needs() {
	local missing=()
	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$2")
		shift 2
	done
	[ ${#missing[@]} -eq 0 ] || fail "lacks packages: apt-get install --no-install-recommends ${missing[*]}"
}

# plan writes what of the cluster is fixed from its beginning.
plan() {
	cat >"$state/plan" <<-END
		NODE=$CLUSTER-0
		NODE_IP=10.250.0.2
		NODE_IP6=fd00:250::2
		INTERNET_IP=10.250.0.1
		INTERNET_IP6=fd00:250::1
		POD_CIDR=10.244.0.0/24
		POD_CIDR6=fd00:244::/64
		SERVICE_CIDR=10.96.0.0/16
		CNI=$CNI
		STACK=$STACK
		POD_IPS=$POD_IPS
		CONTAINERD=/run/containerd/containerd.sock
	END
	if [ "$STACK" = dual ]; then
		echo "NODE_IPS=10.250.0.2,fd00:250::2 POD_CIDRS=10.244.0.0/16,fd00:244::/56 SERVICE_CIDRS=10.96.0.0/16,fd00:96::/112"
	else
		echo "NODE_IPS=10.250.0.2 POD_CIDRS=10.244.0.0/16 SERVICE_CIDRS=10.96.0.0/16"
	fi >>"$state/plan"
	. "$state/plan"
}

certificates() {
	mkdir -p "$state/certificates"
	cd "$state/certificates"
	openssl ecparam -name prime256v1 -genkey -noout -out ca.key
	openssl req -x509 -new -key ca.key -subj /CN=kubernetes-ca -days 30 -out ca.crt
	openssl ecparam -name prime256v1 -genkey -noout -out apiserver.key
	openssl req -new -key apiserver.key -subj /CN=kube-apiserver -out apiserver.csr
	printf 'subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:fd00:96::1,IP:%s,IP:%s\n' \
		"$NODE_IP" "$NODE_IP6" >apiserver.ext
	openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
		-extfile apiserver.ext -out apiserver.crt 2>/dev/null
	openssl genrsa -out accounts.key 2048 2>/dev/null
	cd - >/dev/null
}

# account file user groups: a kubeconfig of a user that is known by a token.
account() {
	local token
	token=$(cat /proc/sys/kernel/random/uuid)
	echo "$token,$2,$2,\"$3\"" >>"$state/tokens.csv"
	cat >"$1" <<-END
		apiVersion: v1
		kind: Config
		clusters:
		- name: $CLUSTER
		  cluster: {server: "https://127.0.0.1:6443", certificate-authority: $state/certificates/ca.crt}
		users:
		- name: $2
		  user: {token: $token}
		contexts:
		- name: $CLUSTER
		  context: {cluster: $CLUSTER, user: "$2"}
		current-context: $CLUSTER
	END
}

network_plugin() {
	local ranges routes='{"dst": "0.0.0.0/0"}' shape last=$((POD_IPS + 1))
	ranges="[{\"subnet\": \"$POD_CIDR\", \"rangeEnd\": \"${POD_CIDR%.*}.$last\"}]"
	if [ "$STACK" = dual ]; then
		ranges+=", [{\"subnet\": \"$POD_CIDR6\", \"rangeEnd\": \"${POD_CIDR6%/*}$(printf %x "$last")\"}]"
		routes+=', {"dst": "::/0"}'
	fi
	shape='"ipMasq": true'
	[ "$CNI" = ptp ] || shape+=', "bridge": "cni0", "isGateway": true, "hairpinMode": true'
	mkdir -p "$state/cni"
	cat >"$state/cni/10-podmeter.conflist" <<-END
		{
		  "cniVersion": "1.0.0",
		  "name": "podmeter",
		  "plugins": [
		    {
		      "type": "$CNI", $shape,
		      "ipam": {"type": "host-local", "ranges": [$ranges], "routes": [$routes]}
		    },
		    {"type": "portmap", "capabilities": {"portMappings": true}}
		  ]
		}
	END
}

configuration() {
	printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$NODE_IP" "$NODE" >"$state/hosts"
	cat >"$state/containerd.toml" <<-END
		version = 2
		root = "/var/lib/containerd"
		state = "/run/containerd"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "/var/lib/containerd/opt" # not the machine's /opt
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "docker.io/local/pause:1"
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "$state/cni"
	END
	cat >"$state/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
		authorization: {mode: AlwaysAllow}
		cgroupDriver: cgroupfs
		cgroupRoot: /$cgroup
		volumePluginDir: /var/lib/kubelet/plugins/volume # not the machine's /usr/libexec
		failCgroupV1: false
		failSwapOn: false
		enforceNodeAllocatable: []
		evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
		imageGCHighThresholdPercent: 100 # the images cannot be had again, and a disk of 85 % is as good as another
		imageGCLowThresholdPercent: 99
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		maxPods: 250
		registryPullQPS: 0
		eventRecordQPS: 0
		resolvConf: /etc/resolv.conf
	END
	account "$state/kubeconfig" admin system:masters
	account "$state/kubelet.kubeconfig" "system:node:$NODE" system:nodes
	chmod 600 "$state"/*kubeconfig "$state/tokens.csv"
	network_plugin
}

# images: what a pod is made of, and a busybox to test with.
images() {
	local root=$data/image
	busybox_root "$root"
	"$here/image.sh" docker.io/local/pause:1 "$root" /bin/sleep 2147483647 >"$data/pause.tar"
	"$here/image.sh" podmeter.test/tools:1 "$root" /bin/sh >"$data/tools.tar"
	"$here/load.sh" "$data/pause.tar" "$data/tools.tar" >/dev/null
	rm -rf "$root" "$data"/*.tar
}

# cgroup_of_node makes the one that the kubelet works in. In a cpuset of cgroup v1
# nothing runs before it has CPUs and memory.
cgroup_of_node() {
	local folder file
	[ ! -f /sys/fs/cgroup/cgroup.subtree_control ] ||
		sed 's/[^ ]\+/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
	while read -r folder; do
		mkdir -p "$folder"
		for file in cpuset.cpus cpuset.mems; do
			[ ! -f "${folder%/*}/$file" ] || cat "${folder%/*}/$file" >"$folder/$file"
		done
	done < <(cgroups)
}

node_ready() {
	inside kubectl wait --for condition=Ready --timeout 1s "node/$NODE"
}

accounts_there() { inside kubectl get serviceaccount default; }

needs etcd etcd-server etcdctl etcd-client containerd containerd runc runc nft nftables conntrack conntrack iptables iptables \
	busybox busybox-static openssl openssl ip iproute2 go "Go, see README"
[ -x /usr/lib/cni/ptp ] || fail "lacks packages: apt-get install --no-install-recommends containernetworking-plugins"

if ! running; then
	"$here/down.sh" # of one that did not end well
	binaries=$("$here/../tools.sh" kubernetes)
	mkdir -p "$state/logs" "$state/pids" "$data"
	ln -s "$binaries" "$state/bin"
	plan
	certificates
	configuration
	cgroup_of_node
	setsid unshare --net --mount --pid --fork --propagation private \
		"$here/node.sh" </dev/null >"$state/logs/node.log" 2>&1 &
	awaited 20 "the node's namespaces" node running
fi
. "$state/env"
for component in etcd containerd kube-apiserver kube-controller-manager kube-scheduler; do
	"$here/component.sh" start "$component"
done
[ -f "$state/images" ] || images
touch "$state/images"
for component in kubelet kube-proxy; do
	"$here/component.sh" start "$component"
done
awaited 60 "the node's readiness" kubelet node_ready
awaited 60 "the default account" kube-controller-manager accounts_there
echo "cluster $CLUSTER is up, after $SECONDS s: $here/enter.sh kubectl get pods -A"
