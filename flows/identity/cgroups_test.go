// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/flows"
)

var _ flows.Containers = (*Cgroups)(nil)

const (
	cgroupUID    = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
	cgroupStatic = "0123456789abcdef0123456789abcdef"
)

var cgroupID = strings.Repeat("0123456789abcdef", 4)

func TestParseCgroup(t *testing.T) {
	under := strings.ReplaceAll(cgroupUID, "-", "_")
	for _, test := range []struct{ name, path, pod, container string }{
		{"root", ".", "", ""},
		{"a service", "system.slice/sshd.service", "", ""},
		{"all pods", "kubepods/burstable", "", ""},
		{"cgroupfs", "kubepods/burstable/pod" + cgroupUID + "/" + cgroupID, cgroupUID, cgroupID},
		{"cgroupfs, guaranteed", "kubepods/pod" + cgroupUID + "/" + cgroupID, cgroupUID, cgroupID},
		{"below another root", "kubelet/kubepods/pod" + cgroupUID + "/" + cgroupID, cgroupUID, cgroupID},
		{"the pod's own", "kubepods/pod" + cgroupUID, cgroupUID, ""},
		{"a static pod", "kubepods/besteffort/pod" + cgroupStatic + "/" + cgroupID, cgroupStatic, cgroupID},
		{"systemd, containerd", "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + cgroupID + ".scope",
			cgroupUID, cgroupID},
		{"systemd, guaranteed, CRI-O", "kubepods.slice/kubepods-pod" + under + ".slice/crio-" + cgroupID + ".scope", cgroupUID, cgroupID},
		{"kind", "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + under +
			".slice/cri-containerd-" + cgroupID + ".scope", cgroupUID, cgroupID},
		{"below the container's", "kubepods/pod" + cgroupUID + "/" + cgroupID + "/init.scope", cgroupUID, cgroupID},
		{"a container without a pod", "system.slice/docker-" + cgroupID + ".scope", "", ""},
		{"a name that is none", "kubepods/podium/" + cgroupID, "", ""},
		{"an id that is too short", "kubepods/pod" + cgroupUID + "/0123", cgroupUID, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if pod, container := parseCgroup(test.path); pod != test.pod || container != test.container {
				t.Errorf("got %q and %q, want %q and %q", pod, container, test.pod, test.container)
			}
		})
	}
}

// duo is a pod of this node with two containers, of these ids.
func duo(front, back string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "duo", UID: cgroupUID}}
	p.Spec = corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "front"}, {Name: "back"}},
		InitContainers: []corev1.Container{{Name: "setup"}}}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "front", ContainerID: "containerd://" + front}, {Name: "back", ContainerID: "containerd://" + back},
	}
	return p
}

func TestContainersOfPods(t *testing.T) {
	clock := time.Unix(1e9, 0)
	c := NewCache(CacheOptions{Node: "here", History: time.Hour, Now: func() time.Time { return clock }})
	k := &Kubernetes{cache: c}
	name := func(id, want string) {
		t.Helper()
		if uid, got := c.container(cgroupUID, id); uid != cgroupUID || got != want {
			t.Errorf("%s: got %q of pod %s, want %q", id, got, uid, want)
		}
	}
	name("f1", "")
	first := duo("f1", "b1")
	first.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "setup", ContainerID: "cri-o://s1"}}
	first.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", ContainerID: "cri-o://d1"}}
	c.SetPod(k.podOf(first))
	for id, want := range map[string]string{"f1": "front", "b1": "back", "s1": "setup", "d1": "debug", "f2": "", "": ""} {
		name(id, want)
	}

	again := duo("f2", "b1")
	again.Status.ContainerStatuses[1].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://b0"}
	c.SetPod(k.podOf(again))
	for id, want := range map[string]string{"f1": "front", "f2": "front", "b0": "back", "b1": "back"} {
		name(id, want)
	}
	c.DeletePod(k.podOf(again))
	name("f1", "front")
	clock = clock.Add(2 * time.Hour)
	other := duo("x", "y")
	other.UID = "other"
	c.SetPod(k.podOf(other))
	c.DeletePod(k.podOf(other))
	name("f1", "")

	elsewhere := duo("f1", "b1")
	elsewhere.Spec.NodeName = "there"
	if got := k.podOf(elsewhere).Containers; got != nil {
		t.Errorf("a pod of another node: got %v, want none", got)
	}
	mirror := duo("m1", "m2")
	mirror.UID, mirror.Annotations = "mirror", map[string]string{corev1.MirrorPodAnnotationKey: cgroupStatic}
	c.SetPod(k.podOf(mirror))
	if uid, got := c.container(cgroupStatic, "m1"); uid != "mirror" || got != "front" {
		t.Errorf("a static pod: got %q of %q, want front of mirror", got, uid)
	}
}

// The containers that a pod had are bounded.
func TestContainersOfAPodThatStartsForEver(t *testing.T) {
	c := NewCache(CacheOptions{Node: "here"})
	k := &Kubernetes{cache: c}
	for n := range 10 * maxContainers {
		c.SetPod(k.podOf(duo("f"+string(rune('a'+n)), "b1")))
	}
	if got := len(c.pods[cgroupUID].containers); got != maxContainers {
		t.Errorf("got %d, want %d", got, maxContainers)
	}
}

// A tree is followed: what is there, what comes, however deep, and what goes.
func TestCgroupsAreFollowed(t *testing.T) {
	root := t.TempDir()
	cache := NewCache(CacheOptions{Node: "here"})
	cache.SetPod((&Kubernetes{cache: cache}).podOf(duo(cgroupID, strings.Repeat("b", 64))))
	c := NewCgroups(root, cache, slog.New(slog.DiscardHandler))
	made := func(below string) (id uint64) {
		t.Helper()
		path := filepath.Join(root, below)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	await := func(id uint64, want string) {
		t.Helper()
		var pod, name string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if pod, name = c.Container(id); pod == cgroupUID && name == want {
				return
			}
		}
		t.Fatalf("got %q of %q, want %q of %q", name, pod, want, cgroupUID)
	}
	before := made("kubepods/pod" + cgroupUID + "/" + cgroupID)
	host := made("system.slice/sshd.service")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	defer running.Wait()
	defer cancel()
	await(before, "front")
	await(made("kubepods/pod"+cgroupUID+"/"+strings.Repeat("b", 64)), "back")
	await(made("kubepods/pod"+cgroupUID+"/"+strings.Repeat("b", 64)+"/a/b/c"), "back")
	if pod, name := c.Container(host); pod != "" || name != "" {
		t.Errorf("a service: got %q of %q, want nothing", name, pod)
	}
	// It is remembered for a while.
	if err := os.RemoveAll(filepath.Join(root, "kubepods")); err != nil {
		t.Fatal(err)
	}
	await(before, "front")
}

// Pods in the node's network are told with their cgroups, as long as these are there, and
// each is bound to its own.
func TestHostPods(t *testing.T) {
	root := t.TempDir()
	cache := NewCache(CacheOptions{Node: "here"})
	c := NewCgroups(root, cache, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	defer running.Wait()
	defer cancel()

	of := func(uid, node string, onHost bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "of-" + uid, UID: types.UID(uid)}}
		p.Spec = corev1.PodSpec{NodeName: node, HostNetwork: onHost, Containers: []corev1.Container{{Name: "only"}}}
		return p
	}
	uid := func(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
	mirror := of(uid(5), "here", true)
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: cgroupStatic}
	k := &Kubernetes{cache: cache}
	for _, p := range []*corev1.Pod{of(uid(1), "here", true), of(uid(2), "here", false), of(uid(3), "there", true), mirror} {
		cache.SetPod(k.podOf(p))
	}
	var want []HostPod
	for _, made := range []struct {
		below, uid string
		metered    bool
	}{
		{"kubepods/burstable/pod" + uid(1), uid(1), true},
		{"kubepods/pod" + uid(2), uid(2), false}, // has a network of its own
		{"kubepods/pod" + uid(3), uid(3), false}, // is another node's
		{"kubepods/pod" + uid(4), uid(4), false}, // is not known yet
		{"kubepods/pod" + cgroupStatic, cgroupStatic, true},
	} {
		path := filepath.Join(root, made.below)
		if err := os.MkdirAll(filepath.Join(path, cgroupID), 0o755); err != nil {
			t.Fatal(err)
		}
		if made.metered {
			want = append(want, HostPod{made.uid, path})
		}
	}
	await := func() {
		t.Helper()
		var got []HostPod
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			got = c.HostPods()
			slices.SortFunc(got, func(a, b HostPod) int { return strings.Compare(b.Cgroup, a.Cgroup) })
			slices.SortFunc(want, func(a, b HostPod) int { return strings.Compare(b.Cgroup, a.Cgroup) })
			if slices.Equal(got, want) {
				return
			}
		}
		t.Fatalf("got %v, want %v", got, want)
	}
	await()
	select {
	case <-c.Appeared():
	default:
		t.Error("nobody was told of the cgroups of pods")
	}
	late := of(uid(4), "here", true)
	cache.SetPod(k.podOf(late))
	want = append(want, HostPod{uid(4), filepath.Join(root, "kubepods/pod"+uid(4))})
	await()
	cache.DeletePod(k.podOf(late)) // while it ends
	await()

	b := cniBinder{nil, cache, never{}}
	for cgroup, name := range map[string]string{uid(1): "of-" + uid(1), cgroupStatic: mirror.Name, uid(2): "", uid(3): "", "other": ""} {
		got := b.Bind(flows.Interface{PodUID: cgroup}, nil, nil)
		if got == nil && name != "" || got != nil && got.Name != name {
			t.Errorf("cgroup of %s: got pod %+v, want %q", cgroup, got, name)
		}
	}
}
