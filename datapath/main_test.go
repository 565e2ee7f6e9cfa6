// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
)

// TestMain fails the package if its tests leave something.
func TestMain(m *testing.M) { ktest.Main(m) }
