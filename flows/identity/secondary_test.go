// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/effort"
)

// annotated returns a pod with one address in its status and the annotation.
func annotated(name string, started metav1.Time, status string, ips ...string) *corev1.Pod {
	p := running(name, started, ips...)
	p.Annotations = map[string]string{networkStatus: status}
	return p
}

// statusOf is an annotation as Multus writes it: the cluster's network and another one.
func statusOf(own string, ips ...string) string {
	quoted := `"` + strings.Join(ips, `","`) + `"`
	return `[{"name":"cbr0","interface":"eth0","ips":["` + own + `"],"mac":"2a:0b:00:00:00:01","default":true,"dns":{}},
		{"name":"default/storage","interface":"net1","ips":[` + quoted + `],"mac":"2a:0b:00:00:00:02","dns":{}}]`
}

func TestSecondaryAddresses(t *testing.T) {
	var tooMany, manyNetworks []string
	for i := range maxSecondaryAddresses + 1 {
		tooMany = append(tooMany, fmt.Sprintf("192.168.9.%d", i))
		manyNetworks = append(manyNetworks, fmt.Sprintf(`{"ips":["192.168.9.%d"]}`, i))
	}
	for _, test := range []struct {
		name, status string
		want         []string
		over         Bounds
	}{
		{"none", "", nil, 0},
		{"of the cluster's network alone", statusOf("10.0.0.1"), nil, 0},
		{"of both families", statusOf("10.0.0.1", "192.168.7.2", "fd00:7::2"), []string{"192.168.7.2", "fd00:7::2"}, 0},
		{"twice", statusOf("10.0.0.1", "192.168.7.2", "::ffff:192.168.7.2"), []string{"192.168.7.2"}, 0},
		{"of the internet, or everybody's", statusOf("10.0.0.1", "1.1.1.1", "2606:4700::1111", "169.254.169.254", "127.0.0.1", "224.0.0.1", "0.0.0.0"), nil, 0},
		{"no addresses", statusOf("10.0.0.1", "", "192.168.7.2/24", "host.example"), nil, 0},
		{"networks without addresses", `[{"name":"sriov"},{"name":"other","ips":null},{}]`, nil, 0},
		{"no JSON", "<img src=x>", nil, BoundNetworks},
		{"no list", `{"ips":["192.168.7.2"]}`, nil, BoundNetworks},
		{"other types", `[{"ips":["192.168.7.2"]},{"ips":"192.168.7.3"}]`, nil, BoundNetworks},
		{"deep", strings.Repeat("[", maxNetworkStatus), nil, BoundNetworks},
		{"large", `[{"ips":["192.168.7.2"],"name":"` + strings.Repeat("a", maxNetworkStatus) + `"}]`, nil, BoundNetworks},
		{"of many addresses", `[{"ips":["` + strings.Join(tooMany, `","`) + `"]}]`, tooMany[:maxSecondaryAddresses], BoundNetworks},
		{"of many networks", "[" + strings.Join(manyNetworks, ",") + "]", tooMany[:maxNetworks], BoundNetworks},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := annotated("a", metav1.NewTime(start), test.status, "10.0.0.1")
			got := podOf(p)
			if diff := cmp.Diff(addresses(test.want...), got.Secondary, compareAddresses); diff != "" || got.Over != test.over {
				t.Errorf("beyond bounds %b, want %b (-want +got):\n%s", got.Over, test.over, diff)
			}
			p.Spec.HostNetwork = true
			if got := podOf(p).Secondary; got != nil {
				t.Errorf("in the node's network: got %v", got)
			}
		})
	}
}

// A pod is a peer at the addresses of its further networks, while it has them.
func TestPeersAtSecondaryAddresses(t *testing.T) {
	inCluster(t, nil, func(c *cluster) {
		const net1 = "192.168.7.2"
		c.expect(net1, 0, 0, "private")
		a := annotated("a", c.time(0), statusOf("10.0.0.1", net1, "fd00:7::2"), "10.0.0.1")
		a.Spec.NodeName = "there"
		c.apply(a)
		c.at(20)
		for _, address := range []string{"10.0.0.1", net1, "fd00:7::2"} {
			c.expect(address, 10, 20, "a")
		}
		q := query(net1, 0, 0)
		q.First, q.Last = c.time(10).Time, c.time(20).Time
		if got := c.cache.Owner(q); got.Node != "there" || got.Name != "a" || got.WorkloadType != flows.BarePod {
			t.Errorf("got %+v, want the pod's labels", got)
		}
		a = annotated("a", c.time(0), statusOf("10.0.0.1", "192.168.7.3"), "10.0.0.1")
		a.Spec.NodeName = "there"
		c.apply(a)
		c.at(100)
		c.expect(net1, 10, 19, "a")
		c.expect(net1, 50, 100, "private")
		c.expect("192.168.7.3", 50, 100, "a")
		c.apply(finished(a, corev1.PodSucceeded, c.time(90)))
		c.expect("192.168.7.3", 50, 89, "a")
		c.expect("192.168.7.3", 100, 100, "private")
		c.delete(a)
		c.expect("10.0.0.1", 10, 89, "a")
		c.expect(net1, 10, 19, "a")
	})
}

// Whoever may patch a pod can write its annotation, so that it names what nobody else has.
func TestAnnouncedAddressesYield(t *testing.T) {
	const private = "172.16.0.9"
	for _, test := range []struct {
		name, address string
		do            func(*Cache)
		want          string
	}{
		{"to nobody", private, func(*Cache) {}, "liar"},
		{"to a pod of this node", private, func(c *Cache) { c.SetPod(pod("a", 0, private)) }, "a"},
		{"to a pod of another node", private, func(c *Cache) { c.SetPod(far("b", "n1", 0, private)) }, "b"},
		{"to a pod outside of its node's range", private, func(c *Cache) {
			c.SetNode(ranged("n1", "192.0.2.11", "10.9.0.0/24"))
			c.SetPod(far("b", "n1", 0, private))
		}, "b"},
		{"to a node", private, func(c *Cache) { c.SetNode(ranged("n1", private)) }, "node:n1"},
		{"to this host", private, func(c *Cache) { c.SetHostAddresses(addresses(private)) }, "node:here"},
		{"to a ClusterIP", private, func(c *Cache) {
			c.SetService(&Service{UID: "s", Namespace: "shop", Name: "web", Addresses: addresses(private)})
		}, "service:web"},
		{"to a load balancer", private, func(c *Cache) {
			c.SetService(&Service{UID: "s", Name: "web", Shared: addresses(private), Ports: []ServicePort{{flows.ProtocolTCP, 80}}})
		}, "service:web"},
		{"to externalIPs", private, func(c *Cache) {
			c.SetService(&Service{UID: "s", Name: "web", External: addresses(private), Ports: []ServicePort{{flows.ProtocolTCP, 80}}})
		}, "service:web"},
		{"to a named range", private, func(c *Cache) {
			c.setNamed(map[netip.Prefix]string{netip.MustParsePrefix("172.16.0.0/12"): "office"})
		}, "cidr:office"},
		{"to the cluster's ranges", "10.0.0.1", func(*Cache) {}, "cluster"},
		{"to nothing, where another announces it too", private, func(c *Cache) { c.SetPod(announcing("other", private)) }, "private"},
		{"to nothing, where others come and go", private, func(c *Cache) {
			c.SetPod(announcing("other", private))
			c.DeletePod(announcing("other", private))
		}, "liar"},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, announced first %t", test.name, first), func(t *testing.T) {
				k := &clock{start}
				c := newTestCache(k)
				if !first {
					test.do(c)
				}
				c.SetPod(announcing("liar", test.address))
				if first {
					test.do(c)
				}
				k.Time = at(100)
				if got := says(c.Owner(query(test.address, 50, 60))); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		}
	}
}

// announcing is a pod of this node with an annotation.
func announcing(name string, ips ...string) *Pod {
	p := pod(name, 0, "10.0.200.1")
	p.Secondary = addresses(ips...)
	return p
}

// What a pod announces is no evidence: neither of its interface, nor that it may send from
// there, nor that the pod that truly has the address may not.
func TestAnnouncedAddressesAreNoEvidence(t *testing.T) {
	const net1 = "192.168.7.2"
	address := netip.MustParseAddr(net1)
	c := newTestCache(&clock{start})
	liar := announcing("liar", net1, "192.168.7.3")
	c.SetPod(liar)
	c.SetPod(pod("victim", 0, net1))
	if got := c.LocalPod(netip.MustParseAddr("192.168.7.3"), at(10), at(20)); got != nil {
		t.Errorf("the interface of what it announces: got %s, want nobody's", got.Name)
	}
	if got := c.LocalPod(address, at(10), at(20)); got == nil || got.Name != "victim" {
		t.Errorf("the victim's interface: got %v", got)
	}
	if !c.Foreign(&liar.Pod, address, at(10), at(20)) {
		t.Error("sent from the victim's address: got not foreign")
	}
	if got := c.Owner(query("192.168.7.3", 10, 20)); !got.Announced || got.Pod != "liar" {
		t.Errorf("got %+v, want the pod by its own word", got)
	}
	if got := c.Owner(query("10.0.200.1", 10, 20)); got.Announced {
		t.Error("the address of its status: got announced")
	}
}

// As many pods as one likes may announce an address, and a look-up reads all that are kept.
func TestAnnouncersOfOneAddressAreBounded(t *testing.T) {
	const net1 = "192.168.7.2"
	c := newTestCache(&clock{start})
	var all []*Pod
	for i := range maxSharers + 10 {
		all = append(all, announcing(fmt.Sprint("p", i), net1))
		c.SetPod(all[i])
	}
	if got := len(c.claims.byAddress[netip.MustParseAddr(net1)]); got != maxSharers {
		t.Errorf("got %d claims, want %d", got, maxSharers)
	}
	if got := c.Bounded()["networks"]; got != 10 {
		t.Errorf("got %d counted, want 10", got)
	}
	for _, p := range all {
		c.DeletePod(p)
	}
	if got := len(c.claims.byAddress[netip.MustParseAddr(net1)]); got > maxEndedAt {
		t.Errorf("got %d claims of pods that are gone, want at most %d", got, maxEndedAt)
	}
}

// Forgetting what ended in a pod's status does not forget what it announced instead.
func TestEndedClaimsOfBothKindsAreForgotten(t *testing.T) {
	const net1 = "192.168.7.2"
	k := &clock{start}
	c := newTestCache(k)
	c.SetPod(announcing("p", net1))
	k.Time = at(10)
	c.SetPod(pod("p", 0, net1))
	k.Time = at(20)
	c.DeletePod(pod("p", 0, net1))
	c.claims.thin(rankPodHere, maxEnded) // the one in the status, and that of before
	if got := says(c.Owner(query(net1, 2, 8))); got != "p" {
		t.Errorf("got %s, want the pod that announced it", got)
	}
	c.claims.forget(forever)
	if got := c.claims.byAddress; len(got) != 0 {
		t.Errorf("got %v left", got)
	}
}

// Addresses that change between status and annotation leave nothing behind.
func TestAnnouncedAddressesAreForgotten(t *testing.T) {
	for seed := range effort.Choose(500, uint64(50)) {
		random := rand.New(rand.NewPCG(seed, 0))
		k := &clock{start}
		c := newTestCache(k)
		some := func() (all []netip.Addr) {
			for range random.IntN(4) {
				all = appendOnce(all, netip.AddrFrom4([4]byte{192, 168, 7, byte(random.IntN(5))}))
			}
			return all
		}
		pods := map[string]*Pod{}
		for second := range 60 {
			k.Time = at(float64(second))
			name := fmt.Sprint("p", random.IntN(4))
			if old := pods[name]; old != nil && random.IntN(3) == 0 {
				c.DeletePod(old)
				delete(pods, name)
				continue
			}
			p := pod(name, float64(second))
			p.Addresses = some()
			p.Secondary = without(some(), p.Addresses)
			if random.IntN(4) == 0 {
				p = ended(p, float64(second))
			}
			pods[name] = p
			c.SetPod(p)
		}
		for _, p := range pods {
			c.DeletePod(p)
		}
		k.Time = at(1e6)
		c.SetPod(pod("last", 1e6))
		if len(c.claims.byAddress) != 0 || len(c.claims.ended) != 0 || c.claims.endedOf != [rankAnnounced + 1]int{} {
			t.Fatalf("seed %d: got claims %v, %d ended, %v", seed, c.claims.byAddress, len(c.claims.ended), c.claims.endedOf)
		}
	}
}
