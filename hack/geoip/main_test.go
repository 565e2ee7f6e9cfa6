// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCommitted fails when the committed databases are not what the source
// gives; go generate ./flows/geo/... writes them anew.
func TestCommitted(t *testing.T) {
	for _, db := range databases() {
		t.Run(db.path, func(t *testing.T) {
			want, err := build(db)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join("../../flows/geo", db.path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got %d other bytes, want the %d that build gives", len(got), len(want))
			}
		})
	}
}

func TestWriteNamesTheFile(t *testing.T) {
	if err := write(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("got no error for a folder that does not exist")
	}
}
