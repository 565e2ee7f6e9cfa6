//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * The meter: one TC program for each direction of a pod's host-side veth or of an
 * uplink, and one for XDP on an uplink. It counts the packet once and has no say in
 * what becomes of it. Another program, never attached, reads their clock.
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

/* In ticks. The verifier makes it one load, where a clock in ns is a call and more. */
static __always_inline __u32 clock(void)
{
	return bpf_jiffies64();
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

static __always_inline void meter(struct packet *packet)
{
	enum outcome outcome = parse_packet(packet);

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

static __always_inline int meter_skb(struct __sk_buff *skb, enum direction direction)
{
	struct flow_key key = { .point = skb->ifindex, .direction = direction };
	struct packet packet = { .skb = skb, .key = &key };

	meter(&packet);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int podmeter_transmit(struct __sk_buff *skb)
{
	return meter_skb(skb, DIRECTION_TRANSMIT);
}

SEC("tc")
int podmeter_receive(struct __sk_buff *skb)
{
	return meter_skb(skb, DIRECTION_RECEIVE);
}

/*
 * What an uplink receives, as it comes from the wire. Loaded only where it is
 * asked for: its helpers came with Linux 5.18.
 */
SEC("xdp.frags")
int podmeter_xdp(struct xdp_md *xdp)
{
	struct flow_key key = { .point = xdp->ingress_ifindex, .direction = DIRECTION_RECEIVE };
	struct packet packet = { .xdp = xdp, .key = &key };

	meter(&packet);
	return XDP_PASS;
}

/* Tells the agent, which runs it, what the time is on the clock of the stamps. */
SEC("tc")
int podmeter_clock(struct __sk_buff *skb)
{
	(void)skb;
	return clock();
}

char _license[] SEC("license") = "Dual BSD/GPL";
