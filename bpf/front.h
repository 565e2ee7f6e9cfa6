/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * The front: a two-way LRU table of each CPU's own, in which it counts the flows that it
 * sees most without a call into the kernel. What finds both of its slots taken pushes the
 * one out that was used longest ago, into the set's map of flows, or goes there itself if
 * both have been used lately.
 *
 * Slots are written without atomics: TC and XDP run with bottom halves off, and not within
 * each other.
 */
#ifndef PODMETER_FRONT_H
#define PODMETER_FRONT_H

#include "flow.h"
#include "maps.h"

/*
 * The fronts of all CPUs. Key: CPU * front_buckets + bucket. Written by programs while
 * epoch & 1 selects them; never cleared, as each slot is of one epoch. 176 B a bucket and
 * possible CPU; the agent sets max_entries before loading and reads it as memory.
 */
struct front_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 512 * 64);
	__type(key, __u32);
	__type(value, struct front_bucket);
};

struct front_map front_0 SEC(".maps");
struct front_map front_1 SEC(".maps");

/* Buckets of each CPU. The agent sets it before loading. */
volatile const __u32 front_buckets = 512;

/*
 * A slot that was used less than so many ticks ago, a quarter of a second at 250 Hz, is not
 * pushed out: where more flows are busy than there are slots, each packet would push one out.
 */
#define STAY 64

/* A key as numbers, the last of which tag fills up. */
#define WORD(key, i) (((const __u64 *)(key))[i])
#define LAST_WORD(key, tag) (((const __u32 *)(key))[10] | (__u64)(tag) << 32)

/* A word of it whose last bytes, in which most keys differ, are in the lower half as well. */
#define FOLD(key, i) (WORD(key, i) ^ WORD(key, i) >> 32)

/* Odd, and without a pattern. */
#define FACTOR(i) (0x9e3779b97f4a7c15ULL * (2 * (i) + 1) ^ 0xc2b2ae3d27d4eb4eULL)

/*
 * The bucket of a flow on this CPU, by a multilinear hash that is mixed once more. Without folds
 * flows that differ in the last bytes of both addresses had 256 buckets for all of them, and
 * without the mix three and more of ports that follow each other met in one.
 */
static __always_inline struct front_bucket *find_bucket(void *front, const struct flow_key *key)
{
	__u64 hash = FOLD(key, 0) * FACTOR(0) + FOLD(key, 1) * FACTOR(1) +
		     FOLD(key, 2) * FACTOR(2) + FOLD(key, 3) * FACTOR(3) + FOLD(key, 4) * FACTOR(4);
	__u32 index;

	hash = (hash ^ hash >> 32) * FACTOR(5);
	index = bpf_get_smp_processor_id() * front_buckets + ((hash >> 32) * front_buckets >> 32);

	return bpf_map_lookup_elem(front, &index);
}

static __always_inline bool is_in(const struct front_slot *slot, const struct flow_key *key,
				  __u32 tag)
{
	return !((WORD(slot, 0) ^ WORD(key, 0)) | (WORD(slot, 1) ^ WORD(key, 1)) |
		 (WORD(slot, 2) ^ WORD(key, 2)) | (WORD(slot, 3) ^ WORD(key, 3)) |
		 (WORD(slot, 4) ^ WORD(key, 4)) | (WORD(slot, 5) ^ LAST_WORD(key, tag)));
}

/* Counts a packet of a flow that has a slot. */
static __always_inline bool hit(struct front_bucket *bucket, const struct flow_key *key,
				__u64 bytes, __u32 tag)
{
	struct front_slot *slot;

	if (!bucket)
		return false;
	slot = &bucket->slots[0];
	if (!is_in(slot, key, tag)) {
		slot = &bucket->slots[1];
		if (!is_in(slot, key, tag))
			return false;
	}
	slot->counters.bytes += bytes;
	slot->counters.packets += 1;
	slot->counters.last = clock();
	return true;
}

/* The slot that a flow may have: a free one, else the one that was used longest ago. */
static __always_inline struct front_slot *choose(struct front_bucket *bucket, __u32 tag)
{
	struct front_slot *a = &bucket->slots[0], *b = &bucket->slots[1];

	if (a->tag != tag)
		return a;
	if (b->tag != tag)
		return b;
	return (__s32)(a->counters.last - b->counters.last) < 0 ? a : b;
}

/*
 * Counts a packet of a flow that has no slot. Of entries that the agent has to find there
 * is one more, unless what is pushed out has one in the map already. The kernel's functions
 * take keys and values from the stack only, before Linux 6.2.
 */
static __always_inline void take(struct front_slot *slot, void *totals, void *displaced,
				 void *flows, struct total_counters *total, volatile __u64 *in_set,
				 const struct flow_key *key, const struct flow_counters *one,
				 __u32 tag)
{
	struct flow_counters counters;
	struct total_counters *payer;
	struct flow_key victim;

	if (slot->tag == tag) {
		if (one->last - slot->counters.last < STAY) {
			store(flows, total, in_set, key, one);
			return;
		}
		victim = slot->key;
		counters = slot->counters;
		payer = find_totals(totals, displaced, &victim);
		if (!payer) { /* cannot be: it has counted in this epoch */
			store(flows, total, in_set, key, one);
			return;
		}
		payer->inserted--;
		store(flows, payer, in_set, &victim, &counters);
	}
	total->inserted++;
	slot->key = *key;
	slot->tag = tag;
	slot->counters = *one;
}

/*
 * Counts a packet of a flow that has no slot. A function of its own, which the verifier
 * looks at once, and not at each end of parsing.
 */
#define MISS(set)                                                                                  \
	__noinline int miss_##set(struct front_bucket *bucket, const struct flow_key *given,       \
				  __u64 bytes, __u32 tag)                                          \
	{                                                                                          \
		struct flow_counters one = { .bytes = bytes, .packets = 1 };                       \
		struct total_counters *total;                                                      \
		struct flow_key key;                                                               \
                                                                                                   \
		if (!given)                                                                        \
			return 0;                                                                  \
		key = *given;                                                                      \
		total = find_totals(&totals_##set, &displaced_##set, &key);                        \
		if (!total)                                                                        \
			return 0;                                                                  \
		one.first = one.last = clock();                                                    \
		if (bucket)                                                                        \
			take(choose(bucket, tag), &totals_##set, &displaced_##set, &flows_##set,   \
			     total, &inserted_##set, &key, &one, tag);                             \
		else                                                                               \
			store(&flows_##set, total, &inserted_##set, &key, &one);                   \
		return 0;                                                                          \
	}

MISS(0)
MISS(1)

#endif /* PODMETER_FRONT_H */
