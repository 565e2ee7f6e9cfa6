#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Shows what of the cluster runs, and its pods.
set -euo pipefail
. "$(dirname "$0")/common.sh"
if ! running; then
	echo "cluster $CLUSTER: not up"
	exit 1
fi
echo "cluster $CLUSTER: node $NODE, CNI plugin $CNI, stack $STACK, $NODE_IPS"
status=0
for component in "${components[@]}"; do
	if alive "$component"; then
		echo "  $component"
	else
		echo "  $component: not running, see $state/logs/$component.log"
		status=1
	fi
done
inside kubectl get nodes,pods --all-namespaces -o wide || status=1
exit "$status"
