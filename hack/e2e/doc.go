// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests of podmeter in a real Kubernetes, the cluster of one
// node of hack/cluster. They run inside the node, whose network, mounts and
// processes are theirs, with kubectl of the cluster's commands; run.sh brings all
// of it up, and down again.
package e2e
