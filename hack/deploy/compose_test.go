// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	corev1 "k8s.io/api/core/v1"
)

const composeFile = "../../deploy/compose/compose.yaml"

// compose returns the services of the file, read as Docker reads it.
func compose(t *testing.T) types.Services {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeFile})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project.Services
}

// One host runs what a cluster does, in the same versions.
func TestComposeIsTheStack(t *testing.T) {
	var want []string
	for _, pod := range pods(t, kustomize(t, "overlays/stack")) {
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			want = append(want, c.Image)
		}
	}
	for name, service := range compose(t) {
		if !slices.Contains(want, service.Image) {
			t.Errorf("%s: got image %s, want one of %q", name, service.Image, want)
		}
	}
}

// Its Prometheus has the features of the stack's, that of created timestamps among them.
func TestComposeFeatures(t *testing.T) {
	features := func(args []string) []string {
		return slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !strings.HasPrefix(arg, "--enable-feature=") })
	}
	prometheus := pods(t, kustomize(t, "overlays/stack"))["apps/v1 Deployment podmeter-monitoring/prometheus"]
	want := features(prometheus.Containers[0].Args)
	if got := features(compose(t)["prometheus"].Command); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Its Prometheus has the rules of the stack's.
func TestComposeRules(t *testing.T) {
	var want, got []string
	for id, o := range kustomize(t, "overlays/stack") {
		if !strings.HasPrefix(id, "v1 ConfigMap podmeter-monitoring/prometheus-") {
			continue
		}
		var found corev1.ConfigMap
		o.decode(t, &found)
		want = slices.DeleteFunc(slices.Sorted(maps.Keys(found.Data)), func(name string) bool { return !strings.HasSuffix(name, ".rules.yml") })
	}
	for _, v := range compose(t)["prometheus"].Volumes {
		if strings.HasSuffix(v.Target, ".rules.yml") {
			got = append(got, filepath.Base(v.Target))
		}
	}
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The files that it mounts are there, and nothing of the host but the agent's own.
func TestComposeMounts(t *testing.T) {
	for name, service := range compose(t) {
		for _, v := range service.Volumes {
			if v.Type != types.VolumeTypeBind || name == "podmeter" && slices.Contains([]string{"/sys/fs/bpf/podmeter", "/run/podmeter"}, v.Source) {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly || !strings.Contains(v.Source, "/deploy/") {
				t.Errorf("%s: got %s, read-only %v, %v, want a file of deploy", name, v.Source, v.ReadOnly, err)
			}
		}
	}
}

// Nothing has more rights than it needs, and the commands take their arguments.
func TestComposeServices(t *testing.T) {
	for name, service := range compose(t) {
		if service.Privileged || !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) ||
			len(service.CapAdd) > 0 && name != "podmeter" || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: got %v, %v, %v, %v, want no rights", name, service.Privileged, service.CapDrop, service.CapAdd, service.SecurityOpt)
		}
		if name != "podmeter" && name != "geoip" {
			continue
		}
		c := corev1.Container{Args: service.Command, Env: []corev1.EnvVar{{Name: "QUERY"}}}
		if query := service.Environment["QUERY"]; query != nil {
			c.Env[0].Value = *query
		}
		if got := databasesOf(t, c); !slices.Equal(got, []string{"/geoip/dbip-country-lite.mmdb"}) {
			t.Errorf("%s: got databases %q, want what is fetched", name, got)
		}
	}
}
