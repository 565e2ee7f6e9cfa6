// SPDX-License-Identifier: Apache-2.0

// Package otherbuild has the programs as another build of podmeter could bring
// them: from the same sources, with flow counters of another layout. Tests upgrade
// to it and from it.
package otherbuild

//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package otherbuild -type flow_key -type flow_counters Other other.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
