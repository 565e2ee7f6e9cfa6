// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/podmeter/podmeter/internal/ktest"
	"golang.org/x/sys/unix"
)

// A host with many interfaces, some with things of others on them, and pins of
// others, is after uninstall as it was before podmeter came.
func TestUninstallLeavesTheHostAsItWas(t *testing.T) {
	t.Parallel()
	for _, mode := range []AttachMode{AttachTCX, AttachNetlink} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			requireMode(t, mode)
			w := newQuietWire(t)
			o := testOptions(t, w.host, nil)
			o.Attach = mode
			cleanPins(t, o)
			wanted := 0
			for _, s := range strangers(t) {
				if s.after != nil {
					continue
				}
				pod := wireFrom(t, w.host, ktest.PodOptions{Device: "pod" + string(rune('a'+wanted)), NoAddress: true})
				pod.handle = filterHandle(o.PinPath)
				if s.before != nil {
					s.before(t, pod)
				}
				wanted++
			}
			w.host.VethWithin(t, "other0", "other1")
			alien := alienPin(t, o.PinPath)
			start, pins := takeInventory(t, w.host), pinsIn(t, o.PinPath)
			m, done := startMeter(t, w.host, func(mine *Options) { mine.Attach, mine.PinPath = mode, o.PinPath }), wanted+1
			ktest.Await(t, "all are attached", func() bool {
				settled := 0
				for _, i := range m.Interfaces() {
					if i.State == StateAttached || i.State == StatePartial {
						settled++
					}
				}
				return settled == done
			})
			w.talk(t)
			m.stop()
			err := w.host.Do(func() error { _, err := Uninstall(o.PinPath); return err })
			if err != nil {
				t.Fatalf("uninstall: %v", err)
			}
			ktest.Await(t, "nothing of ours", func() bool { return len(takeInventory(t, w.host).all) == len(start.all) })
			compareLists(t, "uninstalled", takeInventory(t, w.host).all, start.all)
			compareLists(t, "pins", pinsIn(t, o.PinPath), pins)
			if err := os.Remove(alien); err != nil {
				t.Error(err)
			}
		})
	}
}

// A directory that is mounted into a container cannot be removed there, and is
// emptied all the same.
func TestUninstallOfAMountedDirectory(t *testing.T) {
	t.Parallel()
	ktest.Privileged(t)
	path := testOptions(t, ktest.NewNamespace(t), nil).PinPath
	if err := preparePinPath(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(path) })
	mark := clsactMark(filepath.Join(path, clsactPrefix+"7"))
	if err := mark.set(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(string(mark)) })
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its mounts
		ended <- uninstallMounted(path)
	}()
	if err := <-ended; err != nil {
		t.Errorf("uninstall: %v", err)
	}
	if left := pinsIn(t, path); len(left) > 0 {
		t.Errorf("got %q left, want nothing", left)
	}
}

// uninstallMounted uninstalls what is in a directory that is a mount point for
// this thread alone.
func uninstallMounted(path string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	_, err := Uninstall(path)
	return err
}

// alienPin pins something of another's in the pin path.
func alienPin(t *testing.T, path string) string {
	t.Helper()
	if err := preparePinPath(path); err != nil {
		t.Fatal(err)
	}
	alien := filepath.Join(path, "another")
	if err := clsactMark(alien).set(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(alien) })
	return alien
}

func pinsIn(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
