// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"errors"
	"math"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// HaveTCX reports whether the kernel has TCX.
func HaveTCX(tb testing.TB) bool {
	tb.Helper()
	Privileged(tb)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		tb.Fatalf("load program: %v", err)
	}
	defer program.Close()
	_, err = link.AttachTCX(link.TCXOptions{
		Interface: math.MaxInt32, Program: program, Attach: ebpf.AttachTCXIngress,
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false
	}
	if !errors.Is(err, unix.ENODEV) {
		tb.Fatalf("attach to no interface: got %v, want %v", err, unix.ENODEV)
	}
	return true
}

// RequireTCX skips the test on a kernel without TCX, where nothing but netlink attaches;
// see [Lacks].
func RequireTCX(tb testing.TB) {
	tb.Helper()
	if !HaveTCX(tb) {
		Lacks(tb, "TCX", LinuxTCX)
	}
}
