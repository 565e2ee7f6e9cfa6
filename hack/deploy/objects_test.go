// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	chartFolder      = "../../deploy/helm/podmeter"
	kubernetesFolder = "../../deploy/kubernetes"
)

// Overlays as users write them, with components of deploy/kubernetes.
const (
	geoipFolder   = "../../hack/deploy/testdata/geoip"
	storageFolder = "../../hack/deploy/testdata/storage"
)

// object is one of Kubernetes'.
type object map[string]any

// id tells an object from all others of a cluster.
func (o object) id() string {
	metadata, _ := o["metadata"].(map[string]any)
	return fmt.Sprint(o["apiVersion"], " ", o["kind"], " ", metadata["namespace"], "/", metadata["name"])
}

// decode reads a typed object, in which every field has to be one of the type.
func (o object) decode(t *testing.T, into any) {
	t.Helper()
	content, err := yaml.Marshal(map[string]any(o))
	if err == nil {
		err = sigsyaml.UnmarshalStrict(content, into)
	}
	if err != nil {
		t.Errorf("%s: %v", o.id(), err)
	}
}

// helm returns the objects that the chart gives.
func helm(t *testing.T, values map[string]any) map[string]object {
	t.Helper()
	files, err := render(chartFolder, values)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]object)
	for name, content := range files {
		if filepath.Ext(name) == ".yaml" {
			maps.Copy(all, parse(t, content))
		}
	}
	return all
}

// kustomize returns the objects of a folder below deploy/kubernetes.
func kustomize(t *testing.T, folder string) map[string]object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(
		filesys.MakeFsOnDisk(), filepath.Join(kubernetesFolder, folder))
	if err != nil {
		t.Fatal(err)
	}
	content, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(content))
}

func parse(t *testing.T, content string) map[string]object {
	t.Helper()
	all := make(map[string]object)
	for decoder := yaml.NewDecoder(strings.NewReader(content)); ; {
		var content map[string]any
		if err := decoder.Decode(&content); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, content)
		}
		if o := object(content); len(o) > 0 {
			all[o.id()] = o
		}
	}
}

// withoutLabels takes helm's labels off an object and all that is in it.
func withoutLabels(value any) {
	switch value := value.(type) {
	case object:
		withoutLabels(map[string]any(value))
	case map[string]any:
		for _, label := range helmLabels() {
			delete(value, label)
		}
		for _, inner := range value {
			withoutLabels(inner)
		}
	case []any:
		for _, inner := range value {
			withoutLabels(inner)
		}
	}
}

// daemonSet is what the agent runs as, given the objects.
func daemonSet(t *testing.T, objects map[string]object) *appsv1.DaemonSet {
	t.Helper()
	found, ok := objects["apps/v1 DaemonSet podmeter/podmeter"]
	if !ok {
		t.Fatal("there is no DaemonSet")
	}
	d := new(appsv1.DaemonSet)
	found.decode(t, d)
	return d
}

// Every field of every object is one that Kubernetes has.
func TestObjectsAreKubernetes(t *testing.T) {
	for _, folder := range []string{"base", "overlays/podmonitor", "overlays/prometheus", "overlays/stack", "overlays/compatibility", storageFolder} {
		t.Run(folder, func(t *testing.T) {
			for id, o := range kustomize(t, folder) {
				types := map[string]any{
					"DaemonSet": new(appsv1.DaemonSet), "Deployment": new(appsv1.Deployment),
					"Namespace": new(corev1.Namespace), "ConfigMap": new(corev1.ConfigMap), "Service": new(corev1.Service),
					"ServiceAccount": new(corev1.ServiceAccount), "ClusterRole": new(rbacv1.ClusterRole),
					"ClusterRoleBinding": new(rbacv1.ClusterRoleBinding), "Role": new(rbacv1.Role), "RoleBinding": new(rbacv1.RoleBinding),
					"PodMonitor": new(map[string]any), "PersistentVolumeClaim": new(corev1.PersistentVolumeClaim),
				}
				kind, ok := types[fmt.Sprint(o["kind"])]
				if !ok {
					t.Errorf("%s: got a kind that this test does not know", id)
					continue
				}
				o.decode(t, kind)
			}
		})
	}
}
