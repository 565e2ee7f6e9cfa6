// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

const victimUID = "11111111-2222-3333-4444-555555555555"

// api is an API server that says whatever it likes: lists in JSON, and events as they come.
type api struct {
	address string
	server  http.Server
	serving sync.WaitGroup
	ended   chan struct{}

	mu      sync.Mutex
	objects map[string][]runtime.Object // by resource, what lists have
	watches map[string][]chan []byte
}

// newAPI serves one on the node until the test ends.
func newAPI(t *testing.T, w *world) *api {
	t.Helper()
	a := &api{ended: make(chan struct{}), watches: make(map[string][]chan []byte), objects: map[string][]runtime.Object{
		"nodes": {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: scraperNetwork + ".1"}, {Type: corev1.NodeExternalIP, Address: outside + ".1"}}}}},
		"pods": {podOf(victimName, victimUID, w.victim.IP)},
	}}
	for n, p := range w.hostile {
		a.objects["pods"] = append(a.objects["pods"], podOf(hostileName(n), hostileUID(n), p.IP))
	}
	var listener net.Listener
	err := w.node.Do(func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a.address, a.server.Handler = listener.Addr().String(), a
	a.serving.Go(func() { _ = a.server.Serve(listener) })
	t.Cleanup(func() {
		close(a.ended)
		a.server.Close()
		a.serving.Wait()
	})
	return a
}

func podOf(name, uid, address string) *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid), ResourceVersion: "1"},
		Spec:       corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "main"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
			StartTime: &metav1.Time{Time: time.Now().Add(-time.Minute)}}}
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, resource, ok := strings.Cut(r.URL.Path, "/api/v1/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	query := r.URL.Query()
	switch {
	case query.Get("watch") == "":
		a.mu.Lock()
		defer a.mu.Unlock()
		items := append([]runtime.Object{}, a.objects[resource]...)
		kind := map[string]string{"pods": "PodList", "nodes": "NodeList", "services": "ServiceList"}[resource]
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind, "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
	case query.Get("sendInitialEvents") == "true":
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
	default:
		a.watch(w, r, resource)
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request, resource string) {
	events := make(chan []byte)
	a.mu.Lock()
	a.watches[resource] = append(a.watches[resource], events)
	a.mu.Unlock()
	flusher := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case event := <-events:
			if _, err := w.Write(event); err != nil {
				return
			}
			flusher.Flush()
		case <-r.Context().Done():
			return
		case <-a.ended:
			return
		}
	}
}

// send tells all watches of an object.
func (a *api) send(ctx context.Context, resource, kind string, object runtime.Object) {
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err) // of a type of Kubernetes' own
	}
	event, _ := json.Marshal(metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: raw}})
	a.mu.Lock()
	watches := a.watches[resource]
	a.mu.Unlock()
	for _, events := range watches {
		select {
		case events <- append(event, '\n'):
		case <-time.After(time.Second): // of a watch that has ended
		case <-ctx.Done():
		}
	}
}

// newClusterWorld is one whose agent knows pods by the API, has CNI results and writes
// remotely.
func newClusterWorld(t *testing.T, binary string) (*world, *api, *receivers) {
	t.Helper()
	w := newWorld(t, binary)
	a, r := newAPI(t, w), newReceivers(t, w)
	if err := os.MkdirAll(w.results(), 0o700); err != nil {
		t.Fatal(err)
	}
	w.startWith(t, a, append(r.flags(w), "--cni-cache", filepath.Dir(w.results()))...)
	return w, a, r
}

// startWith starts an agent that knows pods by the API.
func (w *world) startWith(t *testing.T, a *api, flags ...string) {
	t.Helper()
	kubeconfig := filepath.Join(w.agent.folder, "kubeconfig")
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"+
		"users: [{name: a}]\nclusters: [{name: a, cluster: {server: \"http://%s\"}}]\n", a.address)
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(t, "http", nil, append(flags, "--identity", "kubernetes", "--kubeconfig", kubeconfig, "--node-name", "here")...)
}

func (w *world) results() string { return filepath.Join(w.agent.folder, "cni", "results") }

// clusterAttacks are those of tenants by the API, of CNI results, and of receivers.
func clusterAttacks(a *api, r *receivers) []attack {
	bounded := func(bound string) func(*testing.T, *world, samples, samples) {
		return func(t *testing.T, _ *world, before, after samples) {
			if grown(before, after, "podmeter_identity_bounded_total", "bound", bound) == 0 {
				t.Errorf("no bound of %s was hit: this was no attack, or the bound does not hold", bound)
			}
		}
	}
	return []attack{
		{name: "pods of 1.4 MB each, by their owners' names", run: a.largePods, check: bounded("text")},
		{name: "Services of 2,000 addresses and 3,000 ports that change", run: a.largeServices, check: bounded("addresses")},
		{name: "pods elsewhere with the victim's address, that come and go", run: a.liars},
		{name: "a cgroup that is called as the victim's, with sockets", run: falseCgroup, check: nothingOfTheVictim},
		{name: "CNI results that are pipes, devices, too large, too many, or the victim's", missed: 0.1, run: cniResults},
		r.attack(),
	}
}

// largePods are 100, or 400 in the long form, which is the most of a node.
func (a *api) largePods(ctx context.Context, _ *testing.T, _ *world) {
	pods := 100
	if effort.Stressed() {
		pods = 400
	}
	for n := 0; n < pods && ctx.Err() == nil; n++ {
		p := podOf(fmt.Sprint("large-", n), fmt.Sprint("large-", n), fmt.Sprintf("10.3.%d.%d", n>>8, n&255))
		p.Spec.NodeName = "there"
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", UID: "u", Kind: "<b>\x1b[2J\n",
			Name: strings.Repeat("n", 1_400_000) + fmt.Sprint(n), Controller: new(true)}}
		a.send(ctx, "pods", "ADDED", p)
	}
}

func (a *api) largeServices(ctx context.Context, _ *testing.T, _ *world) {
	for n := 0; ctx.Err() == nil; n++ {
		s := &corev1.Service{TypeMeta: metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: fmt.Sprint("wide-", n%3), UID: types.UID(fmt.Sprint("wide-", n%3)), ResourceVersion: fmt.Sprint(n + 2),
			Labels: map[string]string{"a": fmt.Sprint(n)}}}
		s.Spec.ExternalIPs = []string{victimPeer} // which stays external
		for i := range 2000 {
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, fmt.Sprintf("172.20.%d.%d", i>>8, i&255))
		}
		for i := range 3000 {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(2*i + 1)})
		}
		a.send(ctx, "services", map[bool]string{true: "ADDED", false: "MODIFIED"}[n < 3], s)
	}
}

// liars claim the addresses of the victim and of the node.
func (a *api) liars(ctx context.Context, _ *testing.T, w *world) {
	for n := 0; ctx.Err() == nil; n++ {
		for i, address := range []string{w.victim.IP, w.victim.Gateway} {
			p := podOf(fmt.Sprint("liar-", i, "-", n%50), fmt.Sprint("liar-", i, "-", n), address)
			p.Spec.NodeName = "there"
			p.Annotations = map[string]string{"kubernetes.io/config.mirror": victimUID}
			a.send(ctx, "pods", "ADDED", p)
			a.send(ctx, "pods", "DELETED", p)
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

// cniResults fills the directory, and empties it again. An interface whose pod nobody knows
// makes the agent ask for results.
func cniResults(ctx context.Context, t *testing.T, w *world) {
	const unknown = "hostile-unknown"
	w.node.Veth(t, unknown, ktest.NewNode(t), "eth0")
	defer w.node.DeleteLink(t, unknown)
	folder := w.results()
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	claim := `{"kind":"cniCacheV1","ifName":"eth0","cniArgs":[["K8S_POD_UID","` + victimUID + `"],["K8S_POD_NAMESPACE","ns"],["K8S_POD_NAME","` +
		victimName + `"]],"result":{"interfaces":[{"name":"` + hostileName(0) + `"}],"ips":[{"address":"` + w.victim.IP + `/24"}]}}`
	must(unix.Mkfifo(filepath.Join(folder, "pipe"), 0o600))
	must(os.Symlink("/dev/zero", filepath.Join(folder, "device")))
	must(os.Mkdir(filepath.Join(folder, "folder"), 0o700))
	must(sparse(filepath.Join(folder, "sparse"), 1<<40))
	must(os.WriteFile(filepath.Join(folder, "deep"), []byte(strings.Repeat("[", 250_000)), 0o600))
	must(os.WriteFile(filepath.Join(folder, "false"), []byte(claim), 0o600))
	many := strings.Repeat(`{"name":"`+hostileName(1)+`"},`, 5000)
	must(os.WriteFile(filepath.Join(folder, "wide"), []byte(strings.Replace(claim, `{"name":"`, many+`{"name":"`, 1)), 0o600))
	for n := 0; n < 17_000 && ctx.Err() == nil; n++ {
		must(os.WriteFile(filepath.Join(folder, fmt.Sprint("file-", n)), []byte(claim), 0o600))
	}
	<-ctx.Done()
	must(os.RemoveAll(folder))
	must(os.Mkdir(folder, 0o700))
}
