//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Values of 48 bytes instead of 40. */
#define MORE_FLOW_COUNTERS __u64 more;

#include "../meter.bpf.c"
