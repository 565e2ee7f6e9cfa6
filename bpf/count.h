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

static __always_inline void add(struct flow_counters *flow, __u64 bytes, __u32 now)
{
	if (!flow->packets) /* another CPU created the entry: this slot is fresh */
		flow->first = now;
	ADD(flow->bytes, bytes);
	ADD(flow->packets, 1);
	flow->last = now;
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

/*
 * The first packet of a flow on any CPU. Where another CPU was quicker its
 * entry is used; what then still has no place is named as such.
 */
static __always_inline void insert(void *flows, struct total_counters *total,
				   volatile __u64 *in_set, const struct flow_key *key, __u64 bytes,
				   __u32 now)
{
	struct flow_counters fresh = { .bytes = bytes, .packets = 1, .first = now, .last = now };
	struct flow_counters *flow;

	if (!bpf_map_update_elem(flows, key, &fresh, BPF_NOEXIST)) {
		inserted(total, in_set);
		return;
	}
	flow = bpf_map_lookup_elem(flows, key);
	if (flow) {
		add(flow, bytes, now);
		return;
	}
	ADD(total->unplaced_bytes, bytes);
	ADD(total->unplaced_packets, 1);
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

static __always_inline enum outcome count(void *totals, void *displaced, void *flows,
					  volatile __u64 *in_set, const struct flow_key *key,
					  __u64 bytes, enum outcome parsed)
{
	struct total_counters *total = find_totals(totals, displaced, key);
	struct flow_counters *flow;
	__u32 now;

	if (!total)
		return OUTCOME_NO_POINT;
	ADD(total->bytes, bytes);
	ADD(total->packets, 1);
	now = clock();
	flow = bpf_map_lookup_elem(flows, key);
	if (flow)
		add(flow, bytes, now);
	else
		insert(flows, total, in_set, key, bytes, now);
	return parsed;
}

/* Counts a packet whose parsing has ended so. */
static __always_inline void meter(struct packet *packet, enum outcome outcome)
{
	/*
	 * The one read of the epoch: the whole run belongs to its set. A branch
	 * with the maps named in each arm, as a map pointer chosen at run time
	 * would turn every map operation into an indirect call.
	 */
	if (epoch.epoch & 1)
		outcome = count(&totals_1, &displaced_1, &flows_1, &inserted_1, packet->key,
				length(packet), outcome);
	else
		outcome = count(&totals_0, &displaced_0, &flows_0, &inserted_0, packet->key,
				length(packet), outcome);
	count_outcome(outcome);
}

#endif /* PODMETER_COUNT_H */
