// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/ktest"
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
		{"systemd below another root", "a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-pod" + under + ".slice/crio-" + cgroupID + ".scope", cgroupUID, cgroupID},
		{"systemd, the pod's own", "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice", cgroupUID, ""},
		{"a static pod with systemd", "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + cgroupStatic + ".slice", cgroupStatic, ""},
		{"a user's own tree", "user.slice/user-1000.slice/user@1000.service/pod" + cgroupUID + "/" + cgroupID, "", ""},
		{"a user's kubelet", "user.slice/user-1000.slice/user@1000.service/kubepods/pod" + cgroupUID, "", ""},
		{"a user's slices", "user.slice/user-kubepods.slice/user-kubepods-pod" + under + ".slice", "", ""},
		{"a service's", "system.slice/app.service/kubepods/pod" + cgroupUID, "", ""},
		{"a scope's", "init.scope/kubepods/pod" + cgroupUID, "", ""},
		{"a container engine's", "docker/" + cgroupID + "/kubepods/pod" + cgroupUID, "", ""},
		{"a container engine's with systemd", "system.slice/docker-" + cgroupID + ".scope/kubelet/kubepods/pod" + cgroupUID, "", ""},
		{"a machine's", "machine.slice/machine-qemu.scope/kubepods/pod" + cgroupUID, "", ""},
		{"another container manager's", "lxc.payload.c1/kubepods/pod" + cgroupUID, "", ""},
		{"at the root", "pod" + cgroupUID, "", ""},
		{"beside the kubelet's", "mine/pod" + cgroupUID + "/" + cgroupID, "", ""},
		{"beside the kubelet's, as a slice", "mine.slice/mine-pod" + under + ".slice", "", ""},
		{"a slice that is called after another", "kubepods-pod" + under + ".slice", "", ""},
		{"a slice of another's name in the pods'", "kubepods.slice/mine-pod" + under + ".slice", "", ""},
		{"of another class than its parent", "kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod" + under + ".slice", "", ""},
		{"a root that is not its parent's", "a.slice/b-kubepods.slice/b-kubepods-pod" + under + ".slice", "", ""},
		{"a class that is none", "kubepods/mine/pod" + cgroupUID, "", ""},
		{"below a pod, another one", "kubepods/pod" + cgroupUID + "/" + cgroupID + "/kubepods/pod" + cgroupStatic, cgroupUID, cgroupID},
		{"below a class of classes", "kubepods/burstable/burstable/pod" + cgroupUID, "", ""},
		{"Docker by cri-dockerd", "kubepods.slice/kubepods-pod" + under + ".slice/docker-" + cgroupID + ".scope", cgroupUID, cgroupID},
		{"Kata's sandbox", "kubepods.slice/kubepods-pod" + under + ".slice/kata_" + cgroupID, cgroupUID, cgroupID},
		{"a monitor of CRI-O's", "kubepods.slice/kubepods-pod" + under + ".slice/crio-conmon-" + cgroupID + ".scope", cgroupUID, cgroupID},
		{"cgroupfs below a kubelet with systemd", "system.slice/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + cgroupID, cgroupUID, cgroupID},
		{"the same at the root", "kubepods-besteffort-pod" + under + ".slice:cri-containerd:" + cgroupID, cgroupUID, cgroupID},
		{"the same, guaranteed, beside the pods' slices", "kubepods.slice/kubepods-pod" + under + ".slice:crio:" + cgroupID, cgroupUID, cgroupID},
		{"the same of kind", "kubelet.slice/kubelet-kubepods-burstable-pod" + under + ".slice:cri-containerd:" + cgroupID, cgroupUID, cgroupID},
		{"the same, of a static pod", "system.slice/kubepods-burstable-pod" + cgroupStatic + ".slice:cri-containerd:" + cgroupID, cgroupStatic, cgroupID},
		{"the same, below the container's", "system.slice/kubepods-pod" + under + ".slice:cri-containerd:" + cgroupID + "/init", cgroupUID, cgroupID},
		{"the same by a user", "user.slice/kubepods-pod" + under + ".slice:cri-containerd:" + cgroupID, "", ""},
		{"the same in a container", "system.slice/docker-" + cgroupID + ".scope/kubepods-pod" + under + ".slice:cri-containerd:" + cgroupID, "", ""},
		{"the same in another pod's", "kubepods.slice/kubepods-pod" + cgroupStatic + ".slice/kubepods-pod" + under + ".slice:cri-containerd:" + cgroupID, cgroupStatic, ""},
		{"the same in another container's", "kubepods/pod" + cgroupStatic + "/" + strings.Repeat("f", 64) + "/kubepods-pod" + under + ".slice:cri-containerd:" + cgroupID,
			cgroupStatic, strings.Repeat("f", 64)},
		{"the same without an id", "system.slice/kubepods-pod" + under + ".slice:cri-containerd:x", "", ""},
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

// A cgroup that was given to a user is none of the kubelet's, whatever it is called; nor
// is one that everybody may write to.
func TestDelegatedCgroupsAreNotPods(t *testing.T) {
	ktest.Privileged(t)
	for _, test := range []struct {
		name  string
		owned string // the directory that is given away
		mode  os.FileMode
		owner int
		want  bool
	}{
		{"none", "kubelet/kubepods/pod" + cgroupUID, 0o755, 0, true},
		{"the container's, as user namespaces need it", "kubelet/kubepods/pod" + cgroupUID + "/" + cgroupID, 0o755, 1000, true},
		{"the root", "kubelet", 0o755, 1000, false},
		{"the pods'", "kubelet/kubepods", 0o755, 1000, false},
		{"the pod's", "kubelet/kubepods/pod" + cgroupUID, 0o755, 1000, false},
		{"everybody's", "kubelet", 0o777, 0, false},
		{"a group's", "kubelet", 0o775, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "kubelet/kubepods/pod"+cgroupUID, cgroupID)
			if err := errors.Join(os.Chmod(root, 0o755), os.MkdirAll(path, 0o755),
				os.Chmod(filepath.Join(root, test.owned), test.mode), os.Chown(filepath.Join(root, test.owned), test.owner, 0)); err != nil {
				t.Fatal(err)
			}
			c := NewCgroups(root, NewCache(CacheOptions{Node: "here"}), slog.New(slog.DiscardHandler))
			if _, got := c.note(path); got != test.want {
				t.Errorf("the container's: got %t, want %t", got, test.want)
			}
			if _, got := c.note(filepath.Dir(path)); got != test.want {
				t.Errorf("the pod's: got %t, want %t", got, test.want)
			}
		})
	}
}

// What others make in their cgroups takes no watch and no place.
func TestCgroupsOfOthersAreNotWalked(t *testing.T) {
	root := t.TempDir()
	for _, below := range []string{"user.slice/user-1000.slice/a/b/c", "system.slice/a.service/b", "kubepods/burstable/pod" + cgroupUID} {
		if err := os.MkdirAll(filepath.Join(root, below), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	c := NewCgroups(root, NewCache(CacheOptions{Node: "here"}), slog.New(slog.DiscardHandler))
	if got := len(c.walk(watcher, root)); got != 1 {
		t.Errorf("got %d cgroups of pods, want 1", got)
	}
	var got []string
	for _, path := range watcher.WatchList() {
		got = append(got, strings.TrimPrefix(path, root))
	}
	slices.Sort(got)
	if want := []string{"", "/kubepods", "/kubepods/burstable", "/kubepods/burstable/pod" + cgroupUID, "/system.slice"}; !slices.Equal(got, want) {
		t.Errorf("watched: got %v, want %v", got, want)
	}
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

// Where runtime and kubelet have two drivers a pod's processes are beside its own cgroup, in
// one for each container: it is metered at all of them.
func TestHostPodsOfFlatCgroups(t *testing.T) {
	root := t.TempDir()
	cache := NewCache(CacheOptions{Node: "here"})
	k := &Kubernetes{cache: cache}
	p := duo(cgroupID, strings.Repeat("f", 64))
	p.Spec.HostNetwork = true
	cache.SetPod(k.podOf(p))
	name := "kubepods-burstable-pod" + strings.ReplaceAll(cgroupUID, "-", "_") + ".slice"
	want := map[string]string{ // containers
		"kubepods.slice/kubepods-burstable.slice/" + name:                     "",
		"system.slice/" + name + ":cri-containerd:" + cgroupID:                "front",
		"system.slice/" + name + ":cri-containerd:" + strings.Repeat("f", 64): "back",
	}
	for path := range want {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := NewCgroups(root, cache, slog.New(slog.DiscardHandler))
	c.scan(&fsnotify.Watcher{})
	got := make(map[string]string)
	for _, pod := range c.HostPods() {
		info, err := os.Stat(pod.Cgroup)
		if err != nil {
			t.Fatal(err)
		}
		uid, container := c.Container(info.Sys().(*syscall.Stat_t).Ino)
		if pod.UID != cgroupUID || uid != cgroupUID {
			t.Errorf("%s: got the pods %q and %q, want %q", pod.Cgroup, pod.UID, uid, cgroupUID)
		}
		got[strings.TrimPrefix(pod.Cgroup, root+"/")] = container
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A running pod in whose cgroup there is no process is told of once, after a while, and until
// there is one, wherever in the pod's cgroups.
func TestUnpopulatedPods(t *testing.T) {
	root := ktest.NewCgroup(t)
	uid := func(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
	now := start
	var log bytes.Buffer
	cache := NewCache(CacheOptions{Node: "here", Now: func() time.Time { return now }})
	c := NewCgroups(root.Path, cache, slog.New(slog.NewTextHandler(&log, nil)))
	running := func(n int, change func(*Pod)) {
		p := pod(fmt.Sprint("p", n), 0, "192.0.2.1")
		p.UID, p.HostNetwork = uid(n), true
		change(p)
		cache.SetPod(p)
	}
	kubepods := root.Child(t, "kubepods")
	var containers [9]*ktest.Cgroup
	for n := range containers {
		containers[n] = kubepods.Child(t, "pod"+uid(n)).Child(t, cgroupID)
	}
	running(0, func(*Pod) {})
	running(1, func(*Pod) {}) // gets a process
	running(2, func(p *Pod) { p.Finished = true })
	running(3, func(p *Pod) { p.Addresses = nil })
	running(4, func(p *Pod) { p.Node = "there" })
	running(5, func(p *Pod) { p.HostNetwork = false })
	running(6, func(p *Pod) { p.Leaving = true })
	flat := root.Child(t, "system.slice").Child(t, "kubepods-burstable-pod"+strings.ReplaceAll(uid(7), "-", "_")+".slice:cri-containerd:"+cgroupID)
	running(7, func(*Pod) {}) // its processes are beside the kubelet's cgroup
	running(8, func(p *Pod) { p.Idle = true })
	c.scan(&fsnotify.Watcher{})

	look := func(seconds float64, want ...string) {
		t.Helper()
		now = at(seconds)
		c.lookForProcesses()
		var got []string
		for _, pod := range c.Unpopulated() {
			got = append(got, pod.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %v s: got %v, want %v", seconds, got, want)
		}
	}
	inside := func(cgroup *ktest.Cgroup, f func()) {
		t.Helper()
		if err := cgroup.Do(ktest.NewNamespace(t), func() error { f(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	inside(flat, func() {
		inside(containers[1], func() {
			look(0)
			look(29)
			look(30, "p0", "p5")
		})
		look(40, "p0", "p5")
		look(71, "p0", "p1", "p5")
	})
	if got := c.Unpopulated(); !got[0].HostNetwork || got[2].HostNetwork || !got[1].Since.Equal(at(40)) ||
		got[0].Cgroup != filepath.Join(kubepods.Path, "pod"+uid(0)) {
		t.Errorf("got %+v", got)
	}
	if got := strings.Count(log.String(), "no process in the cgroup"); got != 3 {
		t.Errorf("got %d warnings, want one for each of three pods:\n%s", got, log.String())
	}
	inside(containers[0], func() { inside(flat, func() { look(80, "p1", "p5") }) })
	inside(flat, func() { look(81, "p1", "p5") })
}

// That no running pod has a cgroup that is known is said once, after a while: so it is where the kubelet's are
// in a hierarchy of cgroup v1, or below a root of an unknown shape.
func TestNoPodHasACgroup(t *testing.T) {
	root := ktest.NewCgroup(t)
	now := start
	var log bytes.Buffer
	cache := NewCache(CacheOptions{Node: "here", Now: func() time.Time { return now }})
	c := NewCgroups(root.Path, cache, slog.New(slog.NewTextHandler(&log, nil)))
	look := func(seconds float64, want int) {
		t.Helper()
		now = at(seconds)
		c.scan(&fsnotify.Watcher{})
		c.lookForProcesses()
		if got := strings.Count(log.String(), "none has a cgroup"); got != want {
			t.Errorf("after %v s: got %d warnings, want %d:\n%s", seconds, got, want, log.String())
		}
	}
	root.Child(t, "system.slice").Child(t, "rootless.service").Child(t, "kubepods").Child(t, "pod"+cgroupUID)
	look(0, 0)
	look(40, 0) // nor is there a pod
	idle, p := pod("idle", 0, "10.0.0.2"), pod("a", 0, "10.0.0.1")
	idle.Idle, p.UID = true, cgroupUID
	cache.SetPod(idle)
	look(50, 0)
	look(90, 0)
	cache.SetPod(p)
	look(100, 0)
	look(129, 0)
	known := root.Child(t, "kubepods").Child(t, "pod"+cgroupUID)
	look(131, 0)
	if err := os.Remove(known.Path); err != nil {
		t.Fatal(err)
	}
	look(140, 0)
	look(169, 0)
	look(170, 1)
	look(300, 1)
}

// Where not all cgroups can be watched, as inotify's limit is reached, the tree is read more often.
func TestCgroupsThatCannotBeWatched(t *testing.T) {
	root := ktest.NewCgroup(t)
	c := NewCgroups(root.Path, NewCache(CacheOptions{Node: "here"}), slog.New(slog.DiscardHandler))
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	c.scan(watcher)
	if got := c.pace(cgroupRescan); got != cgroupRescan {
		t.Errorf("all watched: got %v, want %v", got, cgroupRescan)
	}
	if err := watcher.Close(); err != nil {
		t.Fatal(err)
	}
	c.scan(watcher)
	if got := c.pace(cgroupRescan); got != cgroupSearch {
		t.Errorf("not watched: got %v, want %v", got, cgroupSearch)
	}
	if got := c.pace(cgroupPoll); got != cgroupPoll {
		t.Errorf("no watcher: got %v, want %v", got, cgroupPoll)
	}
}
