//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * The meter: one TC program for each direction of a pod's host-side veth. It
 * counts the packet once and has no say in what becomes of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "maps.h"
#include "parse.h"

#define CLOCK_SHIFT 20 /* ns to units of 1.048576 ms */

/* The kernel's tick: 5 ns to read, where the exact clock takes 35. */
static __always_inline __u32 clock(void)
{
	return bpf_ktime_get_coarse_ns() >> CLOCK_SHIFT;
}

static __always_inline void count_outcome(enum outcome outcome)
{
	__u64 *packets = bpf_map_lookup_elem(&outcomes, &outcome);

	if (packets)
		(*packets)++;
}

static __always_inline void add(struct flow_counters *flow, __u64 bytes, __u32 now)
{
	if (!flow->packets) /* another CPU created the entry: this slot is fresh */
		flow->first = now;
	flow->bytes += bytes;
	flow->packets++;
	flow->last = now;
}

/* A flow entry was created: counted, and the agent called when the set fills up. */
static __always_inline void inserted(struct total_counters *total, volatile __u64 *in_set)
{
	void *call;

	total->inserted++;
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
	total->unplaced_bytes += bytes;
	total->unplaced_packets++;
}

static __always_inline enum outcome count(void *totals, void *flows, volatile __u64 *in_set,
					  const struct flow_key *key, __u64 bytes,
					  enum outcome parsed)
{
	struct total_key point = { .point = key->point, .direction = key->direction };
	struct total_counters *total = bpf_map_lookup_elem(totals, &point);
	struct flow_counters *flow;
	__u32 now;

	if (!total)
		return OUTCOME_NO_POINT;
	total->bytes += bytes;
	total->packets++;
	now = clock();
	flow = bpf_map_lookup_elem(flows, key);
	if (flow)
		add(flow, bytes, now);
	else
		insert(flows, total, in_set, key, bytes, now);
	return parsed;
}

static __always_inline int meter(struct __sk_buff *skb, enum direction direction)
{
	struct flow_key key = { .point = skb->ifindex, .direction = direction };
	struct packet packet = { .skb = skb, .key = &key };
	enum outcome outcome = parse_packet(&packet);

	/*
	 * The one read of the epoch: the whole run belongs to its set. A branch
	 * with the maps named in each arm, as a map pointer chosen at run time
	 * would turn every map operation into an indirect call.
	 */
	if (epoch.epoch & 1)
		outcome = count(&totals_1, &flows_1, &inserted_1, &key, skb->len, outcome);
	else
		outcome = count(&totals_0, &flows_0, &inserted_0, &key, skb->len, outcome);
	count_outcome(outcome);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int podmeter_transmit(struct __sk_buff *skb)
{
	return meter(skb, DIRECTION_TRANSMIT);
}

SEC("tc")
int podmeter_receive(struct __sk_buff *skb)
{
	return meter(skb, DIRECTION_RECEIVE);
}

char _license[] SEC("license") = "Dual BSD/GPL";
