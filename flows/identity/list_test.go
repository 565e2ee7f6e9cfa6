// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/podmeter/podmeter/internal/effort"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// encoded returns a list as an API server sends it.
func encoded(tb testing.TB, mediaType string, list runtime.Object) []byte {
	tb.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	b, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), list)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// readPods reads a list of pods.
func readPods(text []byte) (*corev1.PodList, error) {
	list := &corev1.PodList{}
	err := readList(bytes.NewReader(text), &list.ListMeta, func(o runtime.Object) error {
		list.Items = append(list.Items, *o.(*corev1.Pod))
		return nil
	}, func() message { return new(corev1.Pod) }, nil)
	return list, err
}

func somePods() *corev1.PodList {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "42", Continue: "next", RemainingItemCount: new(int64(7))}}
	for _, name := range []string{"a", "", strings.Repeat("long", 500), "b"} {
		list.Items = append(list.Items, *running(name, metav1.NewTime(start.Local()), "10.0.0.1"))
	}
	return list
}

func TestReadList(t *testing.T) {
	for _, mediaType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		for name, want := range map[string]*corev1.PodList{"some": somePods(), "empty": {}} {
			t.Run(mediaType+" "+name, func(t *testing.T) {
				got, err := readPods(encoded(t, mediaType, want))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// A list that ends early must not be taken for all there is: what it lacks would
// be deleted.
func TestReadListThatEndsEarly(t *testing.T) {
	for _, mediaType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		whole := encoded(t, mediaType, somePods())
		list := whole
		if mediaType == runtime.ContentTypeProtobuf {
			list = bytes.TrimRight(whole, "\x1a\x22\x00") // the empty encoding and type after the list
		}
		for n := 0; n < len(list)-1; n += effort.Choose(1, 7) {
			if got, err := readPods(list[:n]); err == nil {
				t.Fatalf("%s, %d of %d bytes: got %d pods and no error", mediaType, n, len(whole), len(got.Items))
			}
		}
	}
}

func FuzzReadList(f *testing.F) {
	f.Add(encoded(f, runtime.ContentTypeProtobuf, somePods()))
	f.Add(encoded(f, runtime.ContentTypeJSON, somePods()))
	f.Add([]byte(protobufMagic + "\x12\xff\xff\xff\xff\x0f\x12\xff\xff\xff\xff\x07"))
	f.Add([]byte(protobufMagic + "\x12\x03\x12\x05a"))
	f.Fuzz(func(_ *testing.T, text []byte) { _, _ = readPods(text) })
}
