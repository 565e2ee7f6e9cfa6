/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * The ABI of sockets: who owns the local end of a flow. As flow.h: no packed
 * structs, no bitfields, no implicit padding.
 */
#ifndef PODMETER_SOCKET_H
#define PODMETER_SOCKET_H

#include <linux/bpf.h>
#include <linux/types.h>

/* Of socket_key and socket_owners: raise it when they change. Pins have it in their names. */
#define SOCKET_LAYOUT 2

#define COMMAND_LENGTH 16 /* TASK_COMM_LEN */

/*
 * 48 bytes. Of a TCP connection all of it; of a listening TCP socket and of a UDP
 * socket the peer is zero; of a UDP socket that was connected before it was bound the
 * local side, as long as that is not known. A socket bound to any address has ::, or
 * ::ffff:0.0.0.0 if it is one of IPv4.
 */
struct socket_key {
	__u64 netns; /* cookie of the network namespace */
	__u8 local[16]; /* IPv6, or IPv4 mapped into it */
	__u8 peer[16];
	__be16 local_port;
	__be16 peer_port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[3];
};

/* Whose a socket is. Stamps are ticks, as those of flows. */
struct socket_owner {
	__u64 cgroup; /* id in the v2 hierarchy: the inode of its directory; 0: unknown */
	__u32 process; /* thread group id, in the initial namespace; 0: unknown */
	__u32 since; /* the first of its sockets came */
	__u32 until; /* the last was closed; meaningless while one is open */
	char command[COMMAND_LENGTH]; /* of the process */
	__u16 share; /* of the table, that the socket counts towards */
	__u8 role; /* enum socket_role; 0 as yet */
	__u8 kept; /* a TCP connection whose state is with its socket (tcp_state), or was */
};

/* Which side of a connection a socket is. */
enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT,
	ROLE_SERVER,
};

/*
 * How many entries of sockets count towards a share, made - gone: entries that programs
 * made, and how many of them are not there any more by the agent's reckoning. Either may
 * wrap round. made is written by programs alone, gone by the agent alone.
 */
struct share {
	__u32 made;
	__u32 gone;
};

/* A share has a number in 1 to SHARE_PODS. */
#define SHARE_UNKNOWN 0
#define SHARE_PODS 65535
#define SHARE_ALL (SHARE_PODS + 1) /* what all of them have together */
#define SHARES (SHARE_PODS + 2)

/*
 * The sockets of one key, and those before them: a port may change hands within
 * the time that a flow is counted in.
 */
struct socket_owners {
	struct bpf_spin_lock lock;
	__u32 open; /* sockets that are not closed yet; 0: all of it is past */
	__u32 shared; /* sockets of several cgroups were open at once: whose a flow is, nobody knows
		       */
	__u32 owners; /* how many there were, one after the other */
	struct socket_owner now, before; /* before: meaningless of the first */
};

/* What came of what was to be recorded. The names of the metric's label follow these. */
enum socket_outcome {
	SOCKET_RECORDED = 0,
	SOCKET_NO_ROOM, /* sockets is full, or the kernel was out of memory */
	SOCKET_NO_STORAGE, /* its state could not be kept with it */
	SOCKET_NO_SAMPLE_ROOM, /* a sample of a connection: the set's health is full */
	SOCKET_OUTCOMES, /* new ones before this */
};

#define MAX_SOCKET_OUTCOMES 8

#endif /* PODMETER_SOCKET_H */
