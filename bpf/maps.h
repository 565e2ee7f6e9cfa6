/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* The maps and data sections, see ARCHITECTURE.md: who writes, who clears, what it costs. */
#ifndef PODMETER_MAPS_H
#define PODMETER_MAPS_H

#include "flow.h"

/*
 * Flows of an epoch that have no slot of a front. Key: flow; value: the sum of all CPUs.
 * Written by programs while epoch & 1 selects them, cleared by the agent after it was
 * read. About 152 B an entry, whatever the number of CPUs; the agent sets max_entries
 * before loading.
 */
struct flow_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow_key);
	__type(value, struct flow_counters);
};

struct flow_map flows_0 SEC(".maps");
struct flow_map flows_1 SEC(".maps");

/*
 * Totals of an observation point and direction, cumulative, never zeroed while
 * it lives. Key: TOTAL_PLACE. An array, as its lookup is some instructions where
 * that of a hash is a fifth of a run. Programs add to places that they own; the
 * agent gives a place to its owner before it attaches and frees it after the
 * interface has gone and both sets are drained. 96 KiB per possible CPU.
 */
struct total_array {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TOTAL_PLACES);
	__type(key, __u32);
	__type(value, struct total_place);
};

struct total_array totals_0 SEC(".maps");
struct total_array totals_1 SEC(".maps");

/*
 * Totals of those whose place was taken, to which the same applies. The agent
 * creates the entries too: a program that creates one can lose a packet to
 * another CPU's insert. Not preallocated: about 120 B + 40 B per possible CPU and
 * entry.
 */
struct total_hash {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct total_key);
	__type(value, struct total_counters);
};

struct total_hash displaced_0 SEC(".maps");
struct total_hash displaced_1 SEC(".maps");

/*
 * What GSO packets are on the wire beyond the totals, which is as these but of all CPUs
 * together: no packet but those of GSO adds to it, atomically. 48 KiB a set.
 */
struct more_array {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TOTAL_PLACES);
	__type(key, __u32);
	__type(value, struct more_place);
};

struct more_array more_0 SEC(".maps");
struct more_array more_1 SEC(".maps");

/*
 * Those of points whose place was taken. Not preallocated: about 100 B an entry, and 256 KiB
 * of buckets.
 */
struct more_hash {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct total_key);
	__type(value, struct more_counters);
};

struct more_hash more_displaced_0 SEC(".maps");
struct more_hash more_displaced_1 SEC(".maps");

/*
 * Packets by enum outcome, with room for those to come, as the map outlives its
 * build. Written by programs, cumulative, never cleared.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_OUTCOMES);
	__type(key, enum outcome);
	__type(value, __u64);
} outcomes SEC(".maps");

/*
 * A record without meaning of its own: a set has reached high water. Written by
 * programs at most once per set and epoch, consumed by the agent. 4 KiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wakeups SEC(".maps");

/* Frozen, and alone in its section: the pin means the same to every later build. */
volatile struct epoch_state epoch SEC(".data.epoch");

/*
 * Frozen. When to call the agent early: entries created in each set's map of flows by all
 * CPUs, cleared with the set, and how many of them wake the agent (0: never).
 */
volatile __u64 inserted_0 SEC(".data.pressure");
volatile __u64 inserted_1 SEC(".data.pressure");
volatile __u64 high_water SEC(".data.pressure");

#endif /* PODMETER_MAPS_H */
