// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"log/slog"
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// unfit says why the pods of a template may not stay on a node, empty if they may. It
// is what the DaemonSet controller asks before it deletes one (nodeShouldRunDaemonPod).
// What cannot be understood is no reason.
func unfit(pod *corev1.PodSpec, node *corev1.Node, log *slog.Logger) (why string) {
	matches, err := nodeaffinity.NewRequiredNodeAffinity(pod.NodeSelector, pod.Affinity).Match(node)
	if err == nil && !matches {
		return "its labels do not match nodeSelector or the required node affinity"
	}
	evicts := func(taint *corev1.Taint) bool { return taint.Effect == corev1.TaintEffectNoExecute }
	taint, found := scheduling.FindMatchingUntoleratedTaint(
		logr.FromSlogHandler(log.Handler()), node.Spec.Taints, tolerations(pod), evicts, true)
	if found {
		return "its taint " + taint.ToString() + " is not tolerated"
	}
	return ""
}

// tolerations are those of a template and those that the controller adds to every
// DaemonSet's pods, of which only these are about pods that run already
// (AddOrUpdateDaemonPodTolerations).
func tolerations(pod *corev1.PodSpec) []corev1.Toleration {
	all := slices.Clone(pod.Tolerations)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		all = append(all, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
		})
	}
	return all
}
