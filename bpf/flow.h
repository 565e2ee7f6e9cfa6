/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * The ABI: what the programs and the agent share. No packed structs, no
 * bitfields, no implicit padding; bpf2go makes the Go types from it and a test
 * checks every offset in the object's BTF.
 */
#ifndef PODMETER_FLOW_H
#define PODMETER_FLOW_H

#include <linux/types.h>

/* As seen from the pod: its transmit is TC ingress of the host-side veth. */
enum direction {
	DIRECTION_TRANSMIT = 0,
	DIRECTION_RECEIVE = 1,
};

/* How parsing a packet ended. The names of the metric's label follow these. */
enum outcome {
	OUTCOME_FULL = 0, /* all of the 5-tuple, first fragments included */
	OUTCOME_LATER_FRAGMENT, /* addresses and protocol, the ports are in another packet */
	OUTCOME_NO_PORTS, /* addresses and protocol, which has no ports that we know */
	OUTCOME_NOT_IP, /* EtherType */
	OUTCOME_TRUNCATED_LINK, /* nothing: ends before the EtherType */
	OUTCOME_TRUNCATED_VLAN, /* the tag's EtherType: ends within a VLAN tag */
	OUTCOME_TRUNCATED_NETWORK, /* EtherType: ends within the fixed IP header */
	OUTCOME_TRUNCATED_EXTENSION, /* addresses, the extension header's number */
	OUTCOME_TRUNCATED_TRANSPORT, /* addresses and protocol: ends before the ports */
	OUTCOME_MALFORMED, /* EtherType: IP version or IPv4 header length is impossible */
	OUTCOME_VLAN_LIMIT, /* the EtherType of the tag after MAX_VLAN_TAGS */
	OUTCOME_EXTENSION_LIMIT, /* addresses, the number after MAX_EXTENSIONS headers */
	OUTCOME_NO_POINT, /* the interface has no totals entry: nothing else is counted */
	OUTCOMES, /* new ones before this, so that the others keep their numbers */
};

#define MAX_OUTCOMES 32

/* Points from here up are no interfaces. */
#define FIRST_HOST_POINT 0x80000000

/* Of flow_key and flow_counters: raise it when they change. Pins have it in their names. */
#define FLOW_LAYOUT 2

/* 44 bytes. What a packet does not carry is zero. */
struct flow_key {
	__u8 source[16]; /* IPv6, or IPv4 mapped into it (RFC 4291, 2.5.5.2) */
	__u8 destination[16];
	__u32 point; /* ifindex; from FIRST_HOST_POINT up points that are no interface */
	__be16 source_port;
	__be16 destination_port; /* ICMP: type and code */
	__be16 ethertype; /* behind all VLAN tags that were read */
	__u8 protocol; /* behind all extension headers that were read */
	__u8 direction; /* enum direction */
};

/*
 * Stamps are kernel ticks: the low 32 bits of jiffies. podmeter_clock reads the
 * same clock for the agent, and a tick is as long as clock_getres(2) of
 * CLOCK_MONOTONIC_COARSE says.
 */
struct flow_counters {
	__u64 bytes;
	__u64 packets;
	__u64 more_bytes; /* on the wire beyond bytes: headers of a GSO packet's further segments; 0
			     as yet */
	__u64 more_packets; /* a GSO packet's further segments; 0 as yet */
	__u32 first; /* clock() of the first packet, in ticks */
	__u32 last; /* clock() of the last packet, in ticks */
#ifdef MORE_FLOW_COUNTERS /* a build that tests upgrade to */
	MORE_FLOW_COUNTERS
#endif
};

/*
 * A flow on one CPU, where that CPU counts without a call. Free unless tag is FRONT_TAG of
 * the epoch. 88 bytes.
 */
struct front_slot {
	struct flow_key key;
	__u32 tag;
	struct flow_counters counters;
};

/* The slots in which a flow can be. */
#define FRONT_WAYS 2
struct front_bucket {
	struct front_slot slots[FRONT_WAYS];
};

/* What slots of an epoch carry: not 0, as fresh memory does, and not that of another of the set. */
#define FRONT_TAG(epoch) ((__u32)(epoch) | 1)

struct total_key {
	__u32 point;
	enum direction direction;
};

/* Cumulative. Frozen, as are total_key and total_place: every later build reads these. */
struct total_counters {
	__u64 bytes;
	__u64 packets;
	__u64
	    inserted; /* flow entries to be found: slots taken and not given up, entries created */
	__u64 unplaced_bytes; /* of packets whose flow could not be inserted */
	__u64 unplaced_packets;
};

/*
 * One place of totals. The agent writes all of it, for every CPU, before the
 * owner's programs run and after they are gone; the owner last, so that nobody
 * counts into what is still to be zeroed.
 */
struct total_place {
	struct total_counters counters;
	struct total_key owner; /* point 0: free */
};

/* Each point and direction has one place, which it shares with every 1024th point. */
#define TOTAL_PLACES 2048
#define TOTAL_PLACE(point, direction) (((point) << 1 | (direction)) % TOTAL_PLACES)

/*
 * What a point's packets are on the wire beyond what its totals have: headers of a GSO
 * packet's further segments, and these. Frozen, as is more_place, and 0 as yet.
 */
struct more_counters {
	__u64 bytes;
	__u64 packets;
};

/* One place of them, as total_place; all CPUs share it. */
struct more_place {
	struct more_counters counters;
	struct total_key owner; /* point 0: free */
};

/* Which set is written, and whose sets these are. The agent alone writes it. */
struct epoch_state {
	__u64 epoch; /* set epoch & 1 is written */
	__u64 set_id; /* random, made with the maps */
};

#endif /* PODMETER_FLOW_H */
