/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/*
 * The walk over a packet's headers. It fills a flow_key with whatever the
 * packet tells and says how it ended; it never pulls or changes the packet.
 */
#ifndef PODMETER_PARSE_H
#define PODMETER_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "flow.h"

#ifndef MAX_EXTENSIONS /* shallowbuild has less, for tests */

/* In-band tags that are read. The kernel moves one more, the outermost, to the skb before TC. */
#define MAX_VLAN_TAGS 3

/* Each extension header of RFC 8200, 4.1, once, destination options twice, and room. */
#define MAX_EXTENSIONS 8
#endif

#define IP_FRAGMENT_OFFSET 0x1fff /* of iphdr.frag_off */
#define IPV6_FRAGMENT_OFFSET 0xfff8 /* of ipv6_fragment.offset */

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

struct ipv6_extension {
	__u8 next;
	__u8 length; /* in 8 octets beyond the first 8; of AH in 4 octets beyond 8 */
	__be16 offset; /* of a fragment header */
};

/* One of skb and xdp, which the compiler knows: the other's code is not there. */
struct packet {
	struct __sk_buff *skb;
	struct xdp_md *xdp;
	struct flow_key *key;
	__u32 offset; /* of the header to be read next */
	/*
	 * Whether offset is from the network header, which the kernel knows, and not from the
	 * packet's first byte. The compiler knows this as well.
	 */
	bool from_network;
};

static __always_inline void *linear(const struct packet *packet)
{
	return (void *)(long)(packet->xdp ? packet->xdp->data : packet->skb->data);
}

static __always_inline void *linear_end(const struct packet *packet)
{
	return (void *)(long)(packet->xdp ? packet->xdp->data_end : packet->skb->data_end);
}

/* In bytes, with what is not in the linear area. */
static __always_inline __u64 length(const struct packet *packet)
{
	return packet->xdp ? bpf_xdp_get_buff_len(packet->xdp) : packet->skb->len;
}

static __always_inline long load(const struct packet *packet, void *to, __u32 len)
{
	if (packet->xdp)
		return bpf_xdp_load_bytes(packet->xdp, packet->offset, to, len);
	if (packet->from_network)
		return bpf_skb_load_bytes_relative(packet->skb, packet->offset, to, len,
						   BPF_HDR_START_NET);
	return bpf_skb_load_bytes(packet->skb, packet->offset, to, len);
}

/*
 * Copies the next len bytes to the stack: straight from the linear area, where
 * the headers of nearly every packet are, else with the helper. Both paths end
 * in the same state, which keeps the verifier's work small. Where the network header
 * is in the linear area only the helper knows.
 */
#define peek(packet, to, alignment)                                                                \
	({                                                                                         \
		void *__data = linear(packet) + (packet)->offset;                                  \
		void *__end = linear_end(packet);                                                  \
		long __missing = 0;                                                                \
		if (!(packet)->from_network && __data + sizeof(*(to)) <= __end)                    \
			__builtin_memcpy((to), __builtin_assume_aligned(__data, alignment),        \
					 sizeof(*(to)));                                           \
		else                                                                               \
			__missing = load(packet, (to), sizeof(*(to)));                             \
		__missing == 0;                                                                    \
	})

static __always_inline void map_ipv4(__u8 *to, __be32 address)
{
	__u32 *words = (__u32 *)to;

	words[2] = bpf_htonl(0xffff);
	words[3] = address;
}

static __always_inline enum outcome parse_transport(struct packet *packet)
{
	struct flow_key *key = packet->key;
	__be16 ports[2];
	__be16 type_and_code;

	switch (key->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (!peek(packet, &ports, 4))
			return OUTCOME_TRUNCATED_TRANSPORT;
		key->source_port = ports[0];
		key->destination_port = ports[1];
		return OUTCOME_FULL;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!peek(packet, &type_and_code, 2))
			return OUTCOME_TRUNCATED_TRANSPORT;
		key->destination_port = type_and_code;
		return OUTCOME_FULL;
	default:
		return OUTCOME_NO_PORTS;
	}
}

static __always_inline enum outcome parse_ipv4(struct packet *packet)
{
	struct flow_key *key = packet->key;
	struct iphdr ip;

	if (!peek(packet, &ip, 4))
		return OUTCOME_TRUNCATED_NETWORK;
	if (ip.version != 4 || ip.ihl < 5)
		return OUTCOME_MALFORMED;
	map_ipv4(key->source, ip.saddr);
	map_ipv4(key->destination, ip.daddr);
	key->protocol = ip.protocol;
	if (ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		return OUTCOME_LATER_FRAGMENT;
	packet->offset += ip.ihl * 4;
	return parse_transport(packet);
}

/*
 * Moves past one extension header. Answers OUTCOME_FULL when the next header
 * is to be looked at, else how the walk ends.
 */
static __always_inline enum outcome parse_extension(struct packet *packet)
{
	struct flow_key *key = packet->key;
	struct ipv6_extension extension;
	__u8 number = key->protocol;

	if (!peek(packet, &extension, 4))
		return OUTCOME_TRUNCATED_EXTENSION;
	key->protocol = extension.next;
	switch (number) {
	case IPPROTO_FRAGMENT:
		if (extension.offset & bpf_htons(IPV6_FRAGMENT_OFFSET))
			return OUTCOME_LATER_FRAGMENT;
		packet->offset += 8;
		break;
	case IPPROTO_AH:
		packet->offset += (extension.length + 2) * 4;
		break;
	default:
		packet->offset += (extension.length + 1) * 8;
	}
	return OUTCOME_FULL;
}

static __always_inline bool is_extension(__u8 number)
{
	switch (number) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
		return true;
	default:
		return false;
	}
}

static __always_inline enum outcome parse_ipv6(struct packet *packet)
{
	struct flow_key *key = packet->key;
	enum outcome outcome;
	struct ipv6hdr ip;

	if (!peek(packet, &ip, 4))
		return OUTCOME_TRUNCATED_NETWORK;
	if (ip.version != 6)
		return OUTCOME_MALFORMED;
	__builtin_memcpy(key->source, &ip.saddr, sizeof(key->source));
	__builtin_memcpy(key->destination, &ip.daddr, sizeof(key->destination));
	key->protocol = ip.nexthdr;
	packet->offset += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(key->protocol))
			return parse_transport(packet);
		outcome = parse_extension(packet);
		if (outcome != OUTCOME_FULL)
			return outcome;
	}
	if (!is_extension(key->protocol))
		return parse_transport(packet);
	return OUTCOME_EXTENSION_LIMIT;
}

static __always_inline bool is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* From the header on that the EtherType of the key names. */
static __always_inline enum outcome parse_network(struct packet *packet)
{
	struct flow_key *key = packet->key;

	if (key->ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(packet);
	if (key->ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(packet);
	return is_vlan(key->ethertype) ? OUTCOME_VLAN_LIMIT : OUTCOME_NOT_IP;
}

/*
 * Nearly every packet: TCP or UDP in IPv4 without options that is no later fragment, or in
 * IPv6 without extension headers, with its headers in the linear area. They go straight into the
 * key. False for all others, of which the key says no more than before.
 */
static __always_inline bool parse_plain(struct packet *packet)
{
	struct flow_key *key = packet->key;
	const void *data = linear(packet), *end = linear_end(packet);
	const struct ethhdr *link = data;
	const __be16 *ports;
	__u8 protocol;

	if (data + ETH_HLEN + sizeof(struct iphdr) + 2 * sizeof(*ports) > end)
		return false;
	if (link->h_proto == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = data + ETH_HLEN;

		protocol = ip->protocol;
		if (*(const __u8 *)ip != 0x45 || (ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET)) ||
		    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
			return false;
		map_ipv4(key->source, ip->saddr);
		map_ipv4(key->destination, ip->daddr);
		ports = (const void *)(ip + 1);
	} else {
		const struct ipv6hdr *ip = data + ETH_HLEN;

		if (link->h_proto != bpf_htons(ETH_P_IPV6) ||
		    data + ETH_HLEN + sizeof(*ip) + 2 * sizeof(*ports) > end)
			return false;
		protocol = ip->nexthdr;
		if (*(const __u8 *)ip >> 4 != 6 ||
		    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
			return false;
		__builtin_memcpy(key->source, &ip->saddr, sizeof(key->source));
		__builtin_memcpy(key->destination, &ip->daddr, sizeof(key->destination));
		ports = (const void *)(ip + 1);
	}
	key->ethertype = link->h_proto;
	key->protocol = protocol;
	key->source_port = ports[0];
	key->destination_port = ports[1];
	return true;
}

/* From the Ethernet header on. */
static __always_inline enum outcome parse_frame(struct packet *packet)
{
	struct flow_key *key = packet->key;
	struct vlan_tag tag;

	if (parse_plain(packet))
		return OUTCOME_FULL;
	packet->offset = offsetof(struct ethhdr, h_proto);
	if (!peek(packet, &key->ethertype, 2))
		return OUTCOME_TRUNCATED_LINK;
	packet->offset = ETH_HLEN;
	for (int i = 0; i < MAX_VLAN_TAGS && is_vlan(key->ethertype); i++) {
		if (!peek(packet, &tag, 2))
			return OUTCOME_TRUNCATED_VLAN;
		key->ethertype = tag.ethertype;
		packet->offset += sizeof(tag);
	}
	return parse_network(packet);
}

#endif /* PODMETER_PARSE_H */
