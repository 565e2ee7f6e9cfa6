//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * Who owns the local end of a flow: each socket's cgroup and process, by its
 * addresses and ports; and how well TCP connections do. Attached to the root of the
 * cgroup v2 hierarchy; runs when sockets bind, listen, connect, are accepted and closed,
 * when an unconnected UDP socket sends, and when TCP retransmits or has a new RTT. Has no
 * say in any of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "socket.h"
#include "kernel.h"
#include "socket_maps.h"
#include "share.h"
#include "sample.h"

#define ALLOW 1 /* what programs of sockets return: go on */

/*
 * An address as keys have it. The six words are read in any case, each once: the
 * verifier takes no access to a context whose offset is chosen at run time.
 */
#define COPY_ADDRESS(to, family, ipv4, ipv6)                                                       \
	({                                                                                         \
		__u32 v4 = ipv4, v6_0 = ipv6[0], v6_1 = ipv6[1], v6_2 = ipv6[2], v6_3 = ipv6[3];   \
		barrier_var(v4);                                                                   \
		barrier_var(v6_0);                                                                 \
		barrier_var(v6_1);                                                                 \
		barrier_var(v6_2);                                                                 \
		barrier_var(v6_3);                                                                 \
		copy_address(to, family, v4, v6_0, v6_1, v6_2, v6_3);                              \
	})

static __always_inline void copy_address(__u8 to[16], __u32 family, __u32 ipv4, __u32 v6_0,
					 __u32 v6_1, __u32 v6_2, __u32 v6_3)
{
	bool is_ipv4 = family == AF_INET;
	__u32 *word = (__u32 *)to;

	word[0] = is_ipv4 ? 0 : v6_0;
	word[1] = is_ipv4 ? 0 : v6_1;
	word[2] = is_ipv4 ? bpf_htonl(0xffff) : v6_2;
	word[3] = is_ipv4 ? ipv4 : v6_3;
}

/* A word at a time, which is what the places of both have in common. */
static __always_inline void copy_command(char to[COMMAND_LENGTH], const struct task_struct *task)
{
	const __u32 *from = (const __u32 *)task->comm;
	__u32 *word = (__u32 *)to;

	for (__u32 i = 0; i < COMMAND_LENGTH / sizeof(*word); i++)
		word[i] = from[i];
}

/* By the kernel's own structures: helpers for it came to these programs at different times. */
static __always_inline void describe_current(struct socket_owner *owner)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *cgroup = task->cgroups->dfl_cgrp;

	owner->cgroup = cgroup->kn->id;
	owner->share = share_of(cgroup);
	owner->process = task->tgid;
	copy_command(owner->command, task);
}

static __always_inline void hand_over(struct socket_owners *s, const struct socket_owner *owner)
{
	s->before = s->now;
	if (s->shared)
		s->before.cgroup = 0;
	s->shared = 0;
	s->now = *owner;
	s->owners++;
}

/* One more socket of a key that has or had some. */
static __always_inline void join(struct socket_owners *s, const struct socket_owner *owner)
{
	__u32 from, to;

	bpf_spin_lock(&s->lock);
	from = s->now.share;
	if (!s->open) {
		/* The same owner goes on: what was between is its own too. */
		if (s->shared || s->now.cgroup != owner->cgroup || s->now.process != owner->process)
			hand_over(s, owner);
		s->now.kept = 1;
	} else if (s->now.cgroup != owner->cgroup) {
		s->shared = 1;
	}
	s->open++;
	to = s->now.share;
	bpf_spin_unlock(&s->lock);
	if (from != to)
		moved(from, to);
}

/* An entry of its own, if there is none and there is room. */
static __always_inline bool record_first(const struct socket_key *key,
					 const struct socket_owner *owner)
{
	struct socket_owners fresh = { .open = 1, .owners = 1, .now = *owner };

	if (!has_room(owner->share) || bpf_map_update_elem(&sockets, key, &fresh, BPF_NOEXIST))
		return false;
	made_of(owner->share);
	return true;
}

/*
 * A key is new as a rule: it is looked for only if no entry can be made. Others may have
 * been there before, or another CPU was quicker. Returns whether the entry is the socket's own.
 */
static __always_inline bool record(const struct socket_key *key, const struct socket_owner *owner)
{
	struct socket_owners *s;
	bool first = record_first(key, owner);

	if (!first) {
		s = bpf_map_lookup_elem(&sockets, key);
		if (!s) {
			count_outcome(SOCKET_NO_ROOM);
			return false;
		}
		join(s, owner);
	}
	count_outcome(SOCKET_RECORDED);
	return first;
}

/* Of a connection whose state is not kept it tells that, and returns true. */
static __always_inline bool closed(const struct socket_key *key, struct tcp_state *state)
{
	struct socket_owners *s = bpf_map_lookup_elem(&sockets, key);
	__u32 now = bpf_jiffies64();
	bool unkept;

	if (!s)
		return false;
	bpf_spin_lock(&s->lock);
	unkept = s->open && !s->now.kept;
	state->cgroup = s->now.cgroup;
	state->share = s->now.share;
	if (s->open && !--s->open)
		s->now.until = now;
	bpf_spin_unlock(&s->lock);
	return unkept;
}

/* --- TCP --- */

static __always_inline void tcp_local(struct bpf_sock_ops *ops, struct socket_key *key)
{
	key->netns = bpf_get_netns_cookie(ops);
	key->protocol = IPPROTO_TCP;
	key->local_port = bpf_htons(ops->local_port);
	COPY_ADDRESS(key->local, ops->family, ops->local_ip4, ops->local_ip6);
}

static __always_inline void tcp_peer(struct bpf_sock_ops *ops, struct socket_key *key)
{
	key->peer_port = bpf_htons(bpf_ntohl(ops->remote_port));
	COPY_ADDRESS(key->peer, ops->family, ops->remote_ip4, ops->remote_ip6);
}

/* The cgroup that the socket was made in; one that was accepted has its listener's. */
static __always_inline void describe_accepted(struct bpf_sock_ops *ops, struct socket_owner *owner)
{
	struct bpf_sock *sk = ops->sk;
	struct cgroup *cgroup;
	struct tcp_sock *tcp;

	if (!sk)
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	cgroup = cgroup_of(tcp);
	owner->cgroup = cgroup->kn->id;
	owner->share = share_of(cgroup);
	/* By TCP Fast Open it has no RTT as yet, and may end before its handshake does. */
	owner->kept = !ops->srtt_us || ops->total_retrans;
}

/* The process that listens is told apart by its entry, if that is of one cgroup. */
static __always_inline bool listener(struct socket_key *key, struct socket_owner *owner)
{
	struct socket_owners *s = bpf_map_lookup_elem(&sockets, key);
	bool is;

	if (!s)
		return false;
	bpf_spin_lock(&s->lock);
	is = s->open && !s->shared && s->now.cgroup == owner->cgroup;
	if (is) {
		owner->process = s->now.process;
		__builtin_memcpy(owner->command, s->now.command, sizeof(owner->command));
	}
	bpf_spin_unlock(&s->lock);
	return is;
}

static __always_inline void describe_listener(const struct socket_key *connection,
					      struct socket_owner *owner)
{
	struct socket_key key = *connection;
	__u32 *local = (__u32 *)key.local;

	__builtin_memset(key.peer, 0, sizeof(key.peer));
	key.peer_port = 0;
	if (listener(&key, owner))
		return;
	local[3] = 0;
	if (!local[0] && !local[1] && local[2] == bpf_htonl(0xffff) && listener(&key, owner))
		return;
	local[0] = 0;
	local[1] = 0;
	local[2] = 0;
	listener(&key, owner);
}

/* The events of a socket that programs are to be called for, besides those that they are. */
static __always_inline void follow(struct bpf_sock_ops *ops, int flags)
{
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | flags);
}

static __always_inline void tcp_listens(struct bpf_sock_ops *ops)
{
	struct socket_owner owner = { .since = bpf_jiffies64() };
	struct socket_key key = {};

	tcp_local(ops, &key);
	describe_current(&owner);
	record(&key, &owner);
	follow(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Sets out the state of a connection that begins; NULL if it is not kept, or cannot be. */
static __always_inline struct tcp_state *begin(struct bpf_sock_ops *ops,
					       const struct tcp_state *fresh, bool kept)
{
	struct tcp_state zero = {}, *state;

	state = kept ? keep(ops, &zero) : NULL;
	if (state) /* a socket that connects again counts from 0 too */
		*state = *fresh;
	return state;
}

/* A connection's health is followed from here on. */
static __always_inline void tcp_begins(struct bpf_sock_ops *ops, struct health_key *key,
				       const struct socket_owner *owner, bool kept)
{
	struct sample sample = { .opened = 1, .rtt = smoothed_rtt(ops) };
	bool connects = ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB;
	struct tcp_state fresh = { .cgroup = owner->cgroup,
				   .share = owner->share,
				   .connecting = connects };
	struct tcp_state *state = begin(ops, &fresh, kept);

	if (connects || (kept && !state))
		return;
	take_down(ops, state ?: &fresh, key, &sample);
}

static __always_inline void tcp_opened(struct bpf_sock_ops *ops)
{
	struct socket_owner owner = { .since = bpf_jiffies64() };
	struct health_key key = {};
	bool own;

	tcp_local(ops, &key.socket);
	tcp_peer(ops, &key.socket);
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		describe_accepted(ops, &owner);
		describe_listener(&key.socket, &owner);
	} else {
		describe_current(&owner);
		owner.kept = state_of(ops) != NULL; /* of a connection before */
	}
	own = record(&key.socket, &owner);
	if (to_itself(&key.socket)) {
		follow(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
		return;
	}
	follow(ops, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG |
			BPF_SOCK_OPS_RETRANS_CB_FLAG);
	tcp_begins(ops, &key, &owner, !own || owner.kept);
}

/* Whether what comes after an event needs to know of it. */
static __always_inline bool is_kept(struct bpf_sock_ops *ops, const struct tcp_state *state)
{
	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return true;
	return !ops->srtt_us || ops->total_retrans ||
	       (__u32)bpf_jiffies64() - state->sampled > soon();
}

/* As state_of, of one whose state is not kept; from here on it is if that is needed. */
static __always_inline struct tcp_state *
state_by_entry(struct bpf_sock_ops *ops, const struct socket_key *key, struct tcp_state *state)
{
	struct socket_owners *s;
	struct tcp_state *kept;

	if (to_itself(key))
		return NULL;
	s = unkept(key, state);
	if (!s)
		return NULL;
	state->connecting = is_connecting(ops->state);
	if (ops->op == BPF_SOCK_OPS_RTT_CB && !rtt_is_due(state, soon()))
		return NULL;
	if (!is_kept(ops, state))
		return state;
	kept = keep(ops, state);
	if (kept)
		s->now.kept = 1;
	return kept;
}

/* What happens between the beginning and the end of a connection. */
static __always_inline void tcp_goes_on(struct bpf_sock_ops *ops)
{
	struct tcp_state fresh = {}, *state;
	struct health_key key = {};
	struct sample sample = {};

	if (ops->op == BPF_SOCK_OPS_RTT_CB && ops->state == BPF_TCP_SYN_SENT)
		return;
	state = state_of(ops);
	if (state && ops->op == BPF_SOCK_OPS_RTT_CB && !rtt_is_due(state, 0))
		return;
	tcp_local(ops, &key.socket);
	tcp_peer(ops, &key.socket);
	if (!state)
		state = state_by_entry(ops, &key.socket, &fresh);
	if (!state)
		return;
	if (ops->op != BPF_SOCK_OPS_RETRANS_CB)
		sample.rtt = smoothed_rtt(ops);
	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		sample.opened = 1;
		state->connecting = 0;
	}
	take_down(ops, state, &key, &sample);
}

/* The last that is seen of a connection, or of one that never was. */
static __always_inline void tcp_ends(struct bpf_sock_ops *ops, struct health_key *key,
				     struct tcp_state *unkept)
{
	struct tcp_state *state = state_of(ops);
	struct sample sample = {};

	if (!state) {
		if (!unkept || to_itself(&key->socket))
			return;
		state = unkept;
	}
	if (state->connecting)
		sample.failed = 1;
	else
		sample.rtt = smoothed_rtt(ops);
	state->connecting = 0;
	take_down(ops, state, key, &sample);
}

static __always_inline void tcp_closed(struct bpf_sock_ops *ops)
{
	struct tcp_state state = { .connecting = is_connecting(ops->args[0]) };
	struct health_key key = {};
	bool unkept;

	tcp_local(ops, &key.socket);
	if (ops->args[0] != BPF_TCP_LISTEN)
		tcp_peer(ops, &key.socket);
	unkept = closed(&key.socket, &state);
	if (ops->args[0] != BPF_TCP_LISTEN && ops->args[0] != BPF_TCP_CLOSE)
		tcp_ends(ops, &key, unkept ? &state : NULL);
}

SEC("sockops")
int podmeter_tcp(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		tcp_listens(ops);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		tcp_opened(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_RTT_CB:
	case BPF_SOCK_OPS_RETRANS_CB:
		tcp_goes_on(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE)
			tcp_closed(ops);
		break;
	}
	return ALLOW;
}

/* --- UDP --- */

/* The state of a socket that was not met before; NULL if another CPU does the same now. */
static __always_inline struct udp_state *udp_meet(struct udp_state *state, __u64 netns)
{
	if (!state) {
		count_outcome(SOCKET_NO_STORAGE);
		return NULL;
	}
	if (!__sync_bool_compare_and_swap(&state->met, 0, 1))
		return NULL;
	state->key.netns = netns;
	state->key.protocol = IPPROTO_UDP;
	state->owner.since = bpf_jiffies64();
	describe_current(&state->owner);
	return state;
}

static __always_inline void udp_record(struct udp_state *state, __u16 port)
{
	state->key.local_port = bpf_htons(port);
	record(&state->key, &state->owner);
}

static __always_inline struct udp_state *udp_bound(struct bpf_sock *sk)
{
	if (sk->protocol != IPPROTO_UDP)
		return NULL;
	return udp_meet(bpf_sk_storage_get(&udp_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE),
			bpf_get_netns_cookie(sk));
}

SEC("cgroup/post_bind4")
int podmeter_bind4(struct bpf_sock *sk)
{
	struct udp_state *state = udp_bound(sk);

	if (!state)
		return ALLOW;
	copy_address(state->key.local, AF_INET, sk->src_ip4, 0, 0, 0, 0);
	udp_record(state, sk->src_port);
	return ALLOW;
}

SEC("cgroup/post_bind6")
int podmeter_bind6(struct bpf_sock *sk)
{
	struct udp_state *state = udp_bound(sk);

	if (!state)
		return ALLOW;
	copy_address(state->key.local, AF_INET6, 0, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2],
		     sk->src_ip6[3]);
	udp_record(state, sk->src_port);
	return ALLOW;
}

/* Takes back what is recorded by the peer; false if nothing is, or another CPU does it. */
static __always_inline bool udp_disconnect(struct udp_state *state)
{
	struct tcp_state none;

	if (!__sync_bool_compare_and_swap(&state->connected, 1, 0))
		return false;
	closed(&state->key, &none);
	state->key.peer_port = 0;
	__builtin_memset(state->key.peer, 0, sizeof(state->key.peer));
	return true;
}

/*
 * A socket that connects before it is bound gets its port from the kernel right
 * after, where no program runs. It is recorded by its peer, and once more by its port
 * when that is seen.
 */
static __always_inline struct udp_state *udp_connects(struct bpf_sock_addr *address)
{
	struct udp_state *state;

	if (address->protocol != IPPROTO_UDP || !address->sk)
		return NULL;
	state = bpf_sk_storage_get(&udp_sockets, address->sk, NULL, 0);
	if (!state)
		return udp_meet(bpf_sk_storage_get(&udp_sockets, address->sk, NULL,
						   BPF_SK_STORAGE_GET_F_CREATE),
				bpf_get_netns_cookie(address));
	if (!udp_disconnect(state)) /* from the peer before */
		return NULL;
	return state;
}

static __always_inline void udp_record_peer(struct udp_state *state, __u16 port)
{
	state->key.peer_port = port;
	record(&state->key, &state->owner);
	__sync_lock_test_and_set(&state->connected, 1);
}

SEC("cgroup/connect4")
int podmeter_connect4(struct bpf_sock_addr *address)
{
	struct udp_state *state = udp_connects(address);

	if (!state)
		return ALLOW;
	copy_address(state->key.peer, AF_INET, address->user_ip4, 0, 0, 0, 0);
	udp_record_peer(state, address->user_port);
	return ALLOW;
}

SEC("cgroup/connect6")
int podmeter_connect6(struct bpf_sock_addr *address)
{
	struct udp_state *state = udp_connects(address);

	if (!state)
		return ALLOW;
	copy_address(state->key.peer, AF_INET6, 0, address->user_ip6[0], address->user_ip6[1],
		     address->user_ip6[2], address->user_ip6[3]);
	udp_record_peer(state, address->user_port);
	return ALLOW;
}

/* Each datagram of an unconnected socket comes here: one that is recorded goes on at once. */
static __always_inline int udp_sends(struct bpf_sock_addr *address)
{
	struct bpf_sock *sk = address->sk;
	struct udp_state *state;

	if (!sk)
		return ALLOW;
	state = bpf_sk_storage_get(&udp_sockets, sk, NULL, 0);
	if (state && !udp_disconnect(state))
		return ALLOW;
	if (!state)
		state = udp_meet(
		    bpf_sk_storage_get(&udp_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE),
		    bpf_get_netns_cookie(address));
	if (!state)
		return ALLOW;
	COPY_ADDRESS(state->key.local, sk->family, sk->src_ip4, sk->src_ip6);
	udp_record(state, sk->src_port);
	return ALLOW;
}

SEC("cgroup/sendmsg4")
int podmeter_sendmsg4(struct bpf_sock_addr *address)
{
	return udp_sends(address);
}

SEC("cgroup/sendmsg6")
int podmeter_sendmsg6(struct bpf_sock_addr *address)
{
	return udp_sends(address);
}

/* The last chance to see the port, which the context has not, from Linux 6.2 on. */
static __always_inline void udp_late(struct udp_state *state, void *context)
{
	struct sock *sk = bpf_cast_to_kern_ctx(context);

	if (!udp_disconnect(state))
		return;
	COPY_ADDRESS(state->key.local, sk->__sk_common.skc_family, sk->__sk_common.skc_rcv_saddr,
		     sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32);
	udp_record(state, sk->__sk_common.skc_num);
}

SEC("cgroup/sock_release")
int podmeter_release(struct bpf_sock *sk)
{
	struct udp_state *state;
	struct tcp_state none;

	if (sk->protocol != IPPROTO_UDP)
		return ALLOW;
	state = bpf_sk_storage_get(&udp_sockets, sk, NULL, 0);
	if (!state)
		return ALLOW;
	if (bpf_cast_to_kern_ctx)
		udp_late(state, sk);
	closed(&state->key, &none);
	return ALLOW;
}

char _license[] SEC("license") = "Dual BSD/GPL";
