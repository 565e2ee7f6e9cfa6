// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// server is an API server that streams its objects on a watch that asks for
// them, in protobuf, and refuses to list.
type server struct {
	*testing.T
	objects map[string][]runtime.Object // by path
}

func (s server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) || r.UserAgent() != "podmeter/test" {
		s.Errorf("got Accept %q and User-Agent %q, want protobuf and podmeter/test", r.Header.Get("Accept"), r.UserAgent())
	}
	if r.FormValue("sendInitialEvents") != "true" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	for _, o := range s.objects[r.URL.Path] {
		s.send(w, watch.Added, o)
	}
	s.send(w, watch.Bookmark, bookmark(r.URL.Path))
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// A kubeconfig, or a file that it names, which would hang the agent is refused by name. Files
// of contexts that are not used need not be there.
func TestClientOfFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(name, cluster, user string) string {
		path := filepath.Join(dir, name)
		write(t, path, fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "https://192.0.2.1", %s}}, {name: b, cluster: {server: "https://192.0.2.2", certificate-authority: none}}],
users: [{name: a, user: {%s}}]}`, cluster, user))
		return path
	}
	for _, test := range []struct{ name, path, refused string }{
		{"good", config("good", "", "token: a"), ""},
		{"pipe", pipe, pipe},
		{"device", "/dev/zero", "/dev/zero"},
		{"a CA that is a pipe", config("ca", "certificate-authority: pipe", ""), pipe},
		{"a key that is a pipe", config("key", "", "client-certificate: pipe, client-key: pipe"), pipe},
		{"a token that is a pipe", config("token", "", "tokenFile: pipe"), pipe},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewClient(test.path, "podmeter/test")
			if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("got %v, want %q refused", err, test.refused)
			}
		})
	}
}

// bookmark ends the initial events (KEP-3157).
func bookmark(path string) runtime.Object {
	meta := metav1.ObjectMeta{ResourceVersion: "9", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
	switch filepath.Base(path) {
	case "pods":
		return &corev1.Pod{ObjectMeta: meta}
	case "services":
		return &corev1.Service{ObjectMeta: meta}
	}
	return &corev1.Node{ObjectMeta: meta}
}

// send writes a watch event as the API server does.
func (s server) send(w http.ResponseWriter, kind watch.EventType, o runtime.Object) {
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	raw, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), o)
	if err != nil {
		s.Error(err)
		return
	}
	event := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}
	if err := info.StreamSerializer.Encode(event, info.StreamSerializer.NewFrameWriter(w)); err != nil {
		s.Error(err)
	}
}

// kubeconfig writes one that names a server.
func kubeconfig(t *testing.T, url string) string {
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": url}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWatchOfRealClient(t *testing.T) {
	api := httptest.NewServer(server{t, map[string][]runtime.Object{
		"/api/v1/pods": {running("a", metav1.NewTime(start), "10.0.0.1"), running("b", metav1.NewTime(start), "10.0.0.2")},
		"/api/v1/services": {&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", UID: "s"},
			Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}},
		"/api/v1/nodes": {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}},
	}})
	defer api.Close()
	client, err := NewClient(kubeconfig(t, api.URL), "podmeter/test")
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCache(&clock{at(100)})
	k, err := NewKubernetes(c, KubernetesOptions{Client: client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = k.Run(ctx) })
	<-k.Synced()
	for address, want := range map[string]string{"10.0.0.1": "a", "10.0.0.2": "b", "10.96.0.1": "service:s"} {
		if got := says(c.Owner(query(address, 10, 20))); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if _, zone := c.Here(); zone != "z1" {
		t.Errorf("got zone %q, want z1", zone)
	}
	if got := k.Status(); got.Problem != "" || !got.Updated.Equal(at(100)) {
		t.Errorf("got %+v, want no problem, updated at %v", got, at(100))
	}
	cancel()
	running.Wait()
}

func TestNewClientOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := NewClient("", "podmeter/test")
	if got := "configure Kubernetes client: " + rest.ErrNotInCluster.Error(); err == nil || err.Error() != got {
		t.Errorf("got %v, want %s", err, got)
	}
}
