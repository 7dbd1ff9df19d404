/* Turns a request into its answer: the one place that changes a packet. The frame grows or shrinks at
 * its head, since a packet on veth has room there and rarely at its tail, and everything in it is
 * written anew: the request's own bytes are past use.
 *
 *   before            | Ethernet, tag | IP | UDP | frame header | get KEY\r\n | padding |
 *   after   | Ethernet, tag | IP | UDP | frame header | VALUE KEY ... END\r\n           |
 */
#ifndef NAUTILUS_ANSWER_H
#define NAUTILUS_ANSWER_H

#include "meta.h"

#define ANSWER_TTL 64
#define MAC_MASK 0xffffffffffff

/* The link header as found: both addresses in words as they lie in the packet. */
struct link_words {
	__u64 destination;
	__u64 source;
	__u32 tag; /* protocol and control; when there is no tag, 0 */
};

static __always_inline void read_link(struct link_words *link, const void *data, bool tagged)
{
	__u64 first = *(const __u64 *)data;

	link->destination = first & MAC_MASK;
	link->source = first >> 48 | (__u64)*(const __u32 *)(data + 8) << 16;
	link->tag = tagged ? *(const __u32 *)(data + 12) : 0;
}

/* Back to where it came from, in the same VLAN. */
static __always_inline void write_link(const struct link_words *link, void *data, bool tagged, __u16 protocol)
{
	*(__u64 *)data = link->source | link->destination << 48;
	*(__u32 *)(data + 8) = link->destination >> 16;
	if (tagged) {
		*(__u32 *)(data + 12) = link->tag;
		*(__u16 *)(data + 16) = protocol;
	} else {
		*(__u16 *)(data + 12) = protocol;
	}
}

/* 20 bytes: "don't fragment", no identification (RFC 6864), no options. */
static __always_inline void write_ipv4(const struct flow *flow, void *ip, __u16 total_bytes)
{
	__u32 from = flow->destination.words[3], to = flow->source.words[3];
	__u64 first = 0x45 | (__u64)bpf_htons(total_bytes) << 16 | (__u64)bpf_htons(0x4000) << 48;
	__u32 third = ANSWER_TTL | IPPROTO_UDP << 8;
	__u16 sum = ~sum_fold(sum_of(first) + third + from + to);

	*(__u64 *)ip = first;
	*(__u32 *)(ip + 8) = third | (__u32)sum << 16;
	*(__u32 *)(ip + 12) = from;
	*(__u32 *)(ip + 16) = to;
}

static __always_inline void write_ipv6(const struct flow *flow, void *ip, __u16 udp_bytes)
{
	*(__u64 *)ip = 0x60 | (__u64)bpf_htons(udp_bytes) << 32 | (__u64)IPPROTO_UDP << 48 |
		       (__u64)ANSWER_TTL << 56;
	__builtin_memcpy(ip + 8, &flow->destination, sizeof(flow->destination));
	__builtin_memcpy(ip + 24, &flow->source, sizeof(flow->source));
}

/* Words as long as they fit, then the rest of the last one: the frame ends where the text does. */
static __always_inline void write_text(const struct hot_reply *reply, void *to, void *end)
{
	const __u8 *from = (const __u8 *)reply->text + (reply->copied_from & 0x3f);
	__u32 bytes = reply->copied_bytes;
	__u64 rest = 0;

#pragma unroll
	for (int i = 0; i <= HOT_REPLY_WORDS; i++) {
		rest = WORD(from + 8 * i);
		if (to + 8 > end)
			break;
		WORD(to) = rest;
		to += 8;
	}
	if (bytes & 4 && to + 4 <= end) {
		*(__u32 *)to = rest;
		rest >>= 32;
		to += 4;
	}
	if (bytes & 2 && to + 2 <= end) {
		*(__u16 *)to = rest;
		rest >>= 16;
		to += 2;
	}
	if (bytes & 1 && to + 1 <= end)
		*(__u8 *)to = rest;
}

/* False when the driver has no room before the packet, which is then as it was. */
static __always_inline bool answer(struct xdp_md *ctx, const struct flow *flow,
				   const struct hot_scratch *scratch, __u32 frame_bytes)
{
	const struct hot_get *get = &scratch->get;
	const struct hot_reply *reply = &scratch->reply;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	bool tagged = flow->network != sizeof(struct ethhdr);
	__u32 udp_bytes = sizeof(struct udphdr) + FRAME_HEADER_BYTES + reply->text_bytes;
	struct link_words link;

	if (data + sizeof(struct ethhdr) + sizeof(struct vlan_tag) > end)
		return false;
	read_link(&link, data, tagged);
	if (bpf_xdp_adjust_head(ctx, (int)(frame_bytes - flow->transport - udp_bytes)))
		return false;

	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	void *ip = data + (flow->network & HOT_NETWORK_MASK);
	void *udp = data + (flow->transport & HOT_TRANSPORT_MASK);
	/* Cannot fail, but only we know: the frame has just been made this long. */
	if (data + sizeof(struct ethhdr) + sizeof(struct vlan_tag) > end ||
	    udp + sizeof(struct udphdr) + FRAME_HEADER_BYTES > end)
		return true;
	__u32 text_at = (flow->transport & HOT_TRANSPORT_MASK) + META_AT;
	/* Before the headers, over which its first word may reach. */
	if (get->meta)
		meta_write_head(scratch, data, end, text_at);
	if (flow->family == 4) {
		if (ip + sizeof(struct iphdr) > end)
			return true;
		write_link(&link, data, tagged, bpf_htons(ETH_P_IP));
		write_ipv4(flow, ip, sizeof(struct iphdr) + udp_bytes);
	} else {
		if (ip + sizeof(struct ipv6hdr) > end)
			return true;
		write_link(&link, data, tagged, bpf_htons(ETH_P_IPV6));
		write_ipv6(flow, ip, udp_bytes);
	}

	__u32 ports = get->ports >> 16 | get->ports << 16;
	__u16 length = bpf_htons(udp_bytes);
	__u16 sum = ~sum_fold(get->fixed_sum + 2 * (__u64)length + get->id + bpf_htons(1) + reply->text_sum);
	if (!sum)
		sum = 0xffff; /* the same number; 0 would say that none was made (RFC 768) */
	*(__u64 *)udp = ports | (__u64)length << 32 | (__u64)sum << 48;
	*(__u64 *)(udp + sizeof(struct udphdr)) = get->id | (__u64)bpf_htons(1) << 32;
	write_text(reply, data + ((text_at + reply->head_bytes) & HEAD_MASK), end);
	return true;
}

#endif
