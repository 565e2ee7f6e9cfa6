// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/bpf"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

const (
	cachedPods = 10_000
	// fullEpochs are so many that each set is read twice while both are full.
	fullEpochs = 5
	fillBatch  = 1024
)

// The agent keeps to the limit of the chart with as many sockets and ends of connections as
// its maps hold, in both sets, with 10,000 pods, scrapes in flight and probes.
func TestFullAgent(t *testing.T) {
	effort.Long(t, "fills all maps")
	w := newWorld(t, build(t))
	a := newAPI(t, w)
	for n := range cachedPods {
		a.objects["pods"] = append(a.objects["pods"], ordinaryPod(n))
	}
	w.startWith(t, a, "--scope", "cluster", "--drain-interval", "10s") // time to fill a set
	w.logMemory(t, fmt.Sprintf("with %d pods", cachedPods))
	w.fillSockets(t)

	ctx, cancel := context.WithCancel(t.Context())
	var most uint64
	var watching sync.WaitGroup
	watching.Go(func() { most = w.watchMemory(ctx) })
	before, filled, epochs := w.agent.metrics(t), 0, w.pinnedMap(t, "epoch*")
	for n, last := 0, epochOf(t, epochs); n < fullEpochs; n++ {
		// The set that is read next is full, and so will be the one that is being written.
		if err := ktest.Eventually(ktest.Patience, "the next epoch", func() bool { return epochOf(t, epochs) != last }); err != nil {
			w.agent.alive(t)
			t.Fatalf("%v; the agent said:\n%s", err, w.agent.tail())
		}
		last = epochOf(t, epochs)
		filled += w.fillHealth(t, last)
		if after := epochOf(t, epochs); after != last {
			t.Fatalf("filled in epochs %d to %d: nobody writes a set that is frozen", last, after)
		}
		w.probe(t)
		w.logMemory(t, fmt.Sprint("after epoch ", last))
	}
	got := grown(before, w.agent.metrics(t), "podmeter_drained_connections_total", "result", "attributed")
	if got < float64(filled) {
		t.Errorf("got %v ends of connections attributed, want all %d", got, filled)
	}
	cancel()
	watching.Wait()
	t.Logf("at most %d MiB of %d", most>>20, w.agent.limit>>20)
	w.agent.alive(t)
	want, resume := w.talk.quiet()
	defer resume()
	w.talk.check(t, w.agent.metrics(t), want)
	w.agent.verify(t)
	w.agent.terminate(t)
}

// ordinaryPod is one of the cluster's, with what pods have that the agent does not need.
func ordinaryPod(n int) *corev1.Pod {
	address := netip.AddrFrom4([4]byte{10, 3, byte(n >> 8), byte(n)}).String()
	p := podOf(fmt.Sprintf("shop-%d-7c6d8f5b9-%05x", n%100, n), fmt.Sprintf("22222222-2222-3333-4444-%012d", n), address)
	p.Namespace, p.Spec.NodeName = fmt.Sprintf("team-%d", n%50), fmt.Sprintf("node-%d", n%200)
	p.Labels = map[string]string{"app": fmt.Sprintf("shop-%d", n%100), "pod-template-hash": "7c6d8f5b9"}
	p.Annotations = map[string]string{"checksum/config": strings.Repeat("a", 64)}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("shop-%d-7c6d8f5b9", n%100),
		UID: types.UID(fmt.Sprintf("33333333-2222-3333-4444-%012d", n%100)), Controller: new(true)}}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"` + strings.Repeat("f", 1500) + `":{}}}}`)}}
	for c := range 3 {
		container := corev1.Container{Name: fmt.Sprint("container-", c), Image: "registry.example/shop:" + strings.Repeat("1", 40)}
		for e := range 10 {
			container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", e), Value: strings.Repeat("v", 40)})
		}
		p.Spec.Containers = append(p.Spec.Containers, container)
	}
	return p
}

// pinnedMap opens the one map that has this name in the agent's pins, with anything for a star.
func (w *world) pinnedMap(t *testing.T, name string) *ebpf.Map {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.agent.pins, name))
	if err != nil || len(found) != 1 {
		t.Fatalf("pins %s: got %v, %v, want one", name, found, err)
	}
	m, err := ebpf.LoadPinnedMap(found[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// socketKey is the n-th connection of a hostile pod.
func (w *world) socketKey(n int) (key bpf.SocketSocketKey, cgroup uint64) {
	pod := n % hostilePods
	key = bpf.SocketSocketKey{Netns: uint64(1 + pod), Protocol: unix.IPPROTO_TCP, LocalPort: uint16(n), PeerPort: 80}
	key.Local = netip.MustParseAddr(w.hostile[pod].IP).As16()
	peer := namedPod(n % namedPods).As4()
	key.Peer = netip.AddrFrom4(peer).As16()
	key.Netns += uint64(n>>16) << 8
	return key, w.inside[pod].ID
}

func (w *world) fillSockets(t *testing.T) {
	t.Helper()
	fill(t, w.pinnedMap(t, "sockets_v*_*"), func(n int) (bpf.SocketSocketKey, bpf.SocketSocketOwners) {
		key, cgroup := w.socketKey(n)
		owner := bpf.SocketSocketOwner{Cgroup: cgroup, Command: [16]int8{'c', int8('a' + n%26)}}
		return key, bpf.SocketSocketOwners{Open: 1, Owners: 1, Now: owner}
	})
}

// fillHealth fills the set of an epoch, and returns with how many ends.
func (w *world) fillHealth(t *testing.T, epoch uint64) (ends int) {
	t.Helper()
	m := w.pinnedMap(t, fmt.Sprintf("sockets_health_%d_v*_*", epoch&1))
	return fill(t, m, func(n int) (bpf.SocketHealthKey, bpf.SocketTcpHealth) {
		key, cgroup := w.socketKey(n)
		return bpf.SocketHealthKey{Socket: key, Cgroup: cgroup}, bpf.SocketTcpHealth{Events: 1, Opened: 1}
	})
}

func epochOf(t *testing.T, m *ebpf.Map) uint64 {
	t.Helper()
	var state bpf.MeterEpochState
	if err := m.Lookup(uint32(0), &state); err != nil {
		t.Fatal(err)
	}
	return state.Epoch
}

// fill fills a map.
func fill[K, V any](t *testing.T, m *ebpf.Map, entry func(n int) (K, V)) int {
	t.Helper()
	most := int(m.MaxEntries())
	keys, values := make([]K, fillBatch), make([]V, fillBatch)
	for n := 0; n < most; n += fillBatch {
		for i := range keys {
			keys[i], values[i] = entry(n + i)
		}
		made, err := m.BatchUpdate(keys, values, nil)
		if errors.Is(err, unix.E2BIG) { // others are there already
			return n + made
		}
		if err != nil {
			t.Fatalf("fill %s: %v", m, err)
		}
	}
	return most
}

// probe is the kubelet's, in the agent's own container.
func (w *world) probe(t *testing.T) {
	t.Helper()
	command := w.agent.memory.Command(w.agent.binary, "status", "--alive", "--socket", w.agent.socket)
	probe := exec.Command(command[0], command[1:]...)
	var output []byte
	err := w.node.Do(func() (err error) {
		output, err = probe.CombinedOutput()
		return err
	})
	if err != nil {
		t.Errorf("probe: %v: %s", err, output)
	}
}

func (w *world) logMemory(t *testing.T, when string) {
	t.Helper()
	used, err := w.agent.memory.Used()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MiB", when, used>>20)
}
