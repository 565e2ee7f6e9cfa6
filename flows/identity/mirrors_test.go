// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// staticPod is the mirror of a static pod in the node's network, or what has its annotation.
func staticPod(name string, created float64) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, UID: types.UID("uid-" + name),
		CreationTimestamp: metav1.NewTime(at(created)), Annotations: map[string]string{corev1.MirrorPodAnnotationKey: cgroupStatic}}}
	p.Spec = corev1.PodSpec{NodeName: "here", HostNetwork: true, Containers: []corev1.Container{{Name: "only"}}}
	return p
}

// Who copies the annotation of a mirror does not become it, nor keeps it from being one.
func TestCopiesOfMirrors(t *testing.T) {
	proxy := staticPod("proxy-here", 0)
	liar := staticPod("liar", 50)
	again := staticPod("proxy-here", 100)
	again.UID = "uid-again"
	unlike := func(p *corev1.Pod, change func(*corev1.Pod)) *corev1.Pod { p = p.DeepCopy(); change(p); return p }
	for _, test := range []struct {
		name   string
		made   []*corev1.Pod
		gone   []*corev1.Pod // in the end
		cgroup string
		want   string
		said   int
	}{
		{"a copy", []*corev1.Pod{proxy, liar}, nil, cgroupStatic, "uid-proxy-here", 1},
		{"a copy, of which is told first", []*corev1.Pod{liar, proxy}, nil, cgroupStatic, "uid-proxy-here", 1},
		{"a copy of the same second", []*corev1.Pod{staticPod("liar", 0), proxy}, nil, cgroupStatic, "uid-proxy-here", 1},
		{"a copy of the same second that is called so too", []*corev1.Pod{proxy, staticPod("evil-here", 0)}, nil, cgroupStatic, "uid-proxy-here", 1},
		{"many copies", []*corev1.Pod{proxy, liar, staticPod("liar2", 51), staticPod("liar3", 52)}, nil, cgroupStatic, "uid-proxy-here", 3},
		{"of another node", []*corev1.Pod{proxy, unlike(liar, func(p *corev1.Pod) { p.Spec.NodeName = "there" })}, nil, cgroupStatic, "uid-proxy-here", 0},
		{"a copy that ends", []*corev1.Pod{proxy, liar}, []*corev1.Pod{liar}, cgroupStatic, "uid-proxy-here", 1},
		{"the mirror is deleted", []*corev1.Pod{proxy, liar}, []*corev1.Pod{proxy}, cgroupStatic, "uid-proxy-here", 1},
		{"the mirror is deleted and made again", []*corev1.Pod{proxy, liar, again}, []*corev1.Pod{proxy}, cgroupStatic, "uid-again", 1},
		{"a copy was there, too", []*corev1.Pod{proxy, liar, again}, []*corev1.Pod{liar, proxy}, cgroupStatic, "uid-again", 1},
		{"of a pod that is none", []*corev1.Pod{unlike(proxy, func(p *corev1.Pod) { p.UID, p.Annotations = cgroupUID, nil }),
			unlike(liar, func(p *corev1.Pod) { p.Annotations[corev1.MirrorPodAnnotationKey] = cgroupUID })}, nil, cgroupUID, cgroupUID, 0},
		{"of a pod that has gone", []*corev1.Pod{unlike(proxy, func(p *corev1.Pod) { p.UID, p.Annotations = cgroupUID, nil }),
			unlike(liar, func(p *corev1.Pod) { p.Annotations[corev1.MirrorPodAnnotationKey] = cgroupUID })},
			[]*corev1.Pod{unlike(proxy, func(p *corev1.Pod) { p.UID, p.Annotations = cgroupUID, nil })}, cgroupUID, cgroupUID, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			clock := &clock{at(100)}
			k := &Kubernetes{cache: newTestCache(clock), logger: slog.New(slog.NewTextHandler(&log, nil)), copies: make(map[string]bool)}
			for range 2 { // news come again
				for n, p := range test.made {
					clock.Time = at(100 + float64(n))
					k.setPod(k.podOf(p))
				}
			}
			for _, p := range test.gone {
				k.cache.DeletePod(k.podOf(p))
			}
			if got := k.cache.hostPod(test.cgroup); got == nil || got.UID != test.want {
				t.Errorf("got %+v, want %s", got, test.want)
			}
			if got := strings.Count(log.String(), "annotation"); got != test.said {
				t.Errorf("got %d lines, want %d:\n%s", got, test.said, &log)
			}
		})
	}
}

// What a tenant can make happen any number of times is said some times.
func TestCopiesOfMirrorsAreNotLoggedForEver(t *testing.T) {
	var log bytes.Buffer
	k := &Kubernetes{cache: newTestCache(&clock{start}), logger: slog.New(slog.NewTextHandler(&log, nil)), copies: make(map[string]bool)}
	k.setPod(k.podOf(staticPod("proxy-here", 0)))
	for n := range 10 * maxCopies {
		p := k.podOf(staticPod(fmt.Sprint("liar", n), 50))
		k.setPod(p)
		k.cache.DeletePod(p)
	}
	if got := strings.Count(log.String(), "\n"); got != maxCopies+1 || len(k.copies) > maxCopies+1 {
		t.Errorf("got %d lines and %d pods remembered, want %d", got, len(k.copies), maxCopies+1)
	}
	if got := k.cache.hostPod(cgroupStatic); got == nil || got.Name != "proxy-here" {
		t.Errorf("got %+v, want proxy-here", got)
	}
}

// News of a pod with a mirror's annotation does not cost by all pods of the node: whoever may create pods
// makes many there that fail and stay.
func TestManyMirrors(t *testing.T) {
	k := &Kubernetes{cache: newTestCache(&clock{at(100)}), logger: slog.New(slog.DiscardHandler), copies: make(map[string]bool)}
	const pods, deadline = 40_000, 30 * time.Second
	began := time.Now()
	made := func(i int) *Pod {
		p := pod(fmt.Sprint("p", i), 0)
		p.StaticUID, p.Finished = fmt.Sprint("static", i), true
		return p
	}
	for i := range pods {
		if k.setPod(made(i)); time.Since(began) > deadline {
			t.Fatalf("got %d pods within %v, want %d", i, deadline, pods)
		}
	}
	if mirror, _ := k.cache.copiesOf("static7"); mirror == nil || mirror.Name != "p7" {
		t.Errorf("got %v, want p7", mirror)
	}
	for i := range pods {
		k.cache.DeletePod(made(i))
	}
	if got := len(k.cache.nodes); got != 0 {
		t.Errorf("got %d nodes in the end, want none", got)
	}
}
