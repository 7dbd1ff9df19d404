/* The adversary: a wire between two interfaces that harms the packets of some lines and no others.
 *
 *   frame -> link -> IP -> UDP, whole and sound -> a line's? -> its fate -> lost?      XDP_DROP
 *     each "no" passes as it came                              -> corrupted? one bit of the payload is turned
 *                                                              -> held?      to the socket, with its metadata
 *                                                              -> duplicated? to the other interface, twice
 *                                                              -> else       to the other interface
 *
 * One program a way, each on one interface; what arrives on it leaves by the other and nothing reaches the
 * kernel's stack. Fates are drawn in fault.h.
 */
#include "fault.h"
#include "parse.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FAULT_LINES_MAX);
	__type(key, struct fault_key);
	__type(value, __u32); /* index of fault_rules */
} fault_lines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FAULT_LINES_MAX);
	__type(key, __u32);
	__type(value, struct fault_line);
} fault_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FAULT_WAYS);
	__type(key, __u32);
	__type(value, struct fault_other);
} fault_others SEC(".maps");

/* The interface that a way leads to. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, FAULT_WAYS);
	__type(key, __u32);
	__type(value, __u32);
} fault_ways SEC(".maps");

/* The same, each with two entries of that one interface: sent to all of a map, a packet leaves twice. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} fault_twice_forward SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} fault_twice_back SEC(".maps");

/* Sockets of the user-space half: way * FAULT_QUEUES_MAX + queue of arrival. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, FAULT_WAYS * FAULT_QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} fault_xsks SEC(".maps");

/* Largest offset of a payload's byte; a power of two so that the bound is a mask, and below what the verifier
 * takes as an offset. A frame without fragments is shorter than a page.
 */
#define PAYLOAD_MASK 0x7fff

/* Whether the frame is a whole UDP datagram that says the truth of its lengths. */
static __always_inline bool read_datagram(struct flow *flow, void *data, void *end, __u32 frame_bytes,
					  __u32 *payload_bytes)
{
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return false;
	__be16 protocol = ethernet->h_proto;
	__u32 at = sizeof(*ethernet);
	for (int i = 0; i < VLAN_TAGS_MAX && is_vlan(protocol); i++) {
		struct vlan_tag *tag = data + at;
		if ((void *)(tag + 1) > end)
			return false;
		protocol = tag->protocol;
		at += sizeof(*tag);
	}
	if (protocol == bpf_htons(ETH_P_IP)) {
		if (!parse_ipv4(flow, data, end, at))
			return false;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		if (!parse_ipv6(flow, data, end, at) || is_mapped(&flow->destination))
			return false;
		if (follow_extensions(flow, data, end) != VERDICT_COUNT)
			return false;
	} else {
		return false;
	}
	if (flow->fragment || flow->protocol != IPPROTO_UDP)
		return false;
	__u32 transport = flow->transport & TRANSPORT_MASK;
	struct udphdr *udp = data + transport;
	if ((void *)(udp + 1) > end || flow->ip_end > frame_bytes)
		return false;
	__u32 udp_bytes = bpf_ntohs(udp->len);
	if (udp_bytes < sizeof(*udp) || transport + udp_bytes > flow->ip_end)
		return false;
	*payload_bytes = udp_bytes - sizeof(*udp);
	return true;
}

/* Turns one bit, and changes a checksum there is to the one of the new content (RFC 1624, equation 3) or lets
 * it be wrong.
 */
static __always_inline void corrupt(const struct flow *flow, void *data, void *end, __u32 bit, bool repairs)
{
	struct udphdr *udp = data + (flow->transport & TRANSPORT_MASK);

	if ((void *)(udp + 1) > end)
		return;
	__u32 place = bit / 8;
	__u32 at = (flow->transport & TRANSPORT_MASK) + sizeof(*udp) + place;
	barrier_var(at);
	at &= PAYLOAD_MASK;
	__u8 *byte = data + at;
	if ((void *)(byte + 1) > end)
		return;
	__u32 old = *byte, new = old ^ 1u << (bit & 7);
	*byte = new;
	if (!repairs || !udp->check)
		return;
	/* The header has an even length: so has the payload's start. */
	__u32 shift = place & 1 ? 0 : 8;
	__u32 sum = (__u16)~bpf_ntohs(udp->check) + (__u16)~(old << shift) + (new << shift);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	__u16 check = ~sum;
	udp->check = check ? bpf_htons(check) : 0xffff; /* 0 would be "none" (RFC 768) */
}

/* To the user-space half. What finds no socket is lost: the half sees by the numbers what it did not get. */
static __always_inline int hand_over(struct xdp_md *ctx, __u32 way, __u32 line, const struct fault_fate *fate,
				     __u64 jitter)
{
	__u32 queue = ctx->rx_queue_index;

	if (queue >= FAULT_QUEUES_MAX || bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct fault_meta)))
		return XDP_DROP;
	struct fault_meta *meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	meta->rx_ns = bpf_ktime_get_ns();
	meta->jitter = jitter;
	meta->number = fate->number;
	meta->magic = FAULT_META_MAGIC;
	meta->line = line;
	meta->flags = fate->flags;
	return bpf_redirect_map(&fault_xsks, way * FAULT_QUEUES_MAX + queue, XDP_DROP);
}

static __always_inline int carry(struct xdp_md *ctx, __u32 way)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct flow flow = {};
	__u32 payload_bytes = 0, *index = NULL;
	/* Opaque to the compiler: clang-14 would otherwise fold it into 32-bit pointer arithmetic. */
	__u64 frame_bytes = (__u64)end - (__u64)data;
	barrier_var(frame_bytes);

	if (read_datagram(&flow, data, end, frame_bytes, &payload_bytes)) {
		struct udphdr *udp = data + (flow.transport & TRANSPORT_MASK);
		if ((void *)(udp + 1) <= end) {
			struct fault_key key = {
				.address = flow.destination, .port = bpf_ntohs(udp->dest), .way = way,
			};
			index = bpf_map_lookup_elem(&fault_lines, &key);
		}
	}
	__u32 place = index ? *index : FAULT_LINES_MAX;
	struct fault_line *line = index ? bpf_map_lookup_elem(&fault_rules, &place) : NULL;
	if (!line) {
		struct fault_other *other = bpf_map_lookup_elem(&fault_others, &way);
		if (other) {
			other->packet_count++;
			other->byte_count += frame_bytes;
		}
		return bpf_redirect_map(&fault_ways, way, XDP_DROP);
	}
	bpf_spin_lock(&line->lock);
	struct fault_fate fate = fault_next(line, payload_bytes, frame_bytes);
	__u32 flags = line->flags;
	__u64 seed = line->seed;
	bpf_spin_unlock(&line->lock);

	if (fate.flags & FATE_LOST)
		return XDP_DROP;
	if (fate.flags & FATE_CORRUPTED)
		corrupt(&flow, data, end, fate.bit, flags & FAULT_REPAIRS);
	if (flags & FAULT_HOLDS)
		return hand_over(ctx, way, place, &fate, fault_drawn(seed, fate.number, DRAW_JITTER));
	if (fate.flags & FATE_DUPLICATED)
		return way ? bpf_redirect_map(&fault_twice_back, 0, BPF_F_BROADCAST) :
			     bpf_redirect_map(&fault_twice_forward, 0, BPF_F_BROADCAST);
	return bpf_redirect_map(&fault_ways, way, XDP_DROP);
}

SEC("xdp")
int fault_forward(struct xdp_md *ctx)
{
	return carry(ctx, 0);
}

SEC("xdp")
int fault_back(struct xdp_md *ctx)
{
	return carry(ctx, 1);
}
