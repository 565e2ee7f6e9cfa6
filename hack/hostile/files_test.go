// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podmeter/podmeter/cmd/podmeter/agent"
	"golang.org/x/sys/unix"
)

// fileAttacks are those by files that the agent reads, and where it writes.
func fileAttacks() []attack {
	return []attack{
		{name: "a static file that is a pipe, a device, too large, or aliases without end", run: staticFiles, check: staticIsRead},
		{name: "links in the place of the checkpoint", run: linkedCheckpoint, check: preciousStays},
	}
}

// planted are what may stand in the place of a file.
func planted(valid string) map[string]func(path string) error {
	content := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	var aliases strings.Builder
	aliases.WriteString("a0: &a0 [10.0.0.1]\n")
	for n := range 30 {
		fmt.Fprintf(&aliases, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", n+1, n+1, n, n, n, n)
	}
	return map[string]func(path string) error{
		"a pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a device":        func(path string) error { return os.Symlink("/dev/zero", path) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"too large":       content(valid + strings.Repeat("# filled up\n", 1<<20)),
		"aliases":         content(aliases.String()),
		"faults":          content("pods:\n" + strings.Repeat("- {nam: x}\n", 100_000)),
		"no text":         content(strings.Repeat("\x00\xff", 1<<16)),
		"a sparse file":   func(path string) error { return sparse(path, 1<<40) },
		"vile names":      content("pods:\n- {name: \"a\\e[2J\\nb\", ips: [10.9.9.9]}\n"),
		"deep in itself":  content(strings.Repeat("[", 1<<20)),
		"not to be found": func(string) error { return nil },
	}
}

func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

func (w *world) staticFile() string { return filepath.Join(w.agent.folder, "static.yaml") }

// staticFiles puts each of them in the place of the static file, and has it read again.
func staticFiles(ctx context.Context, t *testing.T, w *world) {
	path := w.staticFile()
	put := func(what string, plant func(string) error) {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
		if err := plant(path); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := w.agent.Process.Signal(unix.SIGHUP); err != nil {
			t.Error(err)
		}
	}
	all := planted(w.static())
	pace := lasts() / time.Duration(len(all)+1)
	for what, plant := range all {
		put(what, plant)
		sleep(ctx, pace)
	}
	put("what it was", func(path string) error { return os.WriteFile(path, []byte(w.static()), 0o600) })
}

func staticIsRead(t *testing.T, w *world, _, _ samples) {
	t.Helper()
	w.agent.await(t, "the file is read again, and its pods are known", func(s *agent.Status) bool {
		return s.Identity.Problem == "" && s.Identity.Objects["pod"] == 1+hostilePods+namedPods
	})
}

const precious = "of somebody else\n"

func (w *world) precious() string { return filepath.Join(w.agent.folder, "precious") }

// linkedCheckpoint puts links to a file of somebody else's wherever the agent may write next.
func linkedCheckpoint(ctx context.Context, t *testing.T, w *world) {
	if err := os.WriteFile(w.precious(), []byte(precious), 0o600); err != nil {
		t.Error(err)
	}
	for n := 0; ctx.Err() == nil; n++ {
		next := filepath.Join(w.agent.state(), []string{"checkpoint.next", "checkpoint"}[n/3%2])
		switch n % 3 {
		case 0:
			_ = os.Symlink(w.precious(), next) // what is there already is tried, too
		case 1:
			_ = os.Link(w.precious(), next)
		case 2:
			_ = os.Remove(next)
		}
		sleep(ctx, 7*time.Millisecond)
	}
	_ = os.Remove(filepath.Join(w.agent.state(), "checkpoint"))
}

func preciousStays(t *testing.T, w *world, _, _ samples) {
	t.Helper()
	if got, err := os.ReadFile(w.precious()); err != nil || !bytes.Equal(got, []byte(precious)) {
		t.Errorf("the file of somebody else: got %d bytes, %v, want it as it was", len(got), err)
	}
	w.agent.await(t, "a checkpoint is written", func(s *agent.Status) bool {
		info, err := os.Lstat(filepath.Join(w.agent.state(), "checkpoint"))
		return err == nil && info.Mode().IsRegular() && s.CheckpointProblem == ""
	})
}
