// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubejson "k8s.io/apimachinery/pkg/util/json"
)

var errNoList = errors.New("no list of objects")

// listJSON reads a list in JSON object by object, as readList does one in protobuf.
type listJSON struct {
	*json.Decoder
	ration *ration
	to     *metav1.ListMeta
	each   func(runtime.Object) error
	empty  func() message
	isList bool // by its kind
}

func readJSON(in *bufio.Reader, to *metav1.ListMeta, each func(runtime.Object) error, empty func() message) error {
	ration := &ration{from: in, left: objectLimit}
	list := listJSON{Decoder: json.NewDecoder(ration), ration: ration, to: to, each: each, empty: empty}
	if err := list.within('{', '}', list.field); err != nil {
		return unexpected(err)
	}
	if !list.isList {
		return errNoList
	}
	return nil
}

// within calls each until the end of a mapping or a list. Null is empty.
func (l *listJSON) within(begin, end json.Delim, each func() error) error {
	switch token, err := l.Token(); {
	case err != nil:
		return err
	case token == nil:
		return nil
	case token != begin:
		return fmt.Errorf("%w: got %v, want %v", errNoList, token, begin)
	}
	for l.More() {
		l.ration.left = objectLimit
		if err := each(); err != nil {
			return err
		}
	}
	if token, err := l.Token(); err != nil || token != end {
		return errors.Join(errNoList, err)
	}
	return nil
}

// field reads a field of the list.
func (l *listJSON) field() error {
	name, err := l.Token()
	if err != nil {
		return err
	}
	switch name {
	case "kind":
		var kind string
		err = l.Decode(&kind)
		l.isList = strings.HasSuffix(kind, "List")
	case "metadata":
		err = l.Decode(l.to)
	case "items":
		err = l.within('[', ']', l.item)
	default:
		err = l.Decode(new(json.RawMessage))
	}
	return err
}

func (l *listJSON) item() error {
	var text json.RawMessage
	if err := l.Decode(&text); err != nil {
		return err
	}
	o := l.empty()
	if err := kubejson.Unmarshal(text, o); err != nil {
		return err
	}
	return l.each(o)
}

// ration is a reader that fails when more is read at once than an object can have.
type ration struct {
	from io.Reader
	left int
}

// Read implements [io.Reader].
func (r *ration) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, fmt.Errorf("%w: an object of more than %d bytes", errNoList, objectLimit)
	}
	n, err := r.from.Read(b)
	r.left -= n
	return n, err
}
