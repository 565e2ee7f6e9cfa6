/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * The ABI of the health of TCP connections. As flow.h: no packed structs, no
 * bitfields, no implicit padding.
 */
#ifndef PODMETER_HEALTH_H
#define PODMETER_HEALTH_H

#include <linux/types.h>

#include "socket.h"

/* Of health_key, tcp_health and tcp_state: raise it when they change. Pins have it in their names.
 */
#define HEALTH_LAYOUT 2

/*
 * RTTs by size, two buckets an octave as a native histogram of schema 1 has them. The
 * first has those up to 2^-RTT_FIRST s, each further one ends at sqrt(2) times the one
 * before it, with that value; the last, which ends at 64 s, has all that are longer too.
 */
#define RTT_BUCKETS 47
#define RTT_FIRST 17

/*
 * Why a connection ended before it was established, of those that this end began. As yet
 * every one is FAILED_UNKNOWN.
 */
enum failure {
	FAILED_UNKNOWN = 0,
	FAILURES, /* new ones before this */
};

#define MAX_FAILURES 8

/* 56 bytes: one end of a connection. */
struct health_key {
	struct socket_key socket; /* both ends */
	__u64 cgroup; /* id in the v2 hierarchy; 0: unknown */
};

/*
 * What was seen of it in an epoch. Stamps are ticks, as those of flows. 280 bytes, which
 * with its key fit into what the kernel takes for an entry, 512.
 */
struct tcp_health {
	__u64 rtt_sum; /* of the smoothed round-trip times, in microseconds */
	__u64 bytes; /* retransmitted payload */
	__u32 segments; /* retransmitted */
	__u32 opened; /* connections that were established */
	__u32 failed[MAX_FAILURES]; /* connections by enum failure */
	__u32 resets_sent; /* this and the next four: 0 as yet */
	__u32 resets_received;
	__u32 syn_retransmits; /* of segments */
	__u32 zero_windows; /* that the peer announced */
	__u32 out_of_order; /* segments received */
	__u32 events; /* that added to this */
	__u32 first; /* of them; meaningless while there are none, as is last */
	__u32 last;
	__u32 rtt[RTT_BUCKETS];
	__u32 pad;
};

#endif /* PODMETER_HEALTH_H */
