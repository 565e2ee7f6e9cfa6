// SPDX-License-Identifier: Apache-2.0

// Package rttbuild has the kernel side's buckets of round-trip times in a program of
// their own, which tests can run.
package rttbuild

//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package rttbuild RTT rtt.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
