/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* The maps of sockets, as maps.h those of flows: who writes, who clears, what it costs. */
#ifndef PODMETER_SOCKET_MAPS_H
#define PODMETER_SOCKET_MAPS_H

#include "flow.h"
#include "health.h"
#include "socket.h"

/*
 * Sockets. Key: addresses and ports; value: their owners. Written by programs; the
 * agent removes entries that have been closed for long enough. Not preallocated:
 * some 250 B an entry that is there. The agent sets max_entries before loading.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct socket_key);
	__type(value, struct socket_owners);
} sockets SEC(".maps");

/*
 * The shares of sockets. Key: number of a share; value: how many entries it has. Programs
 * add to made, the agent writes gone through its own mapping of the memory. 8 B an entry,
 * all of which are there: 512 KiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SHARES);
	__type(key, __u32);
	__type(value, struct share);
} socket_shares SEC(".maps");

/* As what a UDP socket was recorded: kept with it, as its addresses may change. */
struct udp_state {
	struct socket_key key;
	struct socket_owner owner;
	__u32 met; /* the rest is filled in, by one CPU */
	__u32 connected; /* recorded by its peer, as it had no port yet */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_state);
} udp_sockets SEC(".maps");

/*
 * Of a TCP connection: what was taken down of it. Kept from the first event on that the next
 * ones need to know of; before, its entry of sockets tells the same.
 */
struct tcp_state {
	__u64 cgroup;
	__u64 bytes; /* retransmitted, of those that it had */
	__u32 segments; /* the same */
	__u32 sampled; /* when its RTT was, in ticks */
	__u32 connecting; /* and not established yet */
	__u32 share; /* of the ends of an epoch, that it counts towards */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tcp_state);
} tcp_sockets SEC(".maps");

/*
 * The health of the connections of an epoch. Key: an end of a connection; value: what
 * was seen of it. Written by programs while epoch & 1 selects it, cleared by the agent
 * after it was read. Not preallocated: 512 B an entry that is there. The agent sets
 * max_entries before loading.
 */
struct health_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct health_key);
	__type(value, struct tcp_health);
};

struct health_map health_0 SEC(".maps");
struct health_map health_1 SEC(".maps");

/*
 * The shares of the health of an epoch. Key: number of a share; value: the low half of
 * the epoch that it was last written in, and below it how many ends were new to that.
 * Written by programs alone, the first of an epoch begins from 0. 8 B an entry, all of
 * which are there: 512 KiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SHARES);
	__type(key, __u32);
	__type(value, __u64);
} health_shares SEC(".maps");

/* The meter's (maps.h): the agent loads these programs with its map. */
volatile struct epoch_state epoch SEC(".data.epoch");

/* Sockets by enum socket_outcome. Written by programs, cumulative, never cleared. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SOCKET_OUTCOMES);
	__type(key, enum socket_outcome);
	__type(value, __u64);
} socket_outcomes SEC(".maps");

static __always_inline void count_outcome(enum socket_outcome outcome)
{
	__u64 *sockets = bpf_map_lookup_elem(&socket_outcomes, &outcome);

	if (sockets)
		(*sockets)++;
}

#endif /* PODMETER_SOCKET_MAPS_H */
