// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
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

// What a Deployment mounts of ConfigMaps is in them, and none is larger than what kubectl
// apply can keep in an annotation.
func TestMountedFilesExist(t *testing.T) {
	objects := kustomize(t, "overlays/compatibility")
	for id, pod := range pods(t, objects) {
		for _, v := range pod.Volumes {
			mounted := make(map[string]string)
			for _, name := range configMaps(v) {
				var found corev1.ConfigMap
				o, ok := objects["v1 ConfigMap podmeter-monitoring/"+name]
				if !ok {
					t.Errorf("%s: got no ConfigMap %s", id, name)
					continue
				}
				o.decode(t, &found)
				maps.Copy(mounted, found.Data)
				if got, err := json.Marshal(found); err != nil || len(got) > 250<<10 {
					t.Errorf("%s: got %d bytes, %v, want 250 KiB at most", name, len(got), err)
				}
			}
			for _, c := range pod.Containers {
				for _, m := range c.VolumeMounts {
					if _, ok := mounted[m.SubPath]; m.Name == v.Name && m.SubPath != "" && !ok {
						t.Errorf("%s: got no %s in volume %s", id, m.SubPath, v.Name)
					}
				}
			}
		}
	}
}

// configMaps are those that a volume has.
func configMaps(v corev1.Volume) (names []string) {
	if v.ConfigMap != nil {
		names = append(names, v.ConfigMap.Name)
	}
	if v.Projected == nil {
		return names
	}
	for _, source := range v.Projected.Sources {
		names = append(names, source.ConfigMap.Name)
	}
	return names
}

// Every dashboard is in Grafana, and the one that it begins with is among them.
func TestDashboardsAreProvisioned(t *testing.T) {
	files, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v, want dashboards", files, err)
	}
	objects := kustomize(t, "overlays/stack")
	grafana := pods(t, objects)["apps/v1 Deployment podmeter-monitoring/grafana"]
	mounted := make(map[string]string)
	for _, v := range grafana.Volumes {
		for _, name := range configMaps(v) {
			var found corev1.ConfigMap
			objects["v1 ConfigMap podmeter-monitoring/"+name].decode(t, &found)
			maps.Copy(mounted, found.Data)
		}
	}
	for _, file := range files {
		if _, ok := mounted[filepath.Base(file)]; !ok {
			t.Errorf("got no %s in Grafana", file)
		}
	}
	for _, e := range grafana.Containers[0].Env {
		if e.Name != "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH" {
			continue
		}
		if _, ok := mounted[strings.TrimPrefix(e.Value, "/etc/grafana/dashboards/")]; !ok {
			t.Errorf("got home %s, which is not mounted", e.Value)
		}
	}
}
