/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* The buckets of round-trip times. */
#ifndef PODMETER_RTT_H
#define PODMETER_RTT_H

#include <bpf/bpf_helpers.h>

#include "health.h"

/* The highest bit that is set; v is not 0. */
static __always_inline __u32 log2_of(__u64 v)
{
	__u32 bit = 0;

	if (v >> 32)
		bit += 32;
	if (v >> bit >> 16)
		bit += 16;
	if (v >> bit >> 8)
		bit += 8;
	if (v >> bit >> 4)
		bit += 4;
	if (v >> bit >> 2)
		bit += 2;
	if (v >> bit >> 1)
		bit += 1;
	return bit;
}

/* See RTT_BUCKETS. An RTT is not 0, and less than 2^32 us. */
static __always_inline __u32 rtt_bucket(__u64 rtt)
{
	/* In 2^-32 s, and less by a bit, as the upper end of a bucket belongs to it. */
	__u64 parts = ((rtt << 32) - 1) / 1000000;
	__u32 octave, bucket;

	if (!(parts >> (32 - RTT_FIRST)))
		return 0;
	octave = log2_of(parts);
	bucket = 1 + 2 * (octave - (32 - RTT_FIRST));
	if (parts << (63 - octave) >> 32 >= 3037000500) /* 2^31 * sqrt(2) */
		bucket++;
	return bucket < RTT_BUCKETS ? bucket : RTT_BUCKETS - 1;
}

#endif /* PODMETER_RTT_H */
