// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip"
	"github.com/podmeter/podmeter/cmd/podmeter/geoip/fetch"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// pods returns those of the objects that make some, by what makes them.
func pods(t *testing.T, objects map[string]object) map[string]corev1.PodSpec {
	t.Helper()
	found := make(map[string]corev1.PodSpec)
	for id, o := range objects {
		switch o["kind"] {
		case "DaemonSet":
			var d appsv1.DaemonSet
			o.decode(t, &d)
			found[id] = d.Spec.Template.Spec
		case "Deployment":
			var d appsv1.Deployment
			o.decode(t, &d)
			found[id] = d.Spec.Template.Spec
		}
	}
	return found
}

// The commands of the stack take their arguments, and read the databases that are
// fetched for them.
func TestStackTakesItsArguments(t *testing.T) {
	for _, folder := range []string{"overlays/stack", "overlays/compatibility"} {
		for id, pod := range pods(t, kustomize(t, folder)) {
			if len(pod.InitContainers) == 0 {
				continue
			}
			t.Run(folder+" "+id, func(t *testing.T) {
				fetched := fetch.Defaults()
				fs := pflag.NewFlagSet("fetch", pflag.ContinueOnError)
				fetch.AddFlags(fs, &fetched)
				if err := fs.Parse(pod.InitContainers[0].Args[2:]); err != nil {
					t.Fatal(err)
				}
				if err := fetched.Validate(); err != nil {
					t.Error(err)
				}
				for _, file := range databasesOf(t, pod.Containers[0]) {
					name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "dbip-"), "-lite.mmdb")
					if filepath.Dir(file) != fetched.Dir || !slices.Contains(fetched.Databases, name) {
						t.Errorf("got %s, want one of %v in %s", file, fetched.Databases, fetched.Dir)
					}
				}
			})
		}
	}
}

// databasesOf parses the arguments of an agent or of podmeter geoip.
func databasesOf(t *testing.T, c corev1.Container) []string {
	t.Helper()
	fs := pflag.NewFlagSet(c.Args[0], pflag.ContinueOnError)
	if c.Args[0] == "agent" {
		config := agent.Defaults()
		agent.AddFlags(fs, &config)
		if err := fs.Parse(strings.Split(strings.ReplaceAll(strings.Join(c.Args[1:], "\n"), "$(HOST_IP)", "198.51.100.1"), "\n")); err != nil {
			t.Fatal(err)
		}
		if err := config.Complete([]string{"NODE_NAME=node-a", "KUBERNETES_SERVICE_HOST=198.51.100.2"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := config.Validate(); err != nil {
			t.Error(err)
		}
		return config.GeoIP
	}
	config := geoip.Defaults()
	geoip.AddFlags(fs, &config)
	if err := fs.Parse(c.Args[1:]); err != nil {
		t.Fatal(err)
	}
	config.Complete([]string{c.Env[0].Name + "=" + c.Env[0].Value})
	if err := config.Validate(); err != nil {
		t.Error(err)
	}
	return config.GeoIP
}

// Who comes from the older stack finds its Services, by name and port, and in its query
// and labels what they were.
func TestCompatibility(t *testing.T) {
	objects := kustomize(t, "overlays/compatibility")
	got := make(map[string]int32)
	for _, o := range objects {
		if o["kind"] != "Service" {
			continue
		}
		var s corev1.Service
		o.decode(t, &s)
		if s.Namespace != "kentiklabs" {
			continue
		}
		target, ok := objects["v1 Service podmeter-monitoring/"+strings.TrimSuffix(s.Spec.ExternalName, ".podmeter-monitoring.svc.cluster.local")]
		if !ok {
			t.Errorf("%s: got %s, want a Service of the stack", s.Name, s.Spec.ExternalName)
			continue
		}
		var real corev1.Service
		target.decode(t, &real)
		got[s.Name+" "+s.Spec.Ports[0].Name] = real.Spec.Ports[0].Port
	}
	if diff := cmp.Diff(map[string]int32{"prometheus prometheus": 9090, "geoip geoip": 8080, "grafana grafana": 3000}, got); diff != "" {
		t.Errorf("Services (-want +got):\n%s", diff)
	}
	container := pods(t, objects)["apps/v1 Deployment podmeter-monitoring/geoip"].Containers[0]
	want := corev1.EnvVar{Name: "QUERY", Value: "sum by (k8s_namespace, k8s_pod, destination_ip) (bytes_tx{})"}
	if diff := cmp.Diff([]corev1.EnvVar{want}, container.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// All of podmeter's images are of one version, and every image has one.
func TestImages(t *testing.T) {
	own := make(map[string]bool)
	for _, pod := range pods(t, kustomize(t, "overlays/compatibility")) {
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			name, tag, _ := strings.Cut(c.Image, ":")
			if tag == "" || tag == "latest" {
				t.Errorf("%s: got image %s, want a version", c.Name, c.Image)
			}
			if strings.HasSuffix(name, "/podmeter") {
				own[c.Image] = true
			}
		}
	}
	want := pods(t, helm(t, nil))["apps/v1 DaemonSet podmeter/podmeter"].Containers[0].Image
	if got := slices.Collect(maps.Keys(own)); !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want the chart's alone, %s", got, want)
	}
}

// What a Deployment mounts of a ConfigMap is in it.
func TestMountedFilesExist(t *testing.T) {
	objects := kustomize(t, "overlays/compatibility")
	for id, pod := range pods(t, objects) {
		for _, v := range pod.Volumes {
			if v.ConfigMap == nil {
				continue
			}
			var found corev1.ConfigMap
			o, ok := objects["v1 ConfigMap podmeter-monitoring/"+v.ConfigMap.Name]
			if !ok {
				t.Errorf("%s: got no ConfigMap %s", id, v.ConfigMap.Name)
				continue
			}
			o.decode(t, &found)
			for _, c := range pod.Containers {
				for _, m := range c.VolumeMounts {
					if _, ok := found.Data[m.SubPath]; m.Name == v.Name && m.SubPath != "" && !ok {
						t.Errorf("%s: got no %s in ConfigMap %s", id, m.SubPath, v.ConfigMap.Name)
					}
				}
			}
		}
	}
}
