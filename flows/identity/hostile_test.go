// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podmeter/podmeter/flows/plain"
	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/kubetest"
)

// hostilePods is how many pods the tests below send, each of some hostileBytes, as many
// as an API server takes of one. Together they are more than is allowed.
const (
	hostilePods  = 100
	hostileBytes = 1_400_000
)

// hostilePod is a pod with an owner of a name as long as may be.
func hostilePod(i int) *corev1.Pod {
	p := running(fmt.Sprint("pod-", i), metav1.NewTime(start), podNumber(i).String())
	p.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1", UID: "u", Kind: "<b>\x1b[2J\n", Name: strings.Repeat("n", hostileBytes) + fmt.Sprint(i), Controller: new(true),
	}}
	return p
}

// peak is the most memory that was in use.
type peak struct{ bytes atomic.Uint64 }

func (p *peak) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for {
		was := p.bytes.Load()
		if m.HeapAlloc <= was || p.bytes.CompareAndSwap(was, m.HeapAlloc) {
			return
		}
	}
}

// hostileMemory is what a process that reads all of hostilePods may use besides what it had:
// some objects on their way and the garbage of some more, but not all of them.
const hostileMemory = 64 << 20

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// protobufList writes a list without holding it.
func protobufList(w io.Writer, each func(i int) *corev1.Pod, n int) error {
	item := func(i int) []byte {
		b, err := each(i).Marshal()
		if err != nil {
			panic(err)
		}
		return append(binary.AppendUvarint([]byte{listItems<<3 | 2}, uint64(len(b))), b...)
	}
	size := 0
	for i := range n {
		size += len(item(i))
	}
	if _, err := w.Write(binary.AppendUvarint([]byte(protobufMagic+"\x12"), uint64(size))); err != nil {
		return err
	}
	for i := range n {
		if _, err := w.Write(item(i)); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte("\x1a\x00\x22\x00"))
	return err
}

func jsonList(w io.Writer, each func(i int) *corev1.Pod, n int) error {
	if _, err := io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`); err != nil {
		return err
	}
	for i := range n {
		b, err := json.Marshal(each(i))
		if err != nil {
			return err
		}
		if i > 0 {
			b = append([]byte(","), b...)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]}")
	return err
}

// A list of more than the memory that there is passes, object by object.
func TestListOfLargeObjects(t *testing.T) {
	effort.Long(t, "reads 280 MB")
	for name, write := range map[string]func(io.Writer, func(int) *corev1.Pod, int) error{"protobuf": protobufList, "json": jsonList} {
		t.Run(name, func(t *testing.T) {
			r, w := io.Pipe()
			defer r.Close()
			go func() { w.CloseWithError(write(w, hostilePod, hostilePods)) }()
			before := heapInUse()
			var most peak
			var kept []*Pod
			err := readList(r, new(metav1.ListMeta), func(o kruntime.Object) error {
				kept = append(kept, podOf(o.(*corev1.Pod)))
				if len(kept)%10 == 0 {
					most.look()
				}
				return nil
			}, func() message { return new(corev1.Pod) }, keptFields["Pod"])
			if err != nil || len(kept) != hostilePods {
				t.Fatalf("got %d pods, %v", len(kept), err)
			}
			checkMemory(t, before, most.bytes.Load())
			runtime.KeepAlive(kept)
		})
	}
}

// checkMemory compares the memory at the most and now with that before.
func checkMemory(t *testing.T, before, most uint64) {
	t.Helper()
	const room = hostilePods * 50_000 // a thirtieth of the objects; the heap is that of the whole process
	now := heapInUse()
	// The last objects' buffers go with the requests that brought them.
	for deadline := time.Now().Add(30 * time.Second); now > before+room && time.Now().Before(deadline); now = heapInUse() {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d MiB at most, %d kB for each pod in the end", (most-before)>>20, int64(now-before)/hostilePods/1000)
	if most > before+hostileMemory {
		t.Errorf("got %d MiB more in use, want at most %d", (most-before)>>20, hostileMemory>>20)
	}
	if now > before+room {
		t.Errorf("got %d kB kept of %d pods, want at most %d", (now-before)/1000, hostilePods, room/1000)
	}
}

// fakeAPI serves hostilePods pods, nothing else, in the encoding that it is asked for or
// in JSON alone, by lists and by watches.
type fakeAPI struct {
	*httptest.Server
	json, streams bool
	pod           func(i int) *corev1.Pod
	pods          int
	most          peak
	ended         chan struct{}
}

func newFakeAPI(t testing.TB, json, streams bool) *fakeAPI {
	f := &fakeAPI{json: json, streams: streams, pod: hostilePod, pods: hostilePods, ended: make(chan struct{})}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	t.Cleanup(func() { close(f.ended) })
	return f
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pods := 0
	if strings.HasSuffix(r.URL.Path, "/pods") {
		pods = f.pods
	}
	each := func(i int) *corev1.Pod {
		if i%max(1, pods/hostilePods) == 0 {
			f.most.look()
		}
		return f.pod(i)
	}
	protobuf := !f.json && strings.Contains(r.Header.Get("Accept"), kruntime.ContentTypeProtobuf)
	query := r.URL.Query()
	switch {
	case query.Get("watch") == "":
		if protobuf {
			w.Header().Set("Content-Type", kruntime.ContentTypeProtobuf)
			_ = protobufList(w, each, pods)
			return
		}
		w.Header().Set("Content-Type", kruntime.ContentTypeJSON)
		_ = jsonList(w, each, pods)
	case query.Get("sendInitialEvents") == "true" && !f.streams:
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
	default:
		f.watch(w, r, protobuf, func(send func(string, *corev1.Pod)) {
			if query.Get("sendInitialEvents") != "true" {
				return
			}
			for i := range pods {
				send("ADDED", each(i))
			}
		})
	}
}

// watch sends events, a bookmark that ends the first ones, and then nothing.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, protobuf bool, events func(send func(string, *corev1.Pod))) {
	if protobuf {
		w.Header().Set("Content-Type", kruntime.ContentTypeProtobuf+";stream=watch")
	} else {
		w.Header().Set("Content-Type", kruntime.ContentTypeJSON)
	}
	send := func(kind string, p kruntime.Object) {
		if protobuf {
			_, _ = w.Write(protobufEvent(kind, p))
		} else {
			raw, _ := json.Marshal(p)
			_ = json.NewEncoder(w).Encode(metav1.WatchEvent{Type: kind, Object: kruntime.RawExtension{Raw: raw}})
		}
	}
	events(func(kind string, p *corev1.Pod) {
		p.TypeMeta, p.ResourceVersion = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, "1"
		send(kind, p)
	})
	var mark kruntime.Object
	meta := metav1.ObjectMeta{ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
	switch {
	case strings.HasSuffix(r.URL.Path, "/pods"):
		mark = &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: meta}
	case strings.HasSuffix(r.URL.Path, "/nodes"):
		mark = &corev1.Node{TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: meta}
	default:
		mark = &corev1.Service{TypeMeta: metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}, ObjectMeta: meta}
	}
	send("BOOKMARK", mark)
	w.(http.Flusher).Flush()
	select {
	case <-f.ended:
	case <-r.Context().Done():
	}
}

// protobufEvent is a frame of a watch: its length, and the event in an envelope.
func protobufEvent(kind string, o kruntime.Object) []byte {
	envelope := func(group, kind string, raw []byte) []byte {
		u := kruntime.Unknown{TypeMeta: kruntime.TypeMeta{APIVersion: group, Kind: kind}, Raw: raw}
		b, err := u.Marshal()
		if err != nil {
			panic(err)
		}
		return append([]byte(protobufMagic), b...)
	}
	raw, err := o.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		panic(err)
	}
	object := envelope("v1", o.GetObjectKind().GroupVersionKind().Kind, raw)
	event := metav1.WatchEvent{Type: kind, Object: kruntime.RawExtension{Raw: object}}
	raw, err = event.Marshal()
	if err != nil {
		panic(err)
	}
	frame := envelope("v1", "WatchEvent", raw)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

func (f *fakeAPI) client(t testing.TB) kubernetes.Interface {
	config := &rest.Config{Host: f.URL, ContentConfig: rest.ContentConfig{
		ContentType: kruntime.ContentTypeProtobuf, AcceptContentTypes: kruntime.ContentTypeProtobuf + "," + kruntime.ContentTypeJSON,
	}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Whichever way the objects come, an agent reads a cluster of pods as large as may be.
func TestClusterOfLargeObjects(t *testing.T) {
	effort.Long(t, "reads 420 MB")
	for name, with := range map[string]struct{ json, streams bool }{
		"list": {false, false}, "list in JSON": {true, false}, "stream": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t, with.json, with.streams)
			var log bytes.Buffer
			c := NewCache(CacheOptions{Node: "here"})
			k, err := NewKubernetes(c, KubernetesOptions{Client: kubetest.API(api.client(t)), Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			before := heapInUse()
			var running sync.WaitGroup
			running.Go(func() { _ = k.Run(ctx) })
			select {
			case <-k.Synced():
			case <-time.After(4 * time.Minute):
				t.Fatalf("never synced: %+v", k.Status())
			}
			if got := c.Counts()["pod"]; got != hostilePods {
				t.Errorf("got %d pods, want %d", got, hostilePods)
			}
			checkMemory(t, before, api.most.bytes.Load())
			for _, i := range []int{0, hostilePods - 1} {
				owner := c.Owner(query(podNumber(i).String(), 1, 2))
				if !plain.Is(owner.Name, plain.NameLimit) || !strings.HasPrefix(owner.Name, "nnn") || !plain.Is(owner.WorkloadType, plain.LabelLimit) {
					t.Errorf("pod %d: got %q %q", i, owner.WorkloadType, owner.Name)
				}
			}
			if got := c.Bounded()["text"]; got != hostilePods {
				t.Errorf("got %d pods counted, want %d", got, hostilePods)
			}
			cancel()
			running.Wait()
			if log.Len() > 10_000 {
				t.Errorf("got %d bytes of log", log.Len())
			}
		})
	}
}
