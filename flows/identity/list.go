// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/sieve"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// API servers that cannot stream a list by a watch (before Kubernetes 1.34, or
// with an old etcd) answer a list with all objects in one message, whatever the
// limit. Read as a whole, 10,000 pods take some 300 MiB; so the objects are
// taken from it one by one, and trimmed at once; what is not kept is not even decoded.

const (
	// protobufMagic begins a message in protobuf (runtime/serializer/protobuf).
	protobufMagic = "k8s\x00"
	// The numbers of the fields that are read, of runtime.Unknown and of lists.
	unknownRaw, listMetadata, listItems = 2, 1, 2
	// objectLimit is larger than any object that etcd takes.
	objectLimit = 16 << 20
)

var errBroken = errors.New("broken protobuf")

type listFunc = func(context.Context, metav1.ListOptions) (runtime.Object, error)

// listEach lists objects and keeps what trim makes of what is kept of each.
func listEach[O any, P object[O]](api rest.Interface, resource, selector string, kept sieve.Message, trim func(P) runtime.Object) listFunc {
	return func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		options.FieldSelector = selector
		body, err := api.Get().Resource(resource).VersionedParams(&options, kubeapi.Parameters).Stream(ctx)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		list := &internalversion.List{}
		err = readList(body, &list.ListMeta, func(o runtime.Object) error {
			p, ok := o.(P)
			if !ok {
				return fmt.Errorf("got a %T", o)
			}
			list.Items = append(list.Items, trim(p))
			return nil
		}, func() message { return any(P(new(O))).(message) }, kept)
		if err != nil {
			return nil, fmt.Errorf("read list of %s: %w", resource, err)
		}
		return list, nil
	}
}

// message is an object in protobuf.
type message interface {
	runtime.Object
	Unmarshal([]byte) error
}

// readList reads a list, of whose objects some fields are kept, or all. What passes requests on
// may know JSON alone.
func readList(from io.Reader, to *metav1.ListMeta, each func(runtime.Object) error, empty func() message, kept sieve.Message) error {
	in := bufio.NewReaderSize(from, 64<<10)
	if magic, err := in.Peek(len(protobufMagic)); err != nil || string(magic) != protobufMagic {
		return readJSON(in, to, each, empty)
	}
	if _, err := in.Discard(len(protobufMagic)); err != nil {
		return err
	}
	envelope := fieldReader{in: in, left: -1}
	for {
		number, size, err := envelope.next()
		if err != nil {
			return err
		}
		if number == unknownRaw {
			return readItems(fieldReader{in: in, left: size}, to, each, empty, kept)
		}
		if _, err := in.Discard(int(size)); err != nil {
			return unexpected(err)
		}
	}
}

// readItems reads the fields of a list.
func readItems(list fieldReader, to *metav1.ListMeta, each func(runtime.Object) error, empty func() message, kept sieve.Message) error {
	var buffer []byte // strings are copied out of it
	for list.left > 0 {
		number, size, err := list.next()
		if err != nil {
			return err
		}
		if size > objectLimit {
			return fmt.Errorf("%w: an object of %d bytes", errBroken, size)
		}
		if buffer, err = list.read(buffer, int(size)); err != nil {
			return err
		}
		switch number {
		case listMetadata:
			err = to.Unmarshal(buffer)
		case listItems:
			o := empty()
			if err = decode(o, buffer, kept); err == nil {
				err = each(o)
			}
		}
		if err != nil {
			return err
		}
	}
	if list.left < 0 {
		return fmt.Errorf("%w: an object beyond the list's end", errBroken)
	}
	return nil
}

func decode(o message, text []byte, kept sieve.Message) error {
	if kept == nil {
		return o.Unmarshal(text)
	}
	return kept.Unmarshal(text, o)
}

// fieldReader reads a message of which left bytes are still to come. All fields that
// are read here have a length.
type fieldReader struct {
	in   *bufio.Reader
	left int64
}

// next reads the number and the size of the next field.
func (f *fieldReader) next() (number, size int64, err error) {
	tag, err := f.varint()
	if err != nil {
		return 0, 0, err
	}
	length, err := f.varint()
	if err != nil {
		return 0, 0, err
	}
	if tag&7 != 2 || length >= 1<<40 {
		return 0, 0, fmt.Errorf("%w: field %d of type %d and size %d", errBroken, tag>>3, tag&7, length)
	}
	return int64(tag >> 3), int64(length), nil
}

func (f *fieldReader) varint() (uint64, error) {
	n, err := binary.ReadUvarint(f)
	return n, unexpected(err)
}

// ReadByte implements [io.ByteReader].
func (f *fieldReader) ReadByte() (byte, error) {
	f.left--
	return f.in.ReadByte()
}

// read reads a field into a buffer, which is made larger if need be.
func (f *fieldReader) read(buffer []byte, size int) ([]byte, error) {
	if cap(buffer) < size {
		buffer = make([]byte, size, 2*size)
	}
	f.left -= int64(size)
	_, err := io.ReadFull(f.in, buffer[:size])
	return buffer[:size], unexpected(err)
}

// unexpected is the end of what should go on.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
