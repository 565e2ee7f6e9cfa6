// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"testing"
	"time"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/ktest"
)

func TestMain(m *testing.M) { ktest.Main(m) }

// lasts is how long an attack takes, after which it ends by itself.
func lasts() time.Duration {
	if effort.Stressed() {
		return 20 * time.Second
	}
	return 2 * time.Second
}
