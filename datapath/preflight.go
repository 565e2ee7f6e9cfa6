// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Errors that keep a meter from starting.
var (
	// ErrCapability is returned when a capability is missing.
	ErrCapability = errors.New("missing capability")
	// ErrKernel is returned when the kernel lacks what the meter needs.
	ErrKernel = errors.New("unsupported kernel")
)

// capabilities are what the meter needs: the first to load maps and programs, the
// second for programs that read packets (without it the verifier refuses pointer
// arithmetic), the third to attach.
var capabilities = []struct {
	number int
	name   string
}{
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
}

// preflight checks what could not be told from a later failure.
func preflight() error {
	if strconv.IntSize < 64 {
		return fmt.Errorf("%w: 64-bit counters tear on 32-bit machines", ErrKernel)
	}
	if realtime, err := os.ReadFile("/sys/kernel/realtime"); err == nil && strings.TrimSpace(string(realtime)) == "1" {
		return fmt.Errorf("%w: with PREEMPT_RT two programs may run on one CPU at a time, and counts could be lost", ErrKernel)
	}
	return checkCapabilities()
}

func checkCapabilities() error {
	effective, err := effectiveCapabilities()
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for _, c := range capabilities {
		if effective&(1<<c.number) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s; run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
			ErrCapability, strings.Join(missing, ", "))
	}
	return nil
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// explain looks, after loading has failed, for the feature that the kernel
// lacks, and names it.
func explain(err error) error {
	probes := []struct {
		feature string
		probe   func() error
	}{
		{"BPF_MAP_TYPE_RINGBUF (Linux 5.8)", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"BPF_MAP_TYPE_LRU_HASH (Linux 4.10)", func() error { return features.HaveMapType(ebpf.LRUHash) }},
		{"BPF_F_MMAPABLE (Linux 5.5)", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
		{"bpf_jiffies64 (Linux 5.6)", func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnJiffies64) }},
		{"atomic fetch-and-add (Linux 5.12)", features.HaveV3ISA},
	}
	for _, p := range probes {
		if errors.Is(p.probe(), ebpf.ErrNotSupported) {
			return fmt.Errorf("%w: it lacks %s; Linux 5.15 or later has it: %w", ErrKernel, p.feature, err)
		}
	}
	return err
}
