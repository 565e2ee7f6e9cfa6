// SPDX-License-Identifier: Apache-2.0

// Package shallowbuild has the meter's programs from the same sources, but for the number
// of VLAN tags and IPv6 extension headers that they read: one of each. The kernel verifies
// them in a tenth of the time, most of what a short test of the agent's side would take.
package shallowbuild

//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package shallowbuild -no-global-types Shallow shallow.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
