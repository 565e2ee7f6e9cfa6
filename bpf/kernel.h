/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* What programs of sockets know of the kernel. */
#ifndef PODMETER_KERNEL_H
#define PODMETER_KERNEL_H

#include "socket.h"

#define AF_INET 2
#define AF_INET6 10

/*
 * What is read of the kernel's own structures, where it is in the running kernel. Through pointers
 * whose type the verifier knows: kernel lockdown takes away the helpers that read any address.
 */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node {
	__u64 id;
};
struct cgroup_subsys_state {
	__u64 serial_nr;
	struct cgroup_subsys_state *parent;
};
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};
struct task_struct {
	int tgid;
	char comm[COMMAND_LENGTH];
	struct css_set *cgroups;
};
struct sock_cgroup_data {
	struct cgroup *cgroup;
};
struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};
struct sock_common {
	__u32 skc_rcv_saddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned short skc_family;
	__u16 skc_num;
};
struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
};
struct inet_sock {
	struct sock sk;
};
struct inet_connection_sock {
	struct inet_sock icsk_inet;
};
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_retrans;
};
#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

#endif /* PODMETER_KERNEL_H */
