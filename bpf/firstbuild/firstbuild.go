// SPDX-License-Identifier: Apache-2.0

// Package firstbuild has the meter's programs as they were before there was a front: flows
// of layout 1, in maps that have a value for each possible CPU. Tests upgrade from it, and
// benchmarks compare with it. Its object cannot be made from the sources any more.
package firstbuild

import (
	"bytes"
	_ "embed"

	"github.com/cilium/ebpf"
)

//go:embed meter.o
var object []byte

// Load returns the collection's specification.
func Load() (*ebpf.CollectionSpec, error) {
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
}
