// SPDX-License-Identifier: Apache-2.0

// Package bpf is the kernel side: the BPF programs that count packets, and the
// Go types that bpf2go makes of their C structures. The compiled object is
// committed, so building podmeter needs no clang.
//
// flow.h is the ABI, maps.h the maps, parse.h the walk over a packet's headers, count.h
// what is counted of it. meter.bpf.c has the programs for TC, and for XDP on uplinks,
// host.bpf.c those for pods in the node's own network. A third object sees sockets:
// socket.h and health.h are its ABI, socket_maps.h its maps, share.h who has how much of
// them, sample.h and rtt.h what is taken down of TCP connections and socket.bpf.c the programs. [LoadMeter], [LoadHost] and
// [LoadSocket] return the collections' specifications; package datapath sizes, loads, pins
// and attaches them. Whoever loads a collection closes it.
package bpf

//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package bpf -type flow_key -type flow_counters -type front_slot -type front_bucket -type total_key -type total_counters -type total_place -type more_counters -type more_place -type outcome Meter meter.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package bpf -no-global-types Host host.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -go-package bpf -type socket_key -type socket_owner -type socket_owners -type share -type socket_outcome -type health_key -type tcp_health Socket socket.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
