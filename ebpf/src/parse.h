/* What a packet says of itself: link, IP header, extension headers. Nothing here looks at a map, and
 * nothing here decides more than whether a header can be believed.
 */
#ifndef NAUTILUS_PARSE_H
#define NAUTILUS_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "intf.h"

struct vlan_tag {
	__be16 control;
	__be16 protocol;
};

struct extension_header {
	__u8 next;
	__u8 length; /* in 8-byte units beyond the first */
	__u8 type;
	__u8 segments_left; /* of a routing header */
};

/* What the parsers learn. Offsets count from the start of the frame. */
struct flow {
	struct address source;
	struct address destination;
	__u64 group_mac; /* where the destination is multicast */
	__u32 ip_end; /* as the IP header claims it; nothing has checked it yet */
	__u32 network; /* offset of the IP header */
	__u32 transport; /* offset of the transport header, or of the first extension header */
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	bool multicast;
	bool fragment;
	bool source_invalid;
};

/* Largest offset a transport header can have; a power of two so that the bound is a mask. */
#define TRANSPORT_MASK 0x3fff
_Static_assert(sizeof(struct ethhdr) + VLAN_TAGS_MAX * sizeof(struct vlan_tag) + sizeof(struct ipv6hdr) +
		       EXTENSION_HEADERS_MAX * 2048 <= TRANSPORT_MASK, "the mask must not change an offset");

static __always_inline bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline __u64 mac_number(const __u8 *mac)
{
	return (__u64)mac[0] << 40 | (__u64)mac[1] << 32 | (__u64)mac[2] << 24 | (__u64)mac[3] << 16 |
	       (__u64)mac[4] << 8 | mac[5];
}

static __always_inline void map_ipv4(struct address *to, __be32 address)
{
	to->words[0] = 0;
	to->words[1] = 0;
	to->words[2] = bpf_htonl(0xffff);
	to->words[3] = address;
}

static __always_inline bool is_mapped(const struct address *address)
{
	return !address->words[0] && !address->words[1] && address->words[2] == bpf_htonl(0xffff);
}

/* False when the header cannot be trusted to say where the packet goes. RFC 791. */
static __always_inline bool parse_ipv4(struct flow *flow, void *data, void *end, __u32 at)
{
	struct iphdr *ip = data + at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	__u32 header_bytes = ip->ihl * 4;
	if ((void *)ip + header_bytes > end)
		return false;

	__u32 source = bpf_ntohl(ip->saddr), destination = bpf_ntohl(ip->daddr);
	flow->source_invalid = source >> 24 == 0 || source >> 24 == 127 || source >= 0xe0000000 ||
			       source == destination;
	flow->multicast = destination >> 28 == 0xe;
	flow->group_mac = 0x01005e000000 | (destination & 0x7fffff); /* RFC 1112, 6.4 */
	flow->fragment = ip->frag_off & bpf_htons(0x3fff);
	flow->network = at;
	flow->ip_end = at + bpf_ntohs(ip->tot_len);
	flow->transport = at + header_bytes;
	flow->protocol = ip->protocol;
	flow->family = 4;
	map_ipv4(&flow->source, ip->saddr);
	map_ipv4(&flow->destination, ip->daddr);
	return true;
}

/* The fixed header only; extension headers are followed once the packet is known to be for us.
 * An IPv4-mapped address never belongs on the wire and would match the keys of IPv4 packets:
 * as a destination it is not ours, as a source it is invalid. RFC 8200, RFC 4291 2.5.5.2.
 */
static __always_inline bool parse_ipv6(struct flow *flow, void *data, void *end, __u32 at)
{
	struct ipv6hdr *ip = data + at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return false;

	__builtin_memcpy(&flow->source, &ip->saddr, sizeof(flow->source));
	__builtin_memcpy(&flow->destination, &ip->daddr, sizeof(flow->destination));
	const __u32 *source = flow->source.words, *destination = flow->destination.words;
	bool zero_or_loopback = !source[0] && !source[1] && !source[2] &&
				(!source[3] || source[3] == bpf_htonl(1));
	bool same = source[0] == destination[0] && source[1] == destination[1] &&
		    source[2] == destination[2] && source[3] == destination[3];
	flow->source_invalid = zero_or_loopback || same || ip->saddr.s6_addr[0] == 0xff ||
			       is_mapped(&flow->source);
	flow->multicast = ip->daddr.s6_addr[0] == 0xff;
	flow->group_mac = 0x333300000000 | bpf_ntohl(destination[3]); /* RFC 2464, 7 */
	flow->fragment = false;
	flow->network = at;
	flow->ip_end = at + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	flow->transport = at + sizeof(*ip);
	flow->protocol = ip->nexthdr;
	flow->family = 6;
	return true;
}

/* Follows hop-by-hop (first only), destination and used-up routing headers. Returns VERDICT_COUNT
 * when flow->transport and flow->protocol are those of the transport.
 */
static __always_inline enum verdict follow_extensions(struct flow *flow, void *data, void *end)
{
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		__u8 protocol = flow->protocol;

		if (protocol == IPPROTO_FRAGMENT)
			return VERDICT_fragment;
		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_DSTOPTS && protocol != IPPROTO_ROUTING)
			return VERDICT_COUNT;
		if (i == EXTENSION_HEADERS_MAX || (protocol == IPPROTO_HOPOPTS && i > 0))
			return VERDICT_extension_headers;

		struct extension_header *header = data + (flow->transport & TRANSPORT_MASK);
		if ((void *)(header + 1) > end)
			return VERDICT_extension_headers;
		if (protocol == IPPROTO_ROUTING && header->segments_left)
			return VERDICT_extension_headers;
		flow->protocol = header->next;
		flow->transport += ((__u32)header->length + 1) * 8;
	}
	return VERDICT_extension_headers;
}

#endif
