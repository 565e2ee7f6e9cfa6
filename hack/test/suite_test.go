// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = time.Minute

// child is started by the test that is interrupted, and does not listen to an interrupt.
const child = `package stays

import (
	"os"
	"os/exec"
	"testing"
)

func TestStays(t *testing.T) {
	command := exec.Command("sh", "-c", "trap '' INT; echo $$ >pid.new; mv pid.new pid; exec sleep 1000")
	command.Stdout = os.Stdout
	t.Fatal(command.Run())
}
`

// An interrupted run says what was running and leaves no process, whatever that does with
// the signal.
func TestInterrupted(t *testing.T) {
	folder := writeModule(t, map[string]string{"stays_test.go": child})
	signals := make(chan os.Signal, 1)
	said := &lines{}
	code := make(chan int)
	go func() {
		code <- run(signals, &screen{out: said}, []module{{folder: folder, packages: []string{"./..."}}}, nil)
	}()
	pid := await(t, func() string {
		text, _ := os.ReadFile(filepath.Join(folder, "pid")) // it comes
		return strings.TrimSpace(string(text))
	})
	signals <- syscall.SIGINT
	select {
	case got := <-code:
		if got != 130 {
			t.Errorf("exit code: got %d, want 130", got)
		}
	case <-time.After(patience):
		t.Fatal("the interrupted run does not end")
	}
	await(t, func() string {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return "gone, or nobody's"
		}
		return ""
	})
	for _, want := range []string{"interrupt: ", "(TestStays ", "\n0 passed, 1 failed, 0 skipped\n"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("got %q, want %q in it", said, want)
		}
	}
}

// What go test says without an event is in the report.
func TestGoTestFails(t *testing.T) {
	folder := writeModule(t, map[string]string{"go.mod": "module\n"})
	said := &lines{}
	if got := run(nil, &screen{out: said}, []module{{folder: folder, packages: []string{"./..."}}}, nil); got != 1 {
		t.Errorf("exit code: got %d, want 1", got)
	}
	for _, want := range []string{"go.mod:1: ", "\n0 passed, 1 failed, 0 skipped\n"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("got %q, want %q in it", said, want)
		}
	}
}

func writeModule(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	if _, has := files["go.mod"]; !has {
		files["go.mod"] = "module example.test/stays\n\ngo 1.26\n"
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// await waits until there is something.
func await(t *testing.T, get func() string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got := get(); got != "" {
			return got
		}
	}
	t.Fatal("it does not come")
	return ""
}

// lines is a buffer that two goroutines may use.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
