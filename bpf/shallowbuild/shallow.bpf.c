//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Fewer headers: the verifier walks a tenth of the paths. */
#define MAX_VLAN_TAGS 1
#define MAX_EXTENSIONS 1

#include "../meter.bpf.c"
