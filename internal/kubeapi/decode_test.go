// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"

	"github.com/podmeter/podmeter/internal/sieve"
)

var (
	usual = serializer.NewCodecFactory(scheme).WithoutConversion()
	// ours keeps the names of pods.
	ours = withKept(usual, Kept{"Pod": {1: sieve.Part(sieve.Message{1: sieve.Whole})}})
)

// change is an event of a watch.
type change struct {
	Type   watch.EventType
	Object runtime.Object
}

// stream returns events as an API server sends them.
func stream(tb testing.TB, mediaType string, changes ...change) []byte {
	tb.Helper()
	info, _ := runtime.SerializerInfoForMediaType(usual.SupportedMediaTypes(), mediaType)
	var to bytes.Buffer
	for _, c := range changes {
		raw, err := runtime.Encode(usual.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), c.Object)
		if err != nil {
			tb.Fatal(err)
		}
		send(tb, &to, &metav1.WatchEvent{Type: string(c.Type), Object: runtime.RawExtension{Raw: raw}}, info)
	}
	return to.Bytes()
}

func send(tb testing.TB, to io.Writer, event *metav1.WatchEvent, info runtime.SerializerInfo) {
	tb.Helper()
	if err := info.StreamSerializer.Encode(event, info.StreamSerializer.NewFrameWriter(to)); err != nil {
		tb.Fatal(err)
	}
}

// receive reads events as client-go does, until the end or the first error.
func receive(tb testing.TB, with runtime.NegotiatedSerializer, mediaType string, text []byte) (all []change, err error) {
	tb.Helper()
	object, events, framer, err := runtime.NewClientNegotiator(with, corev1.SchemeGroupVersion).StreamDecoder(mediaType, nil)
	if err != nil {
		tb.Fatal(err)
	}
	frames := framer.NewFrameReader(io.NopCloser(bytes.NewReader(text)))
	decoder := restwatch.NewDecoder(streaming.NewDecoder(frames, events), object)
	for {
		kind, o, err := decoder.Decode()
		if err != nil {
			return all, err
		}
		all = append(all, change{kind, o})
	}
}

func aPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{NodeName: "n"}}
}

func named(name string) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}} }

// Of pods there is what is kept; what else comes by a watch is what it is without this.
func TestWatch(t *testing.T) {
	others := []change{
		{watch.Added, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{"a": "b"}}}},
		{watch.Error, &metav1.Status{Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410}},
	}
	sent := append([]change{{watch.Added, aPod("a")}, {watch.Modified, aPod("a longer name than the first")}, {watch.Bookmark, aPod("b")}}, others...)
	wantKept := append([]change{{watch.Added, named("a")}, {watch.Modified, named("a longer name than the first")}, {watch.Bookmark, named("b")}}, others...)
	for mediaType, want := range map[string][]change{runtime.ContentTypeProtobuf: wantKept, runtime.ContentTypeJSON: sent} {
		got, err := receive(t, ours, mediaType, stream(t, mediaType, sent...))
		if err != io.EOF {
			t.Errorf("%s: got %v, want the end", mediaType, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", mediaType, diff)
		}
	}
}

// What is not as expected is decoded, or refused, as it is without this.
func TestWatchOfOddities(t *testing.T) {
	info, _ := runtime.SerializerInfoForMediaType(usual.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	message, err := aPod("a").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope := func(u runtime.Unknown) []byte {
		raw, err := u.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte(protobufMagic), raw...)
	}
	pod := runtime.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	for name, raw := range map[string][]byte{
		"nothing":              {},
		"no envelope":          message,
		"an empty envelope":    []byte(protobufMagic),
		"half an envelope":     envelope(runtime.Unknown{TypeMeta: pod, Raw: message})[:40],
		"two objects":          append(envelope(runtime.Unknown{TypeMeta: pod, Raw: message}), "\x12\x00"...),
		"half a pod":           envelope(runtime.Unknown{TypeMeta: pod, Raw: message[:len(message)-1]}),
		"a group in a pod":     envelope(runtime.Unknown{TypeMeta: pod, Raw: append(bytes.Clone(message), 0x7b, 0x7c)}),
		"a pod of a later API": envelope(runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v2", Kind: "Pod"}, Raw: message}),
		"a kind of nobody":     envelope(runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "None"}, Raw: message}),
		"no kind":              envelope(runtime.Unknown{Raw: message}),
	} {
		t.Run(name, func(t *testing.T) {
			var text bytes.Buffer
			send(t, &text, &metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: raw}}, info)
			want, wantErr := receive(t, usual, runtime.ContentTypeProtobuf, text.Bytes())
			got, err := receive(t, ours, runtime.ContentTypeProtobuf, text.Bytes())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if (err == io.EOF) != (wantErr == io.EOF) {
				t.Errorf("got %v, want %v", err, wantErr)
			}
		})
	}
}

// An empty pod is one of which nothing is kept.
func TestWatchOfEmptyPod(t *testing.T) {
	got, err := receive(t, ours, runtime.ContentTypeProtobuf, stream(t, runtime.ContentTypeProtobuf, change{watch.Deleted, &corev1.Pod{}}))
	if diff := cmp.Diff([]change{{watch.Deleted, &corev1.Pod{}}}, got); diff != "" || err != io.EOF {
		t.Errorf("got %v, %s", err, diff)
	}
}

func FuzzWatch(f *testing.F) {
	f.Add(stream(f, runtime.ContentTypeProtobuf, change{watch.Added, aPod("a")}, change{watch.Error, &metav1.Status{}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		want, wantErr := receive(t, usual, runtime.ContentTypeProtobuf, text)
		got, err := receive(t, ours, runtime.ContentTypeProtobuf, text)
		if len(got) < len(want) || wantErr == io.EOF && err != io.EOF {
			t.Errorf("got %d events and %v, want %d and %v", len(got), err, len(want), wantErr)
		}
	})
}
