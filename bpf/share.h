/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * Fair shares of the tables: a new entry has room while its share has fewer than a floor,
 * or all together have fewer than what is common. The floors of many shares and what is
 * common fit into the table, so that no pod takes another's place.
 */
#ifndef PODMETER_SHARE_H
#define PODMETER_SHARE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"
#include "socket_maps.h"

#define NO_LIMIT 0x7fffffff

/* The agent sets them before loading, by the size of the tables. */
const volatile __s32 sockets_floor = 0;
const volatile __s32 sockets_common = NO_LIMIT;
const volatile __s32 health_floor = 0;
const volatile __s32 health_common = NO_LIMIT;

/*
 * The share of a cgroup is that of the one above it: of a container's its pod's, of a
 * service's its slice's. A pod makes as many network namespaces as it likes, and has many
 * containers, but one cgroup above them. The kernel numbers cgroups, and their state for
 * each controller, one after the other: two that live share a number by chance alone.
 */
static __always_inline __u32 share_of(struct cgroup *cgroup)
{
	__u64 number = cgroup->self.parent->serial_nr;

	return 1 + number % SHARE_PODS;
}

static __always_inline struct cgroup *cgroup_of(struct tcp_sock *tcp)
{
	return tcp->inet_conn.icsk_inet.sk.sk_cgrp_data.cgroup;
}

static __always_inline struct share *share_at(__u32 share)
{
	return bpf_map_lookup_elem(&socket_shares, &share);
}

/* Below 0 for a moment, when the agent has counted what changed meanwhile. */
static __always_inline __s32 held(const struct share *share)
{
	return share->made - share->gone;
}

/* Programs that run at the same time may each find the last place. */
static __noinline bool has_room(__u32 share)
{
	struct share *one = share_at(share), *all = share_at(SHARE_ALL);

	return one && all && (held(one) < sockets_floor || held(all) < sockets_common);
}

static __always_inline void add_to_share(__u32 share, __u32 n)
{
	struct share *one = share_at(share);

	if (one)
		__sync_fetch_and_add(&one->made, n);
}

/* An entry was made. */
static __noinline void made_of(__u32 share)
{
	add_to_share(share, 1);
	add_to_share(SHARE_ALL, 1);
}

/* An entry was handed over. */
static __noinline void moved(__u32 from, __u32 to)
{
	add_to_share(from, -1);
	add_to_share(to, 1);
}

/* --- of the health of an epoch --- */

static __always_inline __u64 *health_share_at(__u32 share)
{
	return bpf_map_lookup_elem(&health_shares, &share);
}

static __always_inline __s32 held_in(__u64 *share, __u32 epoch)
{
	__u64 value = *(volatile __u64 *)share;

	return (__u32)(value >> 32) == epoch ? (__u32)value : 0;
}

static __noinline bool has_health_room(__u32 share, __u32 epoch)
{
	__u64 *one = health_share_at(share), *all = health_share_at(SHARE_ALL);

	return one && all &&
	       (held_in(one, epoch) < health_floor || held_in(all, epoch) < health_common);
}

static __always_inline void add_to_health_share(__u32 share, __u32 epoch)
{
	__u64 *one = health_share_at(share), value;
	__u32 of;

	if (!one)
		return;
	value = *(volatile __u64 *)one;
	of = value >> 32;
	if (of - epoch == 1)
		return; /* this run is one of the epoch before, whose set gets no more */
	if (of != epoch && __sync_val_compare_and_swap(one, value, (__u64)epoch << 32 | 1) == value)
		return;
	__sync_fetch_and_add(one, 1);
}

/* An end was new to an epoch. */
static __noinline void made_of_health(__u32 share, __u32 epoch)
{
	add_to_health_share(share, epoch);
	add_to_health_share(SHARE_ALL, epoch);
}

#endif /* PODMETER_SHARE_H */
