// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// cluster is a fake API server and a source that watches it. Its time is that
// of a synctest bubble.
type cluster struct {
	*testing.T
	client *fake.Clientset
	cache  *Cache
	source *Kubernetes
	log    bytes.Buffer
	start  time.Time
}

// inCluster runs a test in a bubble with a source that has synced, or tried to.
func inCluster(t *testing.T, prepare func(*fake.Clientset), test func(*cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{T: t, client: fake.NewClientset(), start: time.Now()}
		if prepare != nil {
			prepare(c.client)
		}
		c.cache = NewCache(CacheOptions{Node: "here"})
		var err error
		c.source, err = NewKubernetes(c.cache, KubernetesOptions{
			Client: kubetest.API(c.client), Logger: slog.New(slog.NewTextHandler(&c.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := c.source.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		test(c)
		cancel()
		running.Wait()
	})
}

// at moves the bubble's time to a number of seconds after its start.
func (c *cluster) at(seconds int) {
	time.Sleep(time.Until(c.start.Add(time.Duration(seconds) * time.Second)))
	synctest.Wait()
}

func (c *cluster) time(seconds int) metav1.Time {
	return metav1.NewTime(c.start.Add(time.Duration(seconds) * time.Second))
}

// apply makes or changes a pod, and waits until that has arrived.
func (c *cluster) apply(p *corev1.Pod) {
	c.Helper()
	api := c.client.CoreV1().Pods(p.Namespace)
	_, err := api.Update(c.Context(), p, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(c.Context(), p, metav1.CreateOptions{})
	}
	if err != nil {
		c.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) delete(p *corev1.Pod) {
	c.Helper()
	if err := c.client.CoreV1().Pods(p.Namespace).Delete(c.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
	synctest.Wait()
}

// owner asks for the owner between two numbers of seconds.
func (c *cluster) owner(address string, first, last int) string {
	q := query(address, 0, 0)
	q.First, q.Last = c.time(first).Time, c.time(last).Time
	return says(c.cache.Owner(q))
}

func (c *cluster) expect(address string, first, last int, want string) {
	c.Helper()
	if got := c.owner(address, first, last); got != want {
		c.Errorf("%s from %d to %d: got %s, want %s", address, first, last, got, want)
	}
}

// running returns a running pod of this node that started at a time.
func running(name string, started metav1.Time, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &started, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	return p
}

// finished returns a pod whose containers ended.
func finished(p *corev1.Pod, phase corev1.PodPhase, ended metav1.Time) *corev1.Pod {
	p = p.DeepCopy()
	p.Status.Phase = phase
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{FinishedAt: ended},
	}
	return p
}

func TestAddressReusedWithinAnEpoch(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		a := running("a", c.time(0), "10.0.0.1")
		c.apply(a)
		c.at(60)
		leaving := finished(a, corev1.PodRunning, c.time(59))
		leaving.DeletionTimestamp = new(c.time(30))
		c.apply(leaving)
		c.delete(a)
		c.at(63)
		c.apply(running("b", c.time(61), "10.0.0.1"))
		c.expect("10.0.0.1", 10, 58, "a")
		c.expect("10.0.0.1", 62, 63, "b")
		c.expect("10.0.0.1", 58, 62, "unattributed")
	})
}

func TestLateBinding(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		i := flows.Interface{Name: "veth0", Attached: c.time(2).Time, PeerNamespace: -1, Addresses: addresses("10.0.0.1")}
		bind := func() *flows.Pod { return c.source.Binder().Bind(i, nil, &flows.Bound{}) }
		p := running("a", c.time(1))
		c.apply(p)
		c.at(3)
		if got := bind(); got != nil {
			c.Errorf("before its address is known: got %v, want nothing", got)
		}
		c.apply(running("a", c.time(1), "10.0.0.1"))
		c.at(4)
		if got := bind(); got != nil {
			c.Errorf("while its address's last owner may still be to end: got %v, want nothing", got)
		}
		c.at(7)
		want := &flows.Pod{UID: "uid-a", Namespace: "ns", Name: "a", Node: "here", Container: "main",
			Workload: flows.Workload{Type: flows.BarePod, Name: "a"}}
		if diff := cmp.Diff(want, bind()); diff != "" {
			c.Error(diff)
		}
		c.expect("10.0.0.1", 2, 4, "a")
	})
}

func TestMadeAgainUnderItsName(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		a := running("a", c.time(0), "10.0.0.1")
		c.apply(a)
		c.at(50)
		again := running("a", c.time(49), "10.0.0.2")
		again.UID = "another"
		c.apply(again) // an informer that lists anew sees an update
		c.expect("10.0.0.1", 10, 20, "a")
		c.expect("10.0.0.1", 60, 70, "private")
		c.expect("10.0.0.2", 51, 52, "a")
		want := []LocalPod{{UID: "another", Namespace: "ns", Name: "a", Running: true}}
		if diff := cmp.Diff(want, c.cache.LocalPods()); diff != "" {
			c.Error(diff)
		}
	})
}

func TestCompletedJobsAddressReused(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		job := running("job", c.time(0), "10.0.0.1")
		c.apply(job)
		c.at(100)
		c.apply(finished(job, corev1.PodSucceeded, c.time(98)))
		c.at(111)
		c.apply(running("b", c.time(110), "10.0.0.1"))
		c.at(200)
		c.apply(finished(job, corev1.PodSucceeded, c.time(98)))
		c.expect("10.0.0.1", 10, 97, "job")
		c.expect("10.0.0.1", 104, 104, "private")
		c.expect("10.0.0.1", 111, 199, "b")
		c.expect("10.0.0.1", 90, 120, "unattributed")
	})
}

func TestFailedPodWithoutEnd(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		p := running("a", c.time(0), "10.0.0.1")
		c.apply(p)
		c.at(100)
		p = p.DeepCopy()
		p.Status.Phase, p.Status.ContainerStatuses = corev1.PodFailed, nil
		c.apply(p)
		c.expect("10.0.0.1", 10, 99, "a")
		c.expect("10.0.0.1", 110, 120, "private")
	})
}

func TestHostNetworkAndDualStack(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		onHost := running("host", c.time(0), "192.0.2.1")
		onHost.Spec.HostNetwork = true
		c.apply(onHost)
		c.apply(running("dual", c.time(0), "10.0.0.1", "2001:db8::1"))
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		if _, err := c.client.CoreV1().Nodes().Create(c.Context(), node, metav1.CreateOptions{}); err != nil {
			c.Fatal(err)
		}
		synctest.Wait()
		c.expect("192.0.2.1", 1, 2, "node:here")
		c.expect("10.0.0.1", 1, 2, "dual")
		c.expect("2001:db8::1", 1, 2, "dual")
		want := map[string]int{"pod": 2, "service": 0, "node": 1, "cidr": 0}
		if diff := cmp.Diff(want, c.source.Status().Objects); diff != "" {
			c.Error(diff)
		}
	})
}

func TestServicesComeAndGo(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		api := c.client.CoreV1().Services("ns")
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "s"},
			Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "2001:db8::96"},
				Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := api.Create(c.Context(), s, metav1.CreateOptions{}); err != nil {
			c.Fatal(err)
		}
		synctest.Wait()
		c.expect("10.96.0.1", 0, 1, "service:web")
		c.expect("2001:db8::96", 0, 1, "service:web")
		c.at(60)
		if err := api.Delete(c.Context(), "web", metav1.DeleteOptions{}); err != nil {
			c.Fatal(err)
		}
		synctest.Wait()
		c.expect("10.96.0.1", 10, 59, "service:web")
		c.expect("10.96.0.1", 70, 80, "private")
	})
}

func TestStatus(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		got := c.source.Status()
		if !got.Synced || got.Problem != "" || got.Source != "kubernetes" || !got.Updated.Equal(c.start) {
			c.Errorf("got %+v, want synced at %v", got, c.start)
		}
		c.at(30)
		c.apply(running("a", c.time(0), "10.0.0.1"))
		if got := c.source.Status().Updated; !got.Equal(c.time(30).Time) {
			c.Errorf("after an event: got %v, want %v", got, c.time(30))
		}
	})
}

// forbid refuses requests until the right is given.
func forbid(verb, resource string, given *atomic.Bool) func(*fake.Clientset) {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
	return func(client *fake.Clientset) {
		if verb == "watch" {
			client.PrependWatchReactor(resource, func(clienttesting.Action) (bool, watch.Interface, error) {
				return !given.Load(), nil, err
			})
			return
		}
		client.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return !given.Load(), nil, err
		})
	}
}

func TestForbidden(t *testing.T) {
	for _, test := range []struct{ verb, resource string }{{"list", "pods"}, {"watch", "pods"}, {"list", "nodes"}, {"list", "services"}} {
		t.Run(test.verb+" "+test.resource, func(t *testing.T) {
			var given atomic.Bool
			inCluster(t, forbid(test.verb, test.resource, &given), func(c *cluster) {
				want := "no right to " + test.verb + " " + test.resource
				if got := c.source.Status(); got.Problem != want || got.Synced != (test.verb == "watch") {
					c.Errorf("got %+v, want the problem %q", got, want)
				}
				c.at(290) // many tries
				if got := strings.Count(c.log.String(), want); got != 1 {
					c.Errorf("got it logged %d times, want once:\n%s", got, c.log.String())
				}
				given.Store(true)
				c.at(400)
				if got := c.source.Status(); got.Problem != "" || !got.Synced {
					c.Errorf("after the right was given: got %+v, want synced", got)
				}
			})
		})
	}
}

func TestServerAway(t *testing.T) {
	away := func(client *fake.Clientset) {
		client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
	}
	inCluster(t, away, func(c *cluster) {
		if got := c.source.Status(); got.Problem != "list pods: connection refused" || got.Synced {
			c.Errorf("before the first sync: got %+v, want the problem", got)
		}
	})
}

func TestScopeOfNode(t *testing.T)    { checkSelector(t, ScopeNode, "spec.nodeName=here") }
func TestScopeOfCluster(t *testing.T) { checkSelector(t, ScopeCluster, "spec.nodeName!=") }

// checkSelector wants a selector of pods, and none of other objects.
func checkSelector(t *testing.T, scope Scope, pods string) {
	client := fake.NewClientset()
	k, err := NewKubernetes(newTestCache(&clock{start}), KubernetesOptions{
		Client: kubetest.API(client), Scope: scope, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = k.Run(ctx) })
	<-k.Synced()
	cancel()
	running.Wait()
	for _, action := range client.Actions() {
		list, ok := action.(clienttesting.ListAction)
		if !ok {
			continue
		}
		want := ""
		if action.GetResource().Resource == "pods" {
			want = pods
		}
		if got := list.GetListRestrictions().Fields.String(); got != want {
			t.Errorf("%s: got selector %q, want %q", action.GetResource().Resource, got, want)
		}
	}
}

func TestOptionsOfKubernetes(t *testing.T) {
	for _, test := range []struct {
		node  string
		scope Scope
		want  string
	}{
		{"", ScopeCluster, "watch Kubernetes: this node's name is not known"},
		{"here", "world", `watch Kubernetes: unknown scope "world"`},
	} {
		_, err := NewKubernetes(NewCache(CacheOptions{Node: test.node}), KubernetesOptions{
			Client: kubetest.API(fake.NewClientset()), Scope: test.scope, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestDeletedFinalStateUnknown(t *testing.T) {
	c := newTestCache(&clock{start})
	h := handler(watched[Pod]{set: c.SetPod, remove: c.DeletePod})
	p := &trimmed[Pod]{uid: "uid-a", value: pod("a", 0, "10.0.0.1")}
	h.OnAdd(p, true)
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/a", Obj: p})
	if got := c.Counts()["pod"]; got != 0 {
		t.Errorf("got %d pods, want none", got)
	}
}
