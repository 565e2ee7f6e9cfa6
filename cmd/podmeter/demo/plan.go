// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"hash/fnv"
	"net/netip"
)

// The devices that the world's ends of veths have: the node's towards the
// internet, which is not metered, and a pod's own.
const (
	uplink    = "uplink0"
	podDevice = "eth0"
)

const nodeName = "demo-node"

// podPlan is a pod of the demo.
type podPlan struct {
	namespace, name        string
	workloadType, workload string
	container              string
	addresses              []netip.Addr // IPv4 first
}

func (p podPlan) String() string { return p.namespace + "/" + p.name }

// device is the name of the node's end of the pod's veth, made of a hash as
// container runtimes do.
func (p podPlan) device() string {
	h := fnv.New32a()
	h.Write([]byte(p.String()))
	return fmt.Sprintf("veth%08x", h.Sum32())
}

// hasIPv6 reports whether the pod is dual-stack.
func (p podPlan) hasIPv6() bool { return len(p.addresses) > 1 }

func addresses(s ...string) []netip.Addr {
	list := make([]netip.Addr, len(s))
	for i := range s {
		list[i] = netip.MustParseAddr(s[i])
	}
	return list
}

// The pods of the demo. Those that come later are in the identity from the
// start, as a pod is in the API before it has an interface.
func clientPod() podPlan {
	return podPlan{"shop", "client", "deployment", "client", "client", addresses("10.244.1.10", "fd00:10:244:1::10")}
}

func webPod(replica int) podPlan {
	address := fmt.Sprintf("10.244.1.%d", 20+replica)
	return podPlan{"shop", fmt.Sprintf("web-%d", replica), "deployment", "web", "nginx", addresses(address)}
}

func apiPod() podPlan {
	return podPlan{"shop", "api", "deployment", "api", "api", addresses("10.244.1.30", "fd00:10:244:1::30")}
}

func resolverPod() podPlan {
	return podPlan{"batch", "resolver", "deployment", "resolver", "dns", addresses("10.244.1.40")}
}

func jobPod() podPlan {
	return podPlan{"batch", "report-1", "job", "report", "report", addresses("10.244.1.50")}
}

// startPods are there before the agent, laterPods are not.
func startPods() []podPlan {
	return []podPlan{clientPod(), webPod(1), webPod(2), apiPod(), resolverPod()}
}

func laterPods() []podPlan { return []podPlan{webPod(3), jobPod()} }

// podRanges are where the addresses of pods are from.
func podRanges() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
}

// The gateway that every pod has, on the node's end of its veth.
func gateways() []netip.Addr { return addresses("169.254.1.1", "fe80::a9fe:101") }

// The two ends of the uplink, IPv4 and IPv6.
func nodeAddresses() []netip.Addr   { return addresses("10.0.0.2", "fd00:10::2") }
func routerAddresses() []netip.Addr { return addresses("10.0.0.1", "fd00:10::1") }

// The internet's addresses, of ranges that RFC 5737 and RFC 3849 reserve for
// documentation. The demo's databases place them in the cities named.
var (
	zurich     = netip.MustParseAddr("198.51.100.10")
	tokyo      = netip.MustParseAddr("198.51.100.200")
	saoPaulo   = netip.MustParseAddr("203.0.113.20")
	nairobi    = netip.MustParseAddr("203.0.113.200")
	reykjavik  = netip.MustParseAddr("2001:db8:1::10")
	wellington = netip.MustParseAddr("2001:db8:2::20")
)

func internetAddresses() []netip.Addr {
	return []netip.Addr{zurich, tokyo, saoPaulo, nairobi, reykjavik, wellington}
}
