// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A browser that starts and then says nothing is an error, and leaves nothing.
func TestStartOfOneThatDoesNotAnswer(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, nobody reads them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	folder := t.TempDir()
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	t.Setenv("TMPDIR", t.TempDir())
	script := fmt.Sprintf("#!/bin/sh\necho DevTools listening on ws://%s/devtools/browser/1 >&2\nexec sleep 600\n", mute.Addr())
	if err := os.WriteFile(filepath.Join(folder, "chromium"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		_, err := Start(context.Background(), Options{Width: 800, Height: 600, Within: time.Second})
		started <- err
	}()
	select {
	case err := <-started:
		if !errors.Is(err, errLate) {
			t.Errorf("got %v, want %v", err, errLate)
		}
	case <-time.After(time.Minute):
		t.Fatal("the start is not bounded")
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v, want nothing", left, err)
	}
}
