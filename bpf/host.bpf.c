//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * The meter of a pod that has no interface of its own, as it is in the node's
 * network: two programs on its cgroup, which see what its sockets send and receive,
 * from the IP header on. They count into the maps of the meter. Loaded once for each
 * such pod.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* A socket sends with interrupts and bottom halves on. */
#define INTERRUPTIBLE
#include "count.h"
#include "parse.h"

#define ALLOW 1 /* what programs of cgroups return: go on */

/* The agent sets it before loading: FIRST_HOST_POINT or above. */
volatile const __u32 host_point;

static __always_inline int meter_socket(struct __sk_buff *skb, enum direction direction)
{
	meter_network(skb, host_point, direction, false);
	return ALLOW;
}

SEC("cgroup_skb/egress")
int podmeter_host_transmit(struct __sk_buff *skb)
{
	return meter_socket(skb, DIRECTION_TRANSMIT);
}

SEC("cgroup_skb/ingress")
int podmeter_host_receive(struct __sk_buff *skb)
{
	return meter_socket(skb, DIRECTION_RECEIVE);
}

char _license[] SEC("license") = "Dual BSD/GPL";
