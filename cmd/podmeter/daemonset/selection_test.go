// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestUnfit(t *testing.T) {
	zone := func(operator corev1.NodeSelectorOperator, values ...string) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelTopologyZone, Operator: operator, Values: values},
			}}},
		}}}
	}
	named := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"here"}},
		}}},
	}}}
	preferred := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
		{Weight: 1, Preference: zone(corev1.NodeSelectorOpIn, "b").NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]},
	}}}
	taint := func(effect corev1.TaintEffect) []corev1.Taint {
		return []corev1.Taint{{Key: "dedicated", Value: "db", Effect: effect}}
	}
	for _, test := range []struct {
		name string
		pod  corev1.PodSpec
		node corev1.NodeSpec
		want string
	}{
		{name: "nothing is asked"},
		{name: "label", pod: corev1.PodSpec{NodeSelector: map[string]string{corev1.LabelTopologyZone: "a"}}},
		{name: "another label", pod: corev1.PodSpec{NodeSelector: map[string]string{corev1.LabelTopologyZone: "b"}}, want: "its labels"},
		{name: "affinity", pod: corev1.PodSpec{Affinity: zone(corev1.NodeSelectorOpIn, "a", "b")}},
		{name: "another affinity", pod: corev1.PodSpec{Affinity: zone(corev1.NodeSelectorOpNotIn, "a")}, want: "its labels"},
		{name: "affinity by name", pod: corev1.PodSpec{Affinity: named}, want: "its labels"},
		{name: "a preference", pod: corev1.PodSpec{Affinity: preferred}},
		{name: "what is no affinity", pod: corev1.PodSpec{Affinity: zone("Near", "a")}},
		{name: "taint", node: corev1.NodeSpec{Taints: taint(corev1.TaintEffectNoExecute)}, want: "its taint dedicated=db:NoExecute"},
		{name: "tolerated", node: corev1.NodeSpec{Taints: taint(corev1.TaintEffectNoExecute)},
			pod: corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}},
		{name: "taint that leaves what runs", node: corev1.NodeSpec{Taints: taint(corev1.TaintEffectNoSchedule)}},
		{name: "a node that is not ready", node: corev1.NodeSpec{Taints: []corev1.Taint{
			{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}, {Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute},
			{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule},
		}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{corev1.LabelTopologyZone: "a"}}, Spec: test.node}
			got := unfit(&test.pod, &n, slog.New(slog.DiscardHandler))
			if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
