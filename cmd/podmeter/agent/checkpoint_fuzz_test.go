// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// checkpointFile is what an agent with n flow series leaves behind.
func checkpointFile(t testing.TB, n int) []byte {
	t.Helper()
	c := testCheckpoints(t)
	if err := c.write(sample(n)); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// FuzzReadCheckpoint reads arbitrary bytes as the file: what is not, to the bit,
// what was written is refused with the file's name.
func FuzzReadCheckpoint(f *testing.F) {
	good := checkpointFile(f, 1)
	longer := append(bytes.Clone(good), 0)
	older := bytes.Clone(good)
	older[len(checkpointMagic)+3]--
	for _, seed := range [][]byte{good, good[:checkpointHeader], good[:len(good)/2], longer, older, nil, []byte(checkpointMagic), []byte("pods: []\n")} {
		f.Add(seed)
	}
	c := testCheckpoints(f)
	if err := c.write(sample(0)); err != nil { // makes the directory
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(c.path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		content, err := c.read()
		switch {
		case err == nil && content == nil:
			t.Error("got no checkpoint and no error, though there is a file")
		case err == nil && !bytes.Equal(file, good):
			checkRewritten(t, content)
			fresh := bytes.Clone(file)
			putHeader(fresh)
			if !bytes.Equal(fresh, file) {
				t.Errorf("taken with the header %x, want %x", file[:checkpointHeader], fresh[:checkpointHeader])
			}
		case err != nil && (!errors.Is(err, errCheckpoint) || !strings.Contains(err.Error(), c.path)):
			t.Errorf("got %v, want %v with the file's name", err, errCheckpoint)
		}
	})
}

// FuzzDecodeCheckpoint has a right header before arbitrary bytes, so that they are
// looked at: what is taken is whole, and the same when it is written down anew.
func FuzzDecodeCheckpoint(f *testing.F) {
	good := checkpointFile(f, 1)
	f.Add(good[checkpointHeader:])
	f.Add(good[:checkpointHeader])
	f.Add([]byte("\xa2hDatapath\xf6eFlows\xf6"))
	f.Add([]byte("\xa2hDatapath\xa0eFlows\xa0"))
	f.Fuzz(func(t *testing.T, body []byte) {
		file := append(make([]byte, checkpointHeader), body...)
		putHeader(file)
		content, err := decodeCheckpoint(file)
		if err != nil {
			return
		}
		if content.Datapath == nil || content.Flows == nil {
			t.Fatal("got half a checkpoint without an error")
		}
		checkRewritten(t, content)
	})
}

// checkRewritten writes a checkpoint that was taken and reads it again, twice: times
// are kept to the microsecond, and what was read is kept as it is.
func checkRewritten(t *testing.T, content *checkpoint) {
	t.Helper()
	again := rewrite(t, content)
	if diff := cmp.Diff(content, again, asCheckpoints, cmpopts.EquateApproxTime(time.Microsecond)); diff != "" {
		t.Errorf("written down anew (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(again, rewrite(t, again), asCheckpoints); diff != "" {
		t.Errorf("written down once more (-want +got):\n%s", diff)
	}
}

func rewrite(t *testing.T, content *checkpoint) *checkpoint {
	t.Helper()
	c := testCheckpoints(t)
	if err := c.write(content); err != nil {
		t.Fatalf("write what was taken: %v", err)
	}
	again, err := c.read()
	if err != nil {
		t.Fatalf("read it again: %v", err)
	}
	return again
}
