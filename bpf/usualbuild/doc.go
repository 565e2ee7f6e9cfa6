// SPDX-License-Identifier: Apache-2.0

// Package usualbuild has a flow meter as they are usually made, for benchmarks to compare
// with: podmeter's parser before one per-CPU LRU hash and a clock in ns.
package usualbuild

//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package usualbuild -no-global-types Usual usual.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
