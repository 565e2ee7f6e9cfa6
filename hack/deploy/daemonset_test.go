// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The agent has the rights on its node that it needs, and no others.
func TestPrivileges(t *testing.T) {
	pod := daemonSet(t, kustomize(t, "base")).Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Errorf("got network %v, pid %v, ipc %v of the host, want the network alone", pod.HostNetwork, pod.HostPID, pod.HostIPC)
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("got %d containers and %d that initialize, want one", len(pod.Containers), len(pod.InitContainers))
	}
	if seccomp := pod.SecurityContext.SeccompProfile; seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp: got %v, want RuntimeDefault", seccomp)
	}
	no, yes, root := false, true, int64(0)
	want := &corev1.SecurityContext{
		Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsUser: &root, RunAsGroup: &root,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"BPF", "PERFMON", "NET_ADMIN"}},
	}
	if diff := cmp.Diff(want, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context (-want +got):\n%s", diff)
	}
}

// Of the host nothing is mounted but directories that are the agent's own, and two
// that it may read.
func TestMounts(t *testing.T) {
	pod := daemonSet(t, kustomize(t, "base")).Spec.Template.Spec
	paths := make(map[string]string)
	for _, v := range pod.Volumes {
		want := corev1.HostPathDirectoryOrCreate
		if v.Name == "cgroups" { // the kernel's
			want = corev1.HostPathDirectory
		}
		if v.HostPath == nil || v.HostPath.Type == nil || *v.HostPath.Type != want {
			t.Errorf("%s: got %v, want a directory of the host, %s", v.Name, v.VolumeSource, want)
			continue
		}
		paths[v.Name] = v.HostPath.Path
	}
	var got []string
	for _, m := range pod.Containers[0].VolumeMounts {
		got = append(got, fmt.Sprintf("%s at %s, read-only %v", paths[m.Name], m.MountPath, m.ReadOnly))
	}
	want := []string{
		"/sys/fs/bpf/podmeter at /bpf/podmeter, read-only false",
		"/run/podmeter at /run/podmeter, read-only false",
		"/var/lib/cni/results at /var/lib/cni/results, read-only true",
		"/sys/fs/cgroup at /host/sys/fs/cgroup, read-only true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The agent runs on every node, goes last, and makes room before the next one comes.
func TestPlacement(t *testing.T) {
	d := daemonSet(t, kustomize(t, "base"))
	pod := d.Spec.Template.Spec
	if diff := cmp.Diff([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	if pod.PriorityClassName != "system-node-critical" {
		t.Errorf("priority: got %q, want system-node-critical", pod.PriorityClassName)
	}
	if surge := d.Spec.UpdateStrategy.RollingUpdate.MaxSurge; surge == nil || surge.IntValue() != 0 {
		t.Errorf("surge: got %v, want 0", surge)
	}
	for label, value := range d.Spec.Selector.MatchLabels {
		if got := d.Spec.Template.Labels[label]; got != value {
			t.Errorf("label %s: got %q, want %q, by which it is selected", label, got, value)
		}
	}
}

// Probes go by the socket, so that TLS and basic auth do not shut them out.
func TestProbes(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"plain":      nil,
		"web config": {"webConfig": map[string]any{"secret": "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := daemonSet(t, helm(t, values)).Spec.Template.Spec.Containers[0]
			for _, probe := range []struct {
				got  *corev1.Probe
				want string
			}{
				{c.StartupProbe, "/podmeter status --alive --wait=55s"}, {c.ReadinessProbe, "/podmeter status --ready --wait=8s"},
				{c.LivenessProbe, "/podmeter status --alive"},
			} {
				if probe.got == nil || probe.got.Exec == nil || strings.Join(probe.got.Exec.Command, " ") != probe.want {
					t.Errorf("got %v, want %s", probe.got, probe.want)
				}
			}
		})
	}
}

// An agent that starts is waited for, within the probe's own time, so that an install
// leaves no failed probe in the pod's events. A start may take two minutes, for the agent
// before to end. The liveness probe waits for nothing: it is asked of an agent that runs.
func TestProbesWaitForTheStart(t *testing.T) {
	for name, object := range map[string]*appsv1.DaemonSet{"chart": daemonSet(t, helm(t, nil)), "base": daemonSet(t, kustomize(t, "base"))} {
		c := object.Spec.Template.Spec.Containers[0]
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe} {
			if wait := waitOf(t, probe); wait < 5*time.Second || wait > seconds(probe.TimeoutSeconds)-3*time.Second {
				t.Errorf("%s: %v: got a wait of %v, want 5 s at least, and 3 s less than the timeout of %d s for the start of the probe", name, probe.Exec.Command, wait, probe.TimeoutSeconds)
			}
		}
		if patience := waitOf(t, c.StartupProbe) * time.Duration(c.StartupProbe.FailureThreshold); patience < 2*time.Minute {
			t.Errorf("%s: a start may take %v, want two minutes at least", name, patience)
		}
		if wait := waitOf(t, c.LivenessProbe); wait != 0 {
			t.Errorf("%s: the liveness probe waits %v", name, wait)
		}
	}
}

// waitOf is for how long a probe waits for a yes.
func waitOf(t *testing.T, probe *corev1.Probe) time.Duration {
	t.Helper()
	for _, argument := range probe.Exec.Command {
		if wait, ok := strings.CutPrefix(argument, "--wait="); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	return 0
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// The agent takes the arguments of its manifest, on a node with either address.
func TestAgentTakesItsArguments(t *testing.T) {
	args := daemonSet(t, kustomize(t, "base")).Spec.Template.Spec.Containers[0].Args
	for address, want := range map[string]string{"198.51.100.1": "198.51.100.1:9739", "2001:db8::1": "[2001:db8::1]:9739"} {
		t.Run(address, func(t *testing.T) {
			fs, c := pflag.NewFlagSet("agent", pflag.ContinueOnError), agent.Defaults()
			agent.AddFlags(fs, &c)
			if err := fs.Parse(strings.Split(strings.ReplaceAll(strings.Join(args[1:], "\n"), "$(HOST_IP)", address), "\n")); err != nil {
				t.Fatal(err)
			}
			environ := []string{"NODE_NAME=node-a", "KUBERNETES_SERVICE_HOST=198.51.100.2"}
			if err := c.Complete(environ, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
			if c.DaemonSet != "podmeter/podmeter" {
				t.Errorf("got DaemonSet %q, want its own", c.DaemonSet)
			}
			if c.Listen != want || c.NodeName != "node-a" || c.Identity != agent.IdentityKubernetes {
				t.Errorf("got %s, node %s, identity %s, want %s, node-a, kubernetes", c.Listen, c.NodeName, c.Identity, want)
			}
		})
	}
}

// An end is told why, and has the time for a last look at the API.
func TestTermination(t *testing.T) {
	pod := daemonSet(t, kustomize(t, "base")).Spec.Template.Spec
	if policy := pod.Containers[0].TerminationMessagePolicy; policy != corev1.TerminationMessageFallbackToLogsOnError {
		t.Errorf("message: got %q, want the log's end", policy)
	}
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || *grace < 30 {
		t.Errorf("grace period: got %v, want 30 s at least", grace)
	}
}

// The agent's DaemonSet is the release's, unless a value names another, or none.
func TestOwnDaemonSet(t *testing.T) {
	for _, test := range []struct {
		name  string
		value any
		want  string
	}{
		{"the release's", nil, "--daemonset=podmeter/podmeter"},
		{"another", "meters/own", "--daemonset=meters/own"},
		{"none", "", "--daemonset="},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := daemonSet(t, helm(t, map[string]any{"agent": map[string]any{"daemonset": test.value}})).Spec.Template.Spec.Containers[0].Args
			if !slices.Contains(args, test.want) {
				t.Errorf("got %q, want %s in it", args, test.want)
			}
		})
	}
}

func TestRights(t *testing.T) {
	got := make(map[string][]rbacv1.PolicyRule)
	for id, o := range kustomize(t, "base") {
		switch o["kind"] {
		case "ClusterRole", "Role":
			var role rbacv1.Role // a ClusterRole's fields but for its aggregation
			o.decode(t, &role)
			got[id] = role.Rules
		}
	}
	want := map[string][]rbacv1.PolicyRule{
		"rbac.authorization.k8s.io/v1 ClusterRole <nil>/podmeter": {
			{APIGroups: []string{""}, Resources: []string{"pods", "services", "nodes"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"podmeter"}, Verbs: []string{"get"}},
		},
		"rbac.authorization.k8s.io/v1 Role podmeter/podmeter": {
			{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{"podmeter"}, Verbs: []string{"get"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What has no need of the node is in a namespace that admits nothing that has, and
// fits in there.
func TestRestricted(t *testing.T) {
	for id, o := range kustomize(t, "overlays/stack") {
		if o["kind"] != "Deployment" {
			continue
		}
		t.Run(id, func(t *testing.T) {
			var d appsv1.Deployment
			o.decode(t, &d)
			if d.Namespace != "podmeter-monitoring" && d.Namespace != "podmeter-demo" {
				t.Errorf("namespace: got %s, want podmeter-monitoring or -demo", d.Namespace)
			}
			checkRestricted(t, d.Spec.Template.Spec)
		})
	}
}

// checkRestricted checks what the Pod Security Standard of that name asks for.
func checkRestricted(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	s := pod.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod: got %v, want not root and seccomp RuntimeDefault", s)
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			t.Errorf("volume %s: got a path of the host", v.Name)
		}
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("container %s: got %v, want no escalation and no capabilities", c.Name, s)
		}
		if !strings.Contains(c.Image, ":") || strings.HasSuffix(c.Image, ":latest") {
			t.Errorf("container %s: got image %s, want a version", c.Name, c.Image)
		}
	}
}
