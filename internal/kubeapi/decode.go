// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/podmeter/podmeter/internal/sieve"
)

// Of a watch client-go decodes all that an object has, after it has copied it twice: out of the
// event, and out of the envelope that tells its kind. So the protobuf of events is read here:
// an object is decoded where it lies in the event, and only what is kept of its kind. Whatever
// does not look as expected goes the usual way.

// Kept says what is decoded of the objects of core/v1 that watches tell of, by their kinds;
// others, and all that is not watched, are decoded whole.
type Kept map[string]sieve.Message

// protobufMagic begins an object in protobuf (runtime/serializer/protobuf).
const protobufMagic = "k8s\x00"

// codecs are those of a scheme with other decoders of what is watched in protobuf.
type codecs struct {
	runtime.NegotiatedSerializer
	infos []runtime.SerializerInfo
}

func withKept(inner runtime.NegotiatedSerializer, kept Kept) runtime.NegotiatedSerializer {
	infos := slices.Clone(inner.SupportedMediaTypes())
	for i := range infos {
		if infos[i].MediaType == runtime.ContentTypeProtobuf && infos[i].StreamSerializer != nil {
			stream := *infos[i].StreamSerializer
			stream.Serializer = events{stream.Serializer}
			infos[i].StreamSerializer = &stream
			infos[i].Serializer = objects{infos[i].Serializer, kept}
		}
	}
	return codecs{inner, infos}
}

// SupportedMediaTypes implements [runtime.NegotiatedSerializer].
func (c codecs) SupportedMediaTypes() []runtime.SerializerInfo { return c.infos }

// events decodes the events of watches.
type events struct{ runtime.Serializer }

// Decode implements [runtime.Decoder]. The object of an event is not a copy: it is decoded
// before the next event is read (rest/watch of client-go), into what was read.
func (e events) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok {
		return e.Serializer.Decode(data, defaults, into)
	}
	fields, ok := fieldsOf(data, 3)
	object, ok2 := fieldsOf(fields[2], 2)
	if !ok || !ok2 {
		return e.Serializer.Decode(data, defaults, into)
	}
	event.Type, event.Object = string(fields[1]), runtime.RawExtension{Raw: object[1]}
	return event, nil, nil
}

// objects decodes objects.
type objects struct {
	runtime.Serializer
	kept Kept
}

// Decode implements [runtime.Decoder]. That of a watch has nothing that it decodes into.
func (o objects) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	kind, raw, ok := envelope(data)
	kept, known := o.kept[kind]
	if into != nil || !ok || !known {
		return o.Serializer.Decode(data, defaults, into)
	}
	gvk := corev1.SchemeGroupVersion.WithKind(kind)
	object, err := scheme.New(gvk)
	if err != nil {
		return nil, &gvk, err
	}
	message, ok := object.(sieve.Unmarshaler)
	if !ok {
		return o.Serializer.Decode(data, defaults, into)
	}
	if err := kept.Unmarshal(raw, message); err != nil {
		return nil, &gvk, err
	}
	return object, &gvk, nil
}

// envelope returns the kind of an object of core/v1, and its message (runtime.Unknown and
// runtime.TypeMeta).
func envelope(data []byte) (kind string, raw []byte, ok bool) {
	if len(data) < len(protobufMagic) || string(data[:len(protobufMagic)]) != protobufMagic {
		return "", nil, false
	}
	unknown, ok := fieldsOf(data[len(protobufMagic):], 5)
	types, ok2 := fieldsOf(unknown[1], 3)
	isEncoded := len(unknown[3]) > 0
	if !ok || !ok2 || isEncoded || string(types[1]) != corev1.SchemeGroupVersion.Version {
		return "", nil, false
	}
	return string(types[2]), unknown[2], true
}

// fieldsOf returns the fields of a message all of whose fields are strings, bytes or messages,
// with numbers below a limit, each at most once.
func fieldsOf(message []byte, limit protowire.Number) (fields [5][]byte, ok bool) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType || number >= limit || fields[number] != nil {
			return fields, false
		}
		value, size := protowire.ConsumeBytes(message[n:])
		if size < 0 {
			return fields, false
		}
		fields[number] = value[:len(value):len(value)]
		message = message[n+size:]
	}
	return fields, true
}
