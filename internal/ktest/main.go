// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// shortParallel is how many tests run at once under -short if nothing else is asked for: they
// wait more than they compute.
const shortParallel = "8"

// Main runs a package's tests and exits, for TestMain. Where all passed it fails the package
// if something is left: a descriptor of a network namespace, of BPF or of a socket, a pin
// below a path of [PinPath], or a network namespace that a process or a mount keeps.
func Main(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); testing.Short() && parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", shortParallel)
	}
	if unix.Gettid() == os.Getpid() {
		// The process's first thread does not end with a goroutine, and would stay in the
		// namespace of one that has entered it.
		runtime.LockOSThread()
	}
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if left := awaitNothingLeft(before); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "the tests have left: %s\n", strings.Join(left, ", "))
			code = 1
		}
	}
	os.Exit(code)
}

// endsWithin is how long what a test has ended may take to be gone.
var endsWithin = 5 * time.Second

func awaitNothingLeft(before map[string]int) (left []string) {
	http.DefaultClient.CloseIdleConnections()
	_ = Eventually(endsWithin, "nothing is left", func() bool {
		left = slices.Concat(moreThan(before, descriptors()), leftPins(), leftNamespaces())
		return len(left) == 0
	})
	return left
}

// descriptorKinds are the beginnings of what the links in /proc/self/fd lead to.
var descriptorKinds = []string{"net:", "anon_inode:bpf", "socket:"}

// descriptors counts this process's by their kind.
func descriptors() map[string]int {
	counts := make(map[string]int)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		for _, kind := range descriptorKinds {
			if strings.HasPrefix(target, kind) {
				name, _, _ := strings.Cut(target, ":[")
				counts[name]++
			}
		}
	}
	return counts
}

func moreThan(before, now map[string]int) (more []string) {
	for _, kind := range slices.Sorted(maps.Keys(now)) {
		if n := now[kind] - before[kind]; n > 0 {
			more = append(more, fmt.Sprintf("%d descriptors of %s", n, kind))
		}
	}
	return more
}

func leftPins() []string {
	paths, _ := filepath.Glob(ownPins + "*") // a bad pattern is its only error
	return paths
}

// made are the cookies of the namespaces that [NewNamespace] has made: no other one ever
// has these, while the number of its inode is given again.
var made sync.Map

// remember takes note of the namespace that the thread is in.
func remember() error {
	cookie, err := cookieHere()
	if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.14
		return nil
	}
	if err == nil {
		made.Store(cookie, true)
	}
	return err
}

func cookieHere() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// leftNamespaces are those of [NewNamespace] that another process is in or that are mounted.
func leftNamespaces() (left []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range append(paths, mountedNamespaces()...) {
		if path == fmt.Sprintf("/proc/%d/ns/net", os.Getpid()) {
			continue
		}
		if mine, err := isMade(path); err == nil && mine {
			left = append(left, "the network namespace "+path)
		}
	}
	return left
}

// isMade fails for one that has ended since it was found.
func isMade(path string) (mine bool, err error) {
	handle, err := netns.GetFromPath(path)
	if err != nil {
		return false, err
	}
	defer handle.Close()
	err = (&Namespace{handle: handle}).Do(func() error {
		cookie, err := cookieHere()
		_, mine = made.Load(cookie)
		return err
	})
	return mine, err
}

// mountedNamespaces are the mount points of namespaces, as ip-netns(8) makes them.
func mountedNamespaces() (paths []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the mount point is the fifth
		if strings.Contains(line, " - nsfs ") && len(fields) > 4 {
			paths = append(paths, fields[4])
		}
	}
	return paths
}
