//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * The meter: one TC program for each direction of a pod's host-side veth or of an
 * uplink, one more for either where a device has no Ethernet header, and one for XDP on an uplink.
 * It counts the packet once and has no say in what becomes of it. Another program, never attached,
 * reads their clock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "count.h"
#include "parse.h"

static __always_inline int meter_skb(struct __sk_buff *skb, enum direction direction)
{
	struct flow_key key = { .point = skb->ifindex, .direction = direction };
	struct packet packet = { .skb = skb, .key = &key };

	meter(&packet, parse_frame(&packet));
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
 * The same of a device without an Ethernet header, as a tunnel's: what comes before the network
 * header, if anything, is of no known form.
 */
static __always_inline int meter_l3(struct __sk_buff *skb, enum direction direction)
{
	meter_network(skb, skb->ifindex, direction, true);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int podmeter_l3_transmit(struct __sk_buff *skb)
{
	return meter_l3(skb, DIRECTION_TRANSMIT);
}

SEC("tc")
int podmeter_l3_receive(struct __sk_buff *skb)
{
	return meter_l3(skb, DIRECTION_RECEIVE);
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

	meter(&packet, parse_frame(&packet));
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
