// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/flows/identity"
	"github.com/podmeter/podmeter/internal/ktest"
	"github.com/podmeter/podmeter/internal/kubetest"
	"github.com/vishvananda/netlink"
	"k8s.io/client-go/kubernetes/fake"
)

// pluginPath is where Debian's package containernetworking-plugins has them.
const pluginPath = "/usr/lib/cni"

// The plugins, as a runtime's configuration lists them.
const (
	ptpPlugin    = `{"type": "ptp", "ipam": {"type": "host-local", "dataDir": %q, "subnet": "198.51.100.0/24"}}`
	bridgePlugin = `{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "198.51.100.0/24"}], [{"subnet": "2001:db8:0:1::/64"}]]}}`
	shapingPlugin = `{"type": "bandwidth", "ingressRate": 1000000000, "ingressBurst": 80000000, "egressRate": 1000000000, "egressBurst": 80000000}`
)

// cniNode is a node with a container runtime's half of CNI, an identity source that
// reads the runtime's cache, and a meter.
type cniNode struct {
	host      *ktest.Namespace
	cache     string // libcni's directory
	runtime   *libcni.CNIConfig
	list      *libcni.NetworkConfigList
	pods      *identity.Cache
	source    *identity.Kubernetes
	table     *flows.Table
	publisher *flows.Publisher
}

// newCNINode makes a node whose pods get interfaces by a chain of plugins.
func newCNINode(t *testing.T, plugins ...string) *cniNode {
	t.Helper()
	n := &cniNode{host: ktest.NewNamespace(t), cache: t.TempDir(), pods: identity.NewCache(identity.CacheOptions{Node: "here"})}
	if _, err := os.Stat(filepath.Join(pluginPath, "host-local")); err != nil {
		t.Skipf("CNI plugins (package containernetworking-plugins): %v", err)
	}
	config := strings.Join(plugins, ",")
	if strings.Contains(config, "%q") {
		config = fmt.Sprintf(config, t.TempDir())
	}
	var err error
	n.list, err = libcni.ConfListFromBytes([]byte(`{"cniVersion": "1.0.0", "name": "net", "plugins": [` + config + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	n.runtime = libcni.NewCNIConfigWithCacheDir([]string{pluginPath}, n.cache, nil)
	n.source, err = identity.NewKubernetes(n.pods, identity.KubernetesOptions{
		Client: kubetest.API(fake.NewClientset()), CNICache: n.cache, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.table = flows.NewTable(flows.TableOptions{FlowLimit: 100, ExternalLimit: 100})
	n.publisher = flows.NewPublisher(flows.PublisherOptions{
		Table: n.table, Directory: n.pods, Binder: n.source.Binder(), Logger: slog.New(slog.DiscardHandler),
	})
	return n
}

// add makes a pod's interface as a container runtime does.
func (n *cniNode) add(t *testing.T, pod *ktest.Namespace, name string) {
	t.Helper()
	err := n.host.Do(func() error { // plugins start in the namespace of this thread
		_, err := n.runtime.AddNetworkList(t.Context(), n.list, &libcni.RuntimeConf{
			ContainerID: "sandbox-" + name, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), pod.FD()), IfName: "eth0",
			Args: [][2]string{
				{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "ns"}, {"K8S_POD_NAME", name},
				{"K8S_POD_INFRA_CONTAINER_ID", "sandbox-" + name}, {"K8S_POD_UID", "uid-" + name},
			},
		})
		return err
	})
	if err != nil {
		t.Fatalf("add network of pod %s: %v", name, err)
	}
}

// tell tells of a pod as soon as it is scheduled: its address comes later.
func (n *cniNode) tell(name string) {
	n.pods.SetPod(&identity.Pod{Pod: flows.Pod{UID: "uid-" + name, Namespace: "ns", Name: name, Node: "here"}})
}

// bound are the names of the pods that interfaces are bound to.
func (n *cniNode) bound() (names []string) {
	for _, pod := range n.publisher.Pods() {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

// peer returns the device that the pod's eth0 leads to.
func (n *cniNode) peer(t *testing.T, pod *ktest.Namespace) (index int) {
	t.Helper()
	err := pod.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			index = l.Attrs().ParentIndex
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// Interfaces that real plugins make, and a real libcni remembers, are bound to the
// pods that they were made for, before anybody knows a pod's address; what the pods
// share is bound to none of them.
func TestBindsWhatCNIPluginsMake(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		plugins []string
		ifb     bool
	}{
		{"ptp", []string{ptpPlugin}, false},
		{"bridge", []string{bridgePlugin}, false},
		{"bridge and bandwidth", []string{bridgePlugin, shapingPlugin}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.ifb {
				requireBandwidth(t)
			}
			n := newCNINode(t, test.plugins...)
			m := startMeter(t, n.host, func(o *Options) { o.Sink, o.Interfaces = n.publisher, []string{"veth*", "cni*", "bwp*"} })
			pods := map[string]*ktest.Namespace{"a": ktest.NewNamespace(t), "b": ktest.NewNamespace(t)}
			for name, pod := range pods {
				n.add(t, pod, name)
				pod.Send(t, "198.51.100.1:9", 100, 25)
			}
			ktest.Await(t, "interfaces are metered", func() bool { return len(m.Interfaces()) >= 2 })
			n.tell("a")
			ktest.Await(t, "pod a is bound", func() bool { return cmp.Equal(n.bound(), []string{"a"}) })
			n.tell("b")
			ktest.Await(t, "pod b is bound", func() bool { return cmp.Equal(n.bound(), []string{"a", "b"}) })
			for name, pod := range pods {
				if got := n.publisher.Pods()[flows.Point(n.peer(t, pod))]; got == nil || got.Name != name {
					t.Errorf("the interface of %s: bound to %+v", name, got)
				}
			}
			drains := m.LastDrain().Count
			ktest.Await(t, "some drains", func() bool { return m.LastDrain().Count > drains+3 })
			if got := n.bound(); !cmp.Equal(got, []string{"a", "b"}) {
				t.Errorf("bound in the end: got %v, want one interface of each pod", got)
			}
			for _, row := range n.table.Snapshot().Pods {
				if got := row.Counters[flows.Transmit].Packets; got < 25 {
					t.Errorf("pod %s: got %d packets, want the 25 that it sent", row.Pod, got)
				}
			}
		})
	}
}

// With netlink an interface of a bridge, to which nothing is routed, waits until the
// plugins are done with it, and no longer.
func TestWaitsForCNIPluginsAlone(t *testing.T) {
	t.Parallel()
	requireBandwidth(t)
	n := newCNINode(t, bridgePlugin, shapingPlugin)
	m := startMeter(t, n.host, func(o *Options) {
		o.Sink, o.Attach, o.Ready = n.publisher, AttachNetlink, n.source.Made
	})
	ktest.Await(t, "first listing", func() bool { return m.LastDrain().Count > 0 })
	n.tell("a")
	pod := ktest.NewNamespace(t)
	n.add(t, pod, "a")
	ktest.Await(t, "the interface is attached", func() bool { return len(m.Interfaces()) == 1 })
	ktest.Await(t, "the pod is bound", func() bool { return cmp.Equal(n.bound(), []string{"a"}) })
}
