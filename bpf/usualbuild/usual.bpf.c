//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * A flow meter as they are usually made: one per-CPU LRU hash of flows, one look-up and one
 * clock in ns a packet, nothing else.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../parse.h"

struct usual_counters {
	__u64 bytes;
	__u64 packets;
	__u64 first; /* in ns */
	__u64 last; /* in ns */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow_key);
	__type(value, struct usual_counters);
} usual_flows SEC(".maps");

SEC("tc")
int podmeter_usual(struct __sk_buff *skb)
{
	struct flow_key key = { .point = skb->ifindex };
	struct packet packet = { .skb = skb, .key = &key };
	struct usual_counters fresh = { .packets = 1 }, *flow;
	__u64 now;

	if (parse_frame(&packet) != OUTCOME_FULL)
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_ns();
	flow = bpf_map_lookup_elem(&usual_flows, &key);
	if (flow) {
		flow->bytes += skb->len;
		flow->packets += 1;
		flow->last = now;
		return TC_ACT_UNSPEC;
	}
	fresh.bytes = skb->len;
	fresh.first = fresh.last = now;
	bpf_map_update_elem(&usual_flows, &key, &fresh, BPF_ANY);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
