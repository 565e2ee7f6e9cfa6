// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/kubetest"
)

func podNumber(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// large returns a cache with a number of pods, a hundredth of it as nodes and a
// tenth as services.
func large(pods int) *Cache {
	c := newTestCache(&clock{start})
	for i := range pods {
		p := pod(fmt.Sprint("pod-", i), 0)
		p.Node, p.Addresses = fmt.Sprint("node-", i%(pods/100)), []netip.Addr{podNumber(i)}
		c.SetPod(p)
	}
	for i := range pods / 10 {
		c.SetService(&Service{UID: fmt.Sprint(i), Namespace: "ns", Name: fmt.Sprint("service-", i),
			Addresses: []netip.Addr{podNumber(pods + i)}, Ports: []ServicePort{{flows.ProtocolTCP, 80}}})
	}
	for i := range pods / 100 {
		c.SetNode(&Node{Name: fmt.Sprint("node-", i), Zone: "z", Addresses: []netip.Addr{podNumber(2*pods + i)},
			PodRanges: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24)}})
	}
	c.setNamed(map[netip.Prefix]string{
		netip.MustParsePrefix("198.51.100.0/24"): "a", netip.MustParsePrefix("198.51.0.0/16"): "b",
	})
	return c
}

func BenchmarkOwner(b *testing.B) {
	const pods = 100_000
	c := large(pods)
	random := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []struct {
		name    string
		address func() netip.Addr
	}{
		{"pod", func() netip.Addr { return podNumber(random.IntN(pods)) }},
		{"service", func() netip.Addr { return podNumber(pods + random.IntN(pods/10)) }},
		{"external", func() netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(random.IntN(256))}) }},
	} {
		queries := make([]flows.Query, 1<<16)
		for i := range queries {
			queries[i] = flows.Query{Address: kind.address(), Protocol: flows.ProtocolTCP, Port: 80, First: at(1), Last: at(2)}
		}
		b.Run(kind.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Owner(queries[i%len(queries)])
			}
		})
	}
}

func TestOwnerAllocatesNothing(t *testing.T) {
	c := full(&clock{start})
	for _, address := range []string{"10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.9", "198.51.100.7", "10.8.1.1", "203.0.113.9"} {
		q := query(address, 0, 1)
		if got := testing.AllocsPerRun(100, func() { c.Owner(q) }); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", address, got)
		}
	}
}

// longestPod is a pod all of whose names are as long as may be, and nobody else's but for
// the namespace's and the node's.
func longestPod(i int) *corev1.Pod {
	long := func(what string, limit int) string {
		return strings.Repeat("a", limit-len(what)-6) + fmt.Sprintf("%s%06d", what, i)
	}
	p := running(long("pod", plain.NameLimit), metav1.NewTime(start), podNumber(i).String())
	p.UID = types.UID(fmt.Sprintf("%036d", i))
	p.Namespace, p.Spec.NodeName = strings.Repeat("n", plain.LabelLimit), strings.Repeat("h", plain.NameLimit-3)+fmt.Sprint(i%200)
	p.Spec.Containers[0].Name = long("container", plain.LabelLimit)
	p.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1", UID: "u", Kind: "StatefulSet", Name: long("owner", plain.NameLimit), Controller: new(true),
	}}
	return p
}

// BenchmarkMemoryOfLongNames reports what each of 20,000 such pods takes once informers of
// a real client have read them, and the most that the process had resident meanwhile, the
// server's side included.
func BenchmarkMemoryOfLongNames(b *testing.B) {
	const pods = 20_000
	for b.Loop() {
		api := newFakeAPI(b, false, false)
		api.pods, api.pod = pods, longestPod
		before := heapInUse()
		c := NewCache(CacheOptions{Node: "here"})
		k, err := NewKubernetes(c, KubernetesOptions{Client: kubetest.API(api.client(b)), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = k.Run(ctx) })
		<-k.Synced()
		if got := c.Counts()["pod"]; got != pods || c.Bounded()["text"] != 0 {
			b.Errorf("got %d pods, %v", got, c.Bounded())
		}
		b.ReportMetric(float64(heapInUse()-before)/pods, "B/pod")
		b.ReportMetric(resident(b, "VmHWM"), "MiB-most")
		debug.FreeOSMemory()
		b.ReportMetric(resident(b, "VmRSS"), "MiB-after")
		runtime.KeepAlive(k)
		cancel()
		running.Wait()
	}
}

// resident returns a size of this process that the kernel knows, in MiB.
func resident(b *testing.B, name string) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), name+":")
	var kilobytes float64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		b.Fatal(err)
	}
	return kilobytes / 1024
}

// BenchmarkMemory reports what a pod takes: in the informer and in the cache.
func BenchmarkMemory(b *testing.B) {
	const pods = 100_000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		c := newTestCache(&clock{start})
		store := make(map[string]*trimmed[Pod], pods)
		for i := range pods {
			p := running(fmt.Sprintf("web-5d4f7c-%05d", i), metav1.NewTime(start), podNumber(i).String())
			p.Spec.NodeName = fmt.Sprint("node-", i%(pods/100))
			p.Labels = map[string]string{"pod-template-hash": "5d4f7c"}
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-5d4f7c", Controller: new(true)}}
			o := &trimmed[Pod]{p.Namespace, p.Name, string(p.UID), fmt.Sprint(i), podOf(p)}
			store[p.Namespace+"/"+p.Name] = o
			c.SetPod(o.value)
		}
		b.ReportMetric(float64(heap()-before)/pods, "B/pod")
		runtime.KeepAlive(store)
		runtime.KeepAlive(c)
	}
}
