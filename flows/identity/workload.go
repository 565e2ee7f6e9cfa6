// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
)

// cronSuffix is the least number of digits by which a job's name tells that a
// cron job made it: minutes since 1970 (controller cronjob, getJobName).
const cronSuffix = 8

// podTemplateHash is the label by which a ReplicaSet's name tells its Deployment's.
const podTemplateHash = "pod-template-hash"

// workloadOf returns the controller of a pod. That of a ReplicaSet or a Job is
// known by the way their names are made, so it is a guess where another
// controller makes names alike.
func workloadOf(p *corev1.Pod) flows.Workload { return new(Bounds).workloadOf(p) }

// workloadOf is the same within bounds: an API server takes any text for the kind and
// the name of an owner.
func (b *Bounds) workloadOf(p *corev1.Pod) flows.Workload {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return flows.Workload{}
	}
	name := b.text(owner.Name, plain.NameLimit)
	kind := b.text(strings.ToLower(b.text(owner.Kind, plain.LabelLimit)), plain.LabelLimit)
	switch owner.Kind {
	case "Node": // the mirror of a pod that only its kubelet knows
		kind, name = "staticpod", b.text(p.Name, plain.NameLimit)
	case "ReplicaSet":
		hash := p.Labels[podTemplateHash]
		if deployment, ok := strings.CutSuffix(name, "-"+hash); ok && hash != "" && deployment != "" {
			kind, name = "deployment", deployment
		}
	case "Job":
		if cronJob, ok := cutCronSuffix(name); ok {
			kind, name = "cronjob", cronJob
		}
	}
	return flows.Workload{Type: shared(kind), Name: shared(name)}
}

// cutCronSuffix returns the name of the cron job that made a job.
func cutCronSuffix(job string) (string, bool) {
	i := strings.LastIndexByte(job, '-')
	if i < 1 || len(job)-i-1 < cronSuffix || strings.Trim(job[i+1:], "0123456789") != "" {
		return "", false
	}
	return job[:i], true
}
