//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Tells the bucket of a round-trip time, in microseconds: the first bytes of a packet. */
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../rtt.h"

SEC("tc")
int bucket(struct __sk_buff *skb)
{
	__u32 rtt = 0;

	if (bpf_skb_load_bytes(skb, 0, &rtt, sizeof(rtt)) || !rtt)
		return -1;
	return rtt_bucket(rtt);
}

char _license[] SEC("license") = "Dual BSD/GPL";
