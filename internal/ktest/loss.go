// SPDX-License-Identifier: Apache-2.0

package ktest

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Lose drops each nth packet that sockets of the cgroup are to receive, all of them if
// every is 1, until the function is called or the test ends.
func (c *Cgroup) Lose(tb testing.TB, every int32) (stop func()) {
	tb.Helper()
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		tb.Fatalf("make counter of packets: %v", err)
	}
	defer count.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress, License: "GPL", Instructions: loss(count.FD(), every),
	})
	if err != nil {
		tb.Fatalf("load program that drops packets: %v", err)
	}
	defer program.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: c.Path, Attach: ebpf.AttachCGroupInetIngress, Program: program})
	if err != nil {
		tb.Fatalf("attach program that drops packets: %v", err)
	}
	tb.Cleanup(func() { l.Close() })
	return func() { l.Close() }
}

// loss returns 0, which drops the packet, for each nth.
func loss(count int, every int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, count),
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "count"),
		asm.Return(),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord).WithSymbol("count"),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1),
		asm.Mod.Imm(asm.R1, every),
		asm.JNE.Imm(asm.R1, 0, "end"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return().WithSymbol("end"),
	}
}
