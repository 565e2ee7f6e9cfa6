// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// leaveEnv makes the test binary, started once more, leave something.
const leaveEnv = "KTEST_LEAVE"

func TestMain(m *testing.M) {
	if os.Getenv(leaveEnv) != "" {
		endsWithin = time.Second
	}
	Main(m)
}

// leavings leave something that outlives their test.
func leavings() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"nothing": func(t *testing.T) { NewNode(t).Pod(t, PodOptions{}) },
		"descriptors of net": func(t *testing.T) {
			if _, err := unix.Dup(NewNamespace(t).FD()); err != nil {
				t.Fatal(err)
			}
		},
		"descriptors of anon_inode:bpf-map": func(t *testing.T) {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Dup(m.FD()); err != nil {
				t.Fatal(err)
			}
			m.Close()
		},
		"descriptors of socket": func(t *testing.T) {
			if _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
		},
		ownPins: func(t *testing.T) { // not by PinPath, which removes it
			if err := os.Mkdir(newPinPath(t), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"the network namespace /proc/": func(t *testing.T) {
			sleeper := exec.Command("sleep", "5") // longer than is waited for its end
			if err := NewNamespace(t).Do(sleeper.Start); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// TestLeave is no test but what the processes of TestMainFindsWhatIsLeft run.
func TestLeave(t *testing.T) {
	name, asked := os.LookupEnv(leaveEnv)
	if !asked {
		return
	}
	if strings.HasPrefix(name, pinPrefix) {
		name = ownPins
	}
	leavings()[name](t)
}

// pinPrefix is how the paths of all processes begin.
const pinPrefix = bpffs + "/podmeter-test-"

func TestMainFindsWhatIsLeft(t *testing.T) {
	t.Parallel()
	Privileged(t)
	for name := range leavings() {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeave$")
			command.WaitDelay = time.Second // for what it has left, which has its output
			command.Env = append(os.Environ(), leaveEnv+"="+name)
			output, err := command.CombinedOutput()
			want := name
			if strings.HasPrefix(name, pinPrefix) {
				want = pinPrefix
			}
			if name == "nothing" {
				if err != nil {
					t.Errorf("got %v, want success: %s", err, output)
				}
			} else if err == nil || !strings.Contains(string(output), "the tests have left: ") || !strings.Contains(string(output), want) {
				t.Errorf("got %v, want it to fail for %s: %s", err, want, output)
			}
			left, _ := filepath.Glob(pinPrefix + "*")
			for _, path := range left {
				if strings.Contains(string(output), path) {
					os.Remove(path)
				}
			}
		})
	}
}
