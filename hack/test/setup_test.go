// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fakes are the commands of a machine that setup.sh asks and changes. nft is what it lacks, unless
// apt-get "installs" it. Each call is a line of calls.
var fakes = map[string]string{
	"id":         `echo "$UID_IS"`,
	"dpkg-query": `echo installed`,
	"apt-cache":  `[ -e "$SETUP_ROOT/lists" ] && echo "  Candidate: 1.0"; exit 0`,
	"systemctl": `case "$*" in
*list-unit-files*) echo old.service enabled; [ ! -e "$SETUP_ROOT/usr/sbin/nft" ] || echo new.service enabled ;;
*) echo "systemctl $*" >>"$SETUP_ROOT/calls" ;;
esac`,
	"apt-get": `echo "apt-get $1" >>"$SETUP_ROOT/calls"
case "$*" in
update*) [ -z "$OFFLINE" ] && touch "$SETUP_ROOT/lists" ;;
*--assume-no*) printf '0 upgraded, 5 newly installed, 0 to remove\nNeed to get 725 kB of archives.\nAbort.\n'; exit 1 ;;
*)
	"$SETUP_ROOT/usr/sbin/policy-rc.d"
	echo "services: $?" >>"$SETUP_ROOT/calls"
	[ -z "$TERMINATE" ] || { kill -TERM "$PPID"; exit 1; }
	[ -z "$OFFLINE" ] && touch "$SETUP_ROOT/usr/sbin/nft" ;;
esac`,
}

// fakeMachine is a folder with its files, and what commands there are.
type fakeMachine string

// newMachine makes one that has all that is needed but nft.
func newMachine(t *testing.T, system string) fakeMachine {
	t.Helper()
	m := fakeMachine(t.TempDir())
	for name, script := range fakes {
		m.write(t, "bin/"+name, "#!/bin/bash\n"+script+"\n")
	}
	for _, name := range []string{"bin/promtool", "bin/chromium", "bin/etcd", "usr/lib/cni/bandwidth", "usr/share/zoneinfo/zone.tab", "lists"} {
		m.write(t, name, "")
	}
	m.write(t, "etc/os-release", system)
	m.write(t, "usr/sbin/policy-rc.d", policy)
	// Of the real machine there is but what scripts are made of.
	for _, name := range []string{"bash", "sh", "dirname", "grep", "sed", "awk", "sort", "comm", "cp", "mv", "rm", "chmod", "mktemp", "tail", "touch"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, m.path("bin/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m fakeMachine) path(name string) string { return filepath.Join(string(m), name) }

func (m fakeMachine) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

// setUp runs the script on the machine, on a terminal if there is an answer. HAS and LACKS are
// a file that is or is not there.
func (m fakeMachine) setUp(t *testing.T, list string, environment []string, answer *string) (code int, says string) {
	t.Helper()
	script, err := filepath.Abs("../setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), m.path("bin/bash"), script, list)
	command.Env = append([]string{"PATH=" + m.path("bin"), "SETUP_ROOT=" + string(m), "UID_IS=0", "TMPDIR=" + t.TempDir()}, environment...)
	for _, setting := range environment {
		switch name, value, _ := strings.Cut(setting, "="); name {
		case "HAS":
			m.write(t, value, "")
		case "LACKS":
			if err := os.Remove(m.path(value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var output []byte
	if answer == nil {
		output, err = command.CombinedOutput()
	} else {
		output, err = onTerminal(t, command, *answer)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(output)
}

// onTerminal runs a command on one, where an answer has been typed.
func onTerminal(t *testing.T, command *exec.Cmd, answer string) ([]byte, error) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	defer master.Close() // of a terminal: nothing to lose
	number, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close() // likewise
	command.Stdin, command.Stdout, command.Stderr = terminal, terminal, terminal
	if _, err := master.WriteString(answer); err != nil {
		t.Fatal(err)
	}
	err = command.Run()
	terminal.Close()
	output, _ := io.ReadAll(master) // ends with EIO
	return output, err
}

// calls returns what was called of the fakes, in order.
func (m fakeMachine) calls(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(m.path("calls"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), string(m), "ROOT")), "\n")
}

// checkPolicy checks that services may start as before.
func (m fakeMachine) checkPolicy(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob(m.path("usr/sbin/policy-rc.d*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("got %v, %v, want policy-rc.d alone", found, err)
	}
	if text, err := os.ReadFile(found[0]); err != nil || string(text) != policy {
		t.Errorf("got %q, %v, want it to be as before", text, err)
	}
}

// policy is the machine's own.
const policy = "#!/bin/sh\nexit 42\n"

const debian = "ID=debian\n"

// The machine lacks nftables in each case but the first.
func TestSetup(t *testing.T) {
	listed := "  nftables                     tests of a node that translates Services\n"
	plan := "set-up: what test needs and is not installed:\n" + listed +
		"set-up: apt-get install --no-install-recommends nftables\n" +
		"  0 upgraded, 5 newly installed, 0 to remove\n  Need to get 725 kB of archives.\n"
	installed := []string{"apt-get install", "apt-get install", "services: 101", "systemctl --root=ROOT --quiet disable new.service"}
	missing := "these Debian packages are missing:\n" + listed + "set-up: tests that need them are skipped\n"
	for _, test := range []struct {
		name        string
		system      string
		environment []string
		list        string
		code        int
		says        string // without how long it took
		calls       []string
	}{
		{"all is there", debian, []string{"HAS=usr/sbin/nft"}, "test", 0, "", nil},
		{"root", debian, nil, "test", 0, plan + "set-up: done, after S s\n", installed},
		{"Ubuntu's derivative", "ID=mint\nID_LIKE=\"ubuntu debian\"\n", nil, "test", 0, plan + "set-up: done, after S s\n", installed},
		{"no root", debian, []string{"UID_IS=1000"}, "test", 0, "set-up: installing needs root; " + missing, nil},
		{"another system", "ID=fedora\n", nil, "test", 0, "set-up: this is neither Debian nor Ubuntu; " + missing, nil},
		{"off", debian, []string{"SETUP=off"}, "test", 0, "set-up: left out, as SETUP=off says; " + missing, nil},
		{"neither on nor off", debian, []string{"SETUP=yes"}, "test", 2, "usage: [SETUP=on|off] setup.sh test|ci\n", nil},
		{"apt knows nothing yet", debian, []string{"LACKS=lists"}, "test", 0,
			"set-up: apt-get update, as apt does not know all of it\n" + plan + "set-up: done, after S s\n", append([]string{"apt-get update"}, installed...)},
		{"no network, no lists", debian, []string{"LACKS=lists", "OFFLINE=1"}, "test", 0,
			"set-up: apt-get update, as apt does not know all of it\nset-up: apt-get update failed\nset-up: apt knows none of it; " + missing,
			[]string{"apt-get update"}},
		{"no network", debian, []string{"OFFLINE=1"}, "test", 0,
			plan + "set-up: apt-get install nftables failed:\nset-up: apt-get update, as its lists may be old\nset-up: apt-get update failed\n" +
				"set-up: not all of it can be had here; " + missing,
			[]string{"apt-get install", "apt-get install", "services: 101", "apt-get update"}},
		{"ended by a signal", debian, []string{"TERMINATE=1"}, "test", 143, plan, installed[:3]},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, test.system)
			code, says := m.setUp(t, test.list, test.environment, nil)
			if code != test.code {
				t.Errorf("exit code: got %d, want %d", code, test.code)
			}
			if diff := cmp.Diff(test.says, regexp.MustCompile(`after \d+ s`).ReplaceAllString(says, "after S s")); diff != "" {
				t.Errorf("says (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.calls, m.calls(t)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			m.checkPolicy(t)
		})
	}
}

// What CI needs and cannot have is an error.
func TestSetupOfCI(t *testing.T) {
	m := newMachine(t, debian)
	if code, says := m.setUp(t, "ci", []string{"UID_IS=1000"}, nil); code != 1 || !strings.Contains(says, "qemu-system-x86") {
		t.Errorf("got exit code %d and %q, want 1 and what is missing of both lists", code, says)
	}
}

// On a terminal it asks, unless it was told or CI is set.
func TestSetupAsks(t *testing.T) {
	for _, test := range []struct {
		name, environment, answer string
		installs                  bool
	}{
		{"yes", "X=", "y\n", true},
		{"the default", "X=", "\n", true},
		{"no", "X=", "n\n", false},
		{"no answer", "X=", "\x04", false}, // ^D
		{"on", "SETUP=on", "", true},
		{"CI", "CI=true", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, debian)
			code, says := m.setUp(t, "test", []string{test.environment}, &test.answer)
			if _, err := os.Stat(m.path("usr/sbin/nft")); code != 0 || (err == nil) != test.installs {
				t.Errorf("got exit code %d, and installed: %t, want it installed: %t", code, err == nil, test.installs)
			}
			if got, want := strings.Contains(says, "[Y/n]"), test.answer != ""; got != want {
				t.Errorf("got asked: %t, want %t: %s", got, want, says)
			}
			m.checkPolicy(t)
		})
	}
}
