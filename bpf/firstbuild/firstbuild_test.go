// SPDX-License-Identifier: Apache-2.0

package firstbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// The object is the one that was in use, byte by byte.
func TestObject(t *testing.T) {
	const want = "f420d44aee0652239376a1be4c3da60eaa622940d8dc0828a39f5b3f2b0a65b9"
	sum := sha256.Sum256(object)
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
