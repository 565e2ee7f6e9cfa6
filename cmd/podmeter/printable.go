// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"math"
	"reflect"
	"strings"

	"github.com/podmeter/podmeter/flows/plain"
)

// printable makes what a terminal would take for a command visible: a name of an
// interface may hold escape sequences. Lines and tabs stay.
func printable(text string) string { return plain.Lines(text, math.MaxInt) }

// printableWriter passes text on that is printable. Each write has to be of whole
// characters.
type printableWriter struct{ to io.Writer }

// Write implements [io.Writer].
func (w printableWriter) Write(text []byte) (int, error) {
	if _, err := io.WriteString(w.to, printable(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// makePlain makes each text in a value plain, so that a cell of a table stays one cell and
// one line. A problem may have several lines, which become one; v is a pointer.
func makePlain(v any) { plainValue(reflect.ValueOf(v), "") }

func plainValue(v reflect.Value, field string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(cell(v.String(), field))
	case reflect.Pointer:
		if !v.IsNil() {
			plainValue(v.Elem(), field)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if t := v.Type().Field(i); t.IsExported() {
				plainValue(v.Field(i), t.Name)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			plainValue(v.Index(i), field)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if text := cell(key.String(), field); text != key.String() {
				v.SetMapIndex(reflect.ValueOf(text), v.MapIndex(key))
				v.SetMapIndex(key, reflect.Value{})
			}
		}
	}
}

func cell(text, field string) string {
	if strings.HasSuffix(field, "Problem") {
		return plain.Text(strings.ReplaceAll(text, "\n", "; "), plain.LogLimit)
	}
	return plain.Text(text, plain.MessageLimit)
}
