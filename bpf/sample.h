/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* How well TCP connections do: what is taken down of one when something happens to it. */
#ifndef PODMETER_SAMPLE_H
#define PODMETER_SAMPLE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "health.h"
#include "kernel.h"
#include "rtt.h"
#include "share.h"
#include "socket_maps.h"

/*
 * An RTT callback is taken down this long after the last sample of its connection, in
 * ticks. The agent sets it before loading.
 */
const volatile __u32 rtt_interval = 25;

/* What an event adds. */
struct sample {
	__u64 rtt; /* microseconds; 0: none */
	__u64 bytes;
	__u32 segments;
	__u32 opened;
	__u32 failed;
	__u32 share; /* of its connection */
};

static __always_inline void add_rtt(struct tcp_health *health, __u64 rtt)
{
	__u32 bucket = rtt_bucket(rtt);

	barrier_var(bucket); /* or the compiler knows it, and the verifier does not */
	if (bucket >= RTT_BUCKETS)
		return;
	__sync_fetch_and_add(&health->rtt[bucket], 1);
	__sync_fetch_and_add(&health->rtt_sum, rtt);
}

/* An entry that is new; too large for the stack. */
static const struct tcp_health no_health;

/* What is nothing is left out: each addition that others may make at the same time costs. */
static __always_inline void add_sample(struct tcp_health *health, const struct sample *sample,
				       __u32 now)
{
	if (!__sync_fetch_and_add(&health->events, 1))
		health->first = now;
	health->last = now;
	if (sample->rtt)
		add_rtt(health, sample->rtt);
	if (sample->segments)
		__sync_fetch_and_add(&health->segments, sample->segments);
	if (sample->bytes)
		__sync_fetch_and_add(&health->bytes, sample->bytes);
	if (sample->opened)
		__sync_fetch_and_add(&health->opened, 1);
	if (sample->failed)
		__sync_fetch_and_add(&health->failed[FAILED_UNKNOWN], 1);
}

/*
 * Adds to the entry of a connection, or makes it; false if there is no room. A
 * connection's events come one after the other, but its ends may be used again while
 * the last one of the connection before them still runs. What begins or fails has no entry
 * as a rule, and is not looked for before one is made.
 */
static __always_inline bool add_to(void *map, const struct health_key *key,
				   const struct sample *sample, __u32 now, __u32 in)
{
	struct tcp_health *health = NULL;

	if (!sample->opened && !sample->failed)
		health = bpf_map_lookup_elem(map, key);
	if (!health) {
		if (has_health_room(sample->share, in) &&
		    !bpf_map_update_elem(map, key, &no_health, BPF_NOEXIST))
			made_of_health(sample->share, in);
		health = bpf_map_lookup_elem(map, key);
		if (!health)
			return false;
	}
	add_sample(health, sample, now);
	return true;
}

/*
 * The one read of the epoch, and a branch that names the maps: as meter.bpf.c has it. A
 * function of its own, so that there is one in the program.
 */
static __noinline bool add(const struct health_key *key, const struct sample *sample, __u32 now)
{
	__u64 in = epoch.epoch;

	if (in & 1)
		return add_to(&health_1, key, sample, now, in);
	return add_to(&health_0, key, sample, now, in);
}

static __always_inline __u64 retransmitted_bytes(struct tcp_sock *tcp)
{
	if (!tcp || !bpf_core_field_exists(tcp->bytes_retrans))
		return 0;
	return tcp->bytes_retrans;
}

/*
 * Takes down what happened to a connection since the last time. A retransmission that
 * finds no room comes with the next event, if there is one.
 */
static __always_inline void take_down(struct bpf_sock_ops *ops, struct tcp_state *state,
				      struct health_key *key, struct sample *sample)
{
	struct bpf_sock *sk = ops->sk;
	__u32 segments = ops->total_retrans, now = bpf_jiffies64();
	struct tcp_sock *tcp;
	__u64 bytes;

	if (!sk)
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	bytes = retransmitted_bytes(tcp);
	sample->share = state->share;
	key->cgroup = state->cgroup;
	sample->segments = segments - state->segments;
	sample->bytes = bytes - state->bytes;
	if (sample->rtt)
		state->sampled = now;
	if (!add(key, sample, now)) {
		count_outcome(SOCKET_NO_SAMPLE_ROOM);
		return;
	}
	state->segments = segments;
	state->bytes = bytes;
}

/* Also of a loopback address: no packet of that crosses an interface of a pod. */
static __always_inline bool to_itself(const struct socket_key *key)
{
	const __u32 *local = (const __u32 *)key->local, *peer = (const __u32 *)key->peer;

	if (local[2] == bpf_htonl(0xffff) && key->local[12] == 127)
		return true;
	return local[0] == peer[0] && local[1] == peer[1] && local[2] == peer[2] &&
	       local[3] == peer[3];
}

/* NULL if none is kept. */
static __always_inline struct tcp_state *state_of(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	if (!sk)
		return NULL;
	return bpf_sk_storage_get(&tcp_sockets, sk, NULL, 0);
}

/* Keeps a state with a socket that has none; NULL if that cannot be. */
static __always_inline struct tcp_state *keep(struct bpf_sock_ops *ops, struct tcp_state *as)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_state *state;

	if (!sk)
		return NULL;
	state = bpf_sk_storage_get(&tcp_sockets, sk, as, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		count_outcome(SOCKET_NO_STORAGE);
	return state;
}

/*
 * The entry of a connection whose state is not kept, and its state; NULL if its beginning was
 * not seen, or its state is lost.
 */
static __always_inline struct socket_owners *unkept(const struct socket_key *key,
						    struct tcp_state *state)
{
	struct socket_owners *s = bpf_map_lookup_elem(&sockets, key);

	if (!s || !s->open || s->now.kept)
		return NULL;
	state->cgroup = s->now.cgroup;
	state->share = s->now.share;
	state->sampled = s->now.since;
	return s;
}

static __always_inline __u64 smoothed_rtt(struct bpf_sock_ops *ops)
{
	return ops->srtt_us >> 3; /* the kernel keeps it in eighths */
}

/*
 * How much later than it began a connection is established, at most, whose state is not kept:
 * its first RTT was taken down at some time between.
 */
static __always_inline __u32 soon(void)
{
	return rtt_interval / 4;
}

/*
 * Whether an RTT callback is taken down: see rtt_interval. It comes before the kernel
 * has smoothed in what it is about, so that the first has nothing to tell.
 */
static __always_inline bool rtt_is_due(const struct tcp_state *state, __u32 later)
{
	return !state->connecting &&
	       (__u32)bpf_jiffies64() - state->sampled >= rtt_interval + later;
}

/* Before it is established; one that was accepted by TCP Fast Open has its state kept. */
static __always_inline bool is_connecting(__u32 tcp_state)
{
	return tcp_state == BPF_TCP_SYN_SENT || tcp_state == BPF_TCP_SYN_RECV;
}

#endif /* PODMETER_SAMPLE_H */
