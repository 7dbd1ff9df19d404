/* Steering: decides for every received frame whether it belongs to the data plane.
 *
 *   frame -> link -> IP header -> our MAC? -> served address? -> fragment? -> transport -> our port?
 *     each "no" or "cannot tell" leaves to the kernel (XDP_PASS), untouched
 *   our port -> source sane and listed? -> lengths true? -> stamp -> socket of the arriving queue
 *     each "no" is a drop
 *
 * Default deny holds for our ports only. The source list is consulted before anything else about a
 * packet for us is judged, so a forbidden source is always counted as one, however odd its packet.
 * classify() returns exactly one verdict; steer() counts it. Checksums are the worker's to verify.
 */
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

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Longest frame a UMEM chunk holds, Ethernet header included; set before loading. */
const volatile __u32 frame_bytes_max = 1792;

/* All maps: written by the supervisor, except judged and verdicts, which only this program writes. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SOCKETS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOURCES_EXACT_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct source);
} sources_exact SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, SOURCES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_prefix);
	__type(value, struct source);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct service);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct served);
} served SEC(".maps");

/* Counts the changes of sources_exact, sources and served; 0 is "no list yet". */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} list_epoch SEC(".maps");

/* Remembers what the three lists said, by a hash of both addresses; an entry of another epoch is
 * worth nothing. Per CPU, so that it has one writer.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, JUDGED_MAX);
	__type(key, __u32);
	__type(value, struct judged);
} judged SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, INTERFACES_MAX);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNT);
	__type(key, __u32);
	__type(value, struct tally);
} verdicts SEC(".maps");

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

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	__u64 one[2], other[2];

	__builtin_memcpy(one, a, sizeof(one));
	__builtin_memcpy(other, b, sizeof(other));
	return one[0] == other[0] && one[1] == other[1];
}

static __always_inline __u32 judged_index(const struct flow *flow)
{
	__u64 source[2], destination[2];

	__builtin_memcpy(source, &flow->source, sizeof(source));
	__builtin_memcpy(destination, &flow->destination, sizeof(destination));
	__u64 mixed = (source[0] ^ destination[1]) * 0x9e3779b97f4a7c15 ^ source[1] ^ destination[0] << 1;
	return mixed * 0xbb67ae8584caa73b >> 32 & (JUDGED_MAX - 1);
}

/* Exact first: an LPM lookup costs as much as all the rest of this program. */
static __always_inline __u32 source_permissions(const struct flow *flow)
{
	struct source *source = bpf_map_lookup_elem(&sources_exact, &flow->source);

	if (!source) {
		struct source_prefix key = { .bits = 128, .address = flow->source };
		source = bpf_map_lookup_elem(&sources, &key);
	}
	return source && source->family == flow->family ? source->permissions : 0;
}

static __always_inline bool replies(__be16 port)
{
	__u32 index = bpf_ntohs(port);
	struct service *service = bpf_map_lookup_elem(&ports, &index);

	return service && service->flags & SERVICE_REPLIES;
}

/* Writes the metadata and redirects; the packet is for us and sound. */
static __always_inline enum verdict redirect(struct xdp_md *ctx, const struct interface *interface)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 socket = interface->first_socket + queue;

	if (queue >= interface->queue_count || !bpf_map_lookup_elem(&xsks, &socket))
		return VERDICT_no_socket;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct rx_meta)))
		return VERDICT_no_metadata;
	struct rx_meta *meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return VERDICT_no_metadata;
	meta->rx_ns = bpf_ktime_get_ns();
	meta->magic = RX_META_MAGIC;
	meta->reserved = 0;
	/* The socket can have left since the lookup. */
	return bpf_redirect_map(&xsks, socket, XDP_PASS) == XDP_REDIRECT ? VERDICT_redirected :
									    VERDICT_no_socket;
}

/* UDP to a service of ours from a listed source. */
static __always_inline enum verdict judge_udp(struct xdp_md *ctx, const struct flow *flow, void *data,
					      void *end, __u32 frame_bytes, __u32 flags,
					      const struct interface *interface)
{
	__u32 transport = flow->transport & TRANSPORT_MASK;
	struct udphdr *udp = data + transport;

	if ((void *)(udp + 1) > end || flow->ip_end > frame_bytes ||
	    flow->ip_end < transport + sizeof(*udp))
		return VERDICT_ip_length;
	/* Shorter than the IP packet is legal (RFC 768, RFC 9868): the rest is not payload. */
	__u32 udp_bytes = bpf_ntohs(udp->len);
	if (udp_bytes < sizeof(*udp) || transport + udp_bytes > flow->ip_end)
		return VERDICT_udp_length;
	if (flags & SERVICE_REPLIES && (!udp->source || replies(udp->source)))
		return VERDICT_source_port;
	if (frame_bytes > frame_bytes_max)
		return VERDICT_too_long;
	return redirect(ctx, interface);
}

static __always_inline enum verdict classify(struct xdp_md *ctx, __u32 frame_bytes)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct flow flow = {};

	struct ethhdr *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return VERDICT_link_truncated;
	__be16 protocol = ethernet->h_proto;
	__u32 at = sizeof(*ethernet);
	for (int i = 0; i < VLAN_TAGS_MAX && is_vlan(protocol); i++) {
		struct vlan_tag *tag = data + at;
		if ((void *)(tag + 1) > end)
			return VERDICT_link_truncated;
		protocol = tag->protocol;
		at += sizeof(*tag);
	}
	if (is_vlan(protocol))
		return VERDICT_vlan_depth;

	if (protocol == bpf_htons(ETH_P_IP)) {
		if (!parse_ipv4(&flow, data, end, at))
			return VERDICT_ip_malformed;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		if (!parse_ipv6(&flow, data, end, at))
			return VERDICT_ip_malformed;
	} else {
		return VERDICT_not_ip;
	}

	__u32 ifindex = ctx->ingress_ifindex;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!interface)
		return VERDICT_unknown_interface;
	/* A unicast address in a group or broadcast frame is refused too (RFC 1122, 3.3.6). */
	__u64 mac = mac_number(ethernet->h_dest);
	if (mac != mac_number(interface->mac) && !(flow.multicast && mac == flow.group_mac))
		return VERDICT_other_mac;
	if (flow.family == 6 && is_mapped(&flow.destination))
		return VERDICT_other_address;
	/* Read before the lists: an entry made from older lists than these carries an older epoch. */
	__u32 zero = 0, index = judged_index(&flow);
	volatile __u64 *epochs = bpf_map_lookup_elem(&list_epoch, &zero);
	struct judged *memory = bpf_map_lookup_elem(&judged, &index);
	if (!epochs || !memory)
		return VERDICT_other_address;
	__u64 epoch = *epochs;
	barrier();
	bool known = epoch && memory->epoch == epoch && same_address(&memory->source, &flow.source) &&
		     same_address(&memory->destination, &flow.destination);
	if (!known && !bpf_map_lookup_elem(&served, &flow.destination))
		return VERDICT_other_address;
	if (flow.fragment)
		return VERDICT_fragment;
	if (flow.family == 6) {
		enum verdict verdict = follow_extensions(&flow, data, end);
		if (verdict != VERDICT_COUNT)
			return verdict;
	}
	if (flow.protocol != IPPROTO_UDP && flow.protocol != IPPROTO_TCP)
		return VERDICT_other_protocol;

	/* Source and destination port are the first four bytes of both. */
	__be16 *transport_ports = data + (flow.transport & TRANSPORT_MASK);
	if ((void *)(transport_ports + 2) > end)
		return VERDICT_transport_truncated;
	__u32 port = bpf_ntohs(transport_ports[1]);
	struct service *service = bpf_map_lookup_elem(&ports, &port);
	__u32 wanted = (flow.protocol == IPPROTO_UDP ? SERVICE_UDP : SERVICE_TCP) |
		       (flow.multicast ? SERVICE_MULTICAST : SERVICE_UNICAST);
	if (!service || (service->flags & wanted) != wanted)
		return VERDICT_other_port;

	/* From here on the packet is for us, and only a listed source gets further. */
	if (flow.source_invalid)
		return VERDICT_source_invalid;
	if (!known) {
		memory->epoch = 0;
		memory->permissions = source_permissions(&flow);
		memory->source = flow.source;
		memory->destination = flow.destination;
		memory->epoch = epoch;
	}
	bool listed = memory->permissions;
	if (flow.protocol == IPPROTO_TCP)
		return listed ? VERDICT_tcp_listed : VERDICT_tcp_source_unlisted;
	if (!listed)
		return VERDICT_source_unlisted;
	return judge_udp(ctx, &flow, data, end, frame_bytes, service->flags, interface);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	/* Opaque to the compiler: clang-14 would otherwise fold it into 32-bit pointer arithmetic,
	 * which the verifier refuses.
	 */
	__u64 frame_bytes = (__u64)ctx->data_end - (__u64)ctx->data;
	barrier_var(frame_bytes);

	__u32 verdict = classify(ctx, frame_bytes);
	struct tally *tally = bpf_map_lookup_elem(&verdicts, &verdict);
	if (tally) {
		tally->packet_count++;
		tally->byte_count += frame_bytes;
	}
	return verdict < VERDICT_FIRST_DROP ? XDP_PASS :
	       verdict < VERDICT_FIRST_REDIRECT ? XDP_DROP : XDP_REDIRECT;
}
