/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Counting a packet that was parsed: into its point's totals and its flow. */
#ifndef PODMETER_COUNT_H
#define PODMETER_COUNT_H

#include "flow.h"
#include "maps.h"
#include "parse.h"

/*
 * Adds to this CPU's part of a value. Where TC and XDP run nothing else that counts
 * can come in between; programs of cgroups can be interrupted by each other.
 */
#ifdef INTERRUPTIBLE
#define ADD(sum, n) __sync_fetch_and_add(&(sum), n)
#else
#define ADD(sum, n) ((sum) += (n))
#endif

#define MOVES 8 /* tries to move a stamp: each that fails is another CPU's success */

/* In ticks. The verifier makes it one load, where a clock in ns is a call and more. */
static __always_inline __u32 clock(void)
{
	return bpf_jiffies64();
}

static __always_inline void count_outcome(enum outcome outcome)
{
	__u64 *packets = bpf_map_lookup_elem(&outcomes, &outcome);

	if (packets)
		ADD(*packets, 1);
}

/* A flow entry was created: counted, and the agent called when the set fills up. */
static __always_inline void inserted(struct total_counters *total, volatile __u64 *in_set)
{
	void *call;

	ADD(total->inserted, 1);
	if (__sync_fetch_and_add(in_set, 1) + 1 != high_water)
		return;
	call = bpf_ringbuf_reserve(&wakeups, sizeof(__u64), 0);
	if (call)
		bpf_ringbuf_submit(call, BPF_RB_FORCE_WAKEUP);
}

/* Moves a stamp, which other CPUs move too, back or forward to another. */
static __always_inline void move(__u32 *stamp, __u32 to, bool forward)
{
	__u32 seen = *(volatile __u32 *)stamp, was;

	for (int i = 0; i < MOVES; i++) {
		if (forward ? (__s32)(to - seen) <= 0 : (__s32)(seen - to) <= 0)
			return;
		was = __sync_val_compare_and_swap(stamp, seen, to);
		if (was == seen)
			return;
		seen = was;
	}
}

/* Adds to a flow's entry, which all CPUs share. */
static __always_inline void merge(struct flow_counters *flow, const struct flow_counters *more)
{
	__sync_fetch_and_add(&flow->bytes, more->bytes);
	__sync_fetch_and_add(&flow->packets, more->packets);
	move(&flow->first, more->first, false);
	move(&flow->last, more->last, true);
}

/*
 * Adds to a flow's entry, or makes one. Where another CPU was quicker its entry is used;
 * what then still has no place is named as such.
 */
static __always_inline void store(void *flows, struct total_counters *total, volatile __u64 *in_set,
				  const struct flow_key *key, const struct flow_counters *more)
{
	struct flow_counters *flow = bpf_map_lookup_elem(flows, key);

	if (!flow) {
		if (!bpf_map_update_elem(flows, key, more, BPF_NOEXIST)) {
			inserted(total, in_set);
			return;
		}
		flow = bpf_map_lookup_elem(flows, key);
	}
	if (flow) {
		merge(flow, more);
		return;
	}
	ADD(total->unplaced_bytes, more->bytes);
	ADD(total->unplaced_packets, more->packets);
}

/*
 * The totals of a point and direction, NULL if the agent made none. The place's
 * lowest bit is the direction, so that the point alone is compared.
 */
static __always_inline struct total_counters *find_totals(void *totals, void *displaced,
							  const struct flow_key *key)
{
	__u32 index = TOTAL_PLACE(key->point, key->direction);
	struct total_place *place = bpf_map_lookup_elem(totals, &index);
	struct total_key point = { .point = key->point, .direction = key->direction };

	if (place && place->owner.point == key->point)
		return &place->counters;
	return bpf_map_lookup_elem(displaced, &point);
}

/*
 * Counts a packet into a flow of a set. What can be interrupted by the programs of TC goes
 * past the front: these would find a slot half written.
 */
#ifdef INTERRUPTIBLE
#define COUNT_FLOW(set, total, key, bytes, number)                                                 \
	({                                                                                         \
		struct flow_counters one = { .bytes = bytes, .packets = 1 };                       \
                                                                                                   \
		one.first = one.last = clock();                                                    \
		store(&flows_##set, total, &inserted_##set, key, &one);                            \
	})
#else
#include "front.h"
#define COUNT_FLOW(set, total, key, bytes, number)                                                 \
	({                                                                                         \
		struct front_bucket *bucket = find_bucket(&front_##set, key);                      \
                                                                                                   \
		if (!hit(bucket, key, bytes, FRONT_TAG(number)))                                   \
			miss_##set(bucket, key, bytes, FRONT_TAG(number));                         \
	})
#endif

#define COUNT(set, key, bytes, number, outcome)                                                    \
	({                                                                                         \
		struct total_counters *total = find_totals(&totals_##set, &displaced_##set, key);  \
                                                                                                   \
		if (total) {                                                                       \
			ADD(total->bytes, bytes);                                                  \
			ADD(total->packets, 1);                                                    \
			COUNT_FLOW(set, total, key, bytes, number);                                \
		}                                                                                  \
		total ? outcome : OUTCOME_NO_POINT;                                                \
	})

/* Counts a packet whose parsing has ended so. */
static __always_inline void meter(struct packet *packet, enum outcome outcome)
{
	const struct flow_key *key = packet->key;
	__u64 bytes = length(packet);
	/*
	 * The one read of the epoch: the whole run belongs to its set. A branch
	 * with the maps named in each arm, as a map pointer chosen at run time
	 * would turn every map operation into an indirect call.
	 */
	__u64 number = epoch.epoch;

	if (number & 1)
		outcome = COUNT(1, key, bytes, number, outcome);
	else
		outcome = COUNT(0, key, bytes, number, outcome);
	count_outcome(outcome);
}

/*
 * Counts a packet that is read from the network header on, which is what its first byte is of
 * or, from_network, what the kernel says.
 */
static __always_inline void meter_network(struct __sk_buff *skb, __u32 point,
					  enum direction direction, bool from_network)
{
	struct flow_key key = { .point = point,
				.direction = direction,
				.ethertype = skb->protocol };
	struct packet packet = { .skb = skb, .key = &key, .from_network = from_network };

	meter(&packet, parse_network(&packet));
}

#endif /* PODMETER_COUNT_H */
