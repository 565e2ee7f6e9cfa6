// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ForeignProgram is somebody's program on a cgroup that the kernel would not run any more
// for a cgroup below, or not let in, if that had one of podmeter's of the same kind: it was
// attached without BPF_F_ALLOW_MULTI. With BPF_F_ALLOW_OVERRIDE the kernel accepts
// podmeter's and skips the foreign one (compute_effective_progs of kernel/bpf/cgroup.c), so
// that what it drops passes. Without any flag the same happens if it comes later.
type ForeignProgram struct {
	// Cgroup is the path of the directory it is attached to.
	Cgroup string
	Type   ebpf.AttachType
	ID     ebpf.ProgramID
}

// String says which one it is.
func (f ForeignProgram) String() string {
	return fmt.Sprintf("program %d (%v) on %s, attached without BPF_F_ALLOW_MULTI", f.ID, f.Type, f.Cgroup)
}

// foreignLook looks once at cgroups and those above them. Whatever the number of cgroups
// below it, a cgroup is asked once: a look costs a few system calls for each directory.
type foreignLook struct {
	types []ebpf.AttachType
	known map[string]*ForeignProgram
}

func newForeignLook(types ...ebpf.AttachType) *foreignLook {
	return &foreignLook{types: types, known: make(map[string]*ForeignProgram)}
}

// find returns a foreign program on a cgroup or above it that one of podmeter's on the
// cgroup would switch off, nil if there is none. The error is fs.ErrNotExist or ENODEV if
// the cgroup has ended.
func (l *foreignLook) find(cgroup string) (*ForeignProgram, error) {
	cgroup = filepath.Clean(cgroup)
	if found, known := l.known[cgroup]; known {
		return found, nil
	}
	found, isCgroup, err := l.ask(cgroup)
	if err != nil {
		return nil, err
	}
	if parent := filepath.Dir(cgroup); isCgroup && found == nil && parent != cgroup {
		if found, err = l.find(parent); err != nil {
			return nil, err
		}
	}
	l.known[cgroup] = found
	return found, nil
}

// ask asks a cgroup for its own programs. isCgroup is false above the hierarchy's root.
func (l *foreignLook) ask(path string) (found *ForeignProgram, isCgroup bool, err error) {
	directory, err := os.Open(path)
	if err != nil {
		return nil, false, fmt.Errorf("open cgroup: %w", err)
	}
	defer directory.Close()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(directory.Fd()), &s); err != nil {
		return nil, false, fmt.Errorf("find the file system of %s: %w", path, err)
	}
	if s.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, false, nil
	}
	for _, kind := range l.types {
		flags, first, err := queryCgroup(directory, kind)
		if err != nil {
			return nil, true, fmt.Errorf("ask for programs of %s (%v): %w", path, kind, err)
		}
		if first != 0 && flags&unix.BPF_F_ALLOW_MULTI == 0 {
			return &ForeignProgram{Cgroup: path, Type: kind, ID: first}, true, nil
		}
	}
	return nil, true, nil
}

// progQuery is the struct query of union bpf_attr (linux/bpf.h), on 64-bit machines, which
// alone are metered. It has all fields of Linux 6.18: the kernel writes revision whatever
// size it is given.
type progQuery struct {
	targetFD, attachType    uint32
	queryFlags, attachFlags uint32
	progIDs                 *ebpf.ProgramID
	progCount, _            uint32
	progAttachFlags         uint64
	linkIDs                 uint64
	linkAttachFlags         uint64
	revision                uint64
	_                       [64]byte // for fields to come
}

// progQuerySize is up to progCount, which every kernel knows.
const progQuerySize = unsafe.Offsetof(progQuery{}.progAttachFlags)

// queryCgroup returns how the programs of a kind are attached to a cgroup itself and the
// id of the first, 0 if there are none. The library does not return the flags.
func queryCgroup(cgroup *os.File, kind ebpf.AttachType) (flags uint32, first ebpf.ProgramID, err error) {
	query := progQuery{
		targetFD: uint32(cgroup.Fd()), attachType: uint32(kind), progIDs: &first, progCount: 1,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), progQuerySize)
	if errno != 0 && !errors.Is(errno, unix.ENOSPC) { // there are several: the flags are theirs
		return 0, 0, errno
	}
	return query.attachFlags, first, nil
}
