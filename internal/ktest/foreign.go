// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The flags with which a program may be attached to a cgroup.
const (
	CgroupExclusive   = 0
	CgroupOverridable = unix.BPF_F_ALLOW_OVERRIDE
	CgroupShared      = unix.BPF_F_ALLOW_MULTI
)

// ForeignProgram is somebody's program for cgroups that refuses all, as a firewall may.
type ForeignProgram struct {
	program *ebpf.Program
	Attach  ebpf.AttachType
	ID      ebpf.ProgramID
}

// NewForeignProgram loads one that lives as long as the test. Of the kinds that have no
// verdict it does nothing.
func NewForeignProgram(tb testing.TB, kind ebpf.ProgramType, attach ebpf.AttachType) *ForeignProgram {
	tb.Helper()
	Privileged(tb)
	verdict := int32(0)
	if attach == ebpf.AttachCGroupSockOps || attach == ebpf.AttachCgroupInetSockRelease {
		verdict = 1
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		tb.Fatalf("load a foreign program of %v: %v", attach, err)
	}
	tb.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		tb.Fatal(err)
	}
	id, _ := info.ID()
	return &ForeignProgram{program: p, Attach: attach, ID: id}
}

// On attaches it to a cgroup until the returned function is called, or the test ends.
func (p *ForeignProgram) On(tb testing.TB, c *Cgroup, flags uint32) (remove func()) {
	tb.Helper()
	directory, err := os.Open(c.Path)
	if err != nil {
		tb.Fatal(err)
	}
	o := link.RawAttachProgramOptions{Target: int(directory.Fd()), Program: p.program, Attach: p.Attach, Flags: flags}
	if err := link.RawAttachProgram(o); err != nil {
		tb.Fatalf("attach a foreign program to %s: %v", c.Path, err)
	}
	remove = sync.OnceFunc(func() {
		err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(directory.Fd()), Program: p.program, Attach: p.Attach})
		if err := errors.Join(err, directory.Close()); err != nil {
			tb.Errorf("detach a foreign program: %v", err)
		}
	})
	tb.Cleanup(remove)
	return remove
}

// Runs reports whether the kernel runs it for a cgroup.
func (p *ForeignProgram) Runs(tb testing.TB, c *Cgroup) bool {
	tb.Helper()
	directory, err := os.Open(c.Path)
	if err != nil {
		tb.Fatal(err)
	}
	defer directory.Close()
	result, err := link.QueryPrograms(link.QueryOptions{
		Target: int(directory.Fd()), Attach: p.Attach, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE,
	})
	if err != nil {
		tb.Fatalf("ask for the effective programs of %s: %v", c.Path, err)
	}
	return slices.ContainsFunc(result.Programs, func(a link.AttachedProgram) bool { return a.ID == p.ID })
}
