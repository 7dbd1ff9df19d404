/* Steering: decides for every received frame whether it belongs to the data plane.
 *
 *   frame -> link -> IP header -> our MAC? -> served address? -> fragment? -> transport -> our port?
 *     each "no" or "cannot tell" leaves to the kernel (XDP_PASS), untouched
 *   our port -> source sane, listed, within its limit? -> lengths true? -> stamp -> socket of the queue
 *     each "no" is a drop                                       \-> a copy of applied feed messages? -> dropped
 *                                                             \-> get or mg of a hot key? -> answered (XDP_TX)
 *
 * Default deny holds for our ports only. The source list is consulted before anything else about a
 * packet for us is judged, so a forbidden source is always counted as one, however odd its packet.
 * classify() returns exactly one verdict; steer() counts it. Checksums are the worker's to verify,
 * except of what is answered or counted here.
 */
#include "maps.h"
#include "bucket.h"
#include "parse.h"
#ifdef HOT_PATH
#include "answer.h"
#include "feed.h"
#endif

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Longest frame a UMEM chunk holds, Ethernet header included; set before loading. */
const volatile __u32 frame_bytes_max = 1776;

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
static __always_inline void ask_lists(struct judged *memory, const struct flow *flow)
{
	struct source *source = bpf_map_lookup_elem(&sources_exact, &flow->source);

	if (!source) {
		struct source_prefix key = { .bits = 128, .address = flow->source };
		source = bpf_map_lookup_elem(&sources, &key);
	}
	bool found = source && source->family == flow->family;
	memory->permissions = found ? source->permissions : 0;
	memory->limit = found ? source->limit : 0;
}

/* Of the service's list alone. */
static __always_inline __u32 permissions_for(const struct service *service, __u64 permissions)
{
	__u32 list = service->list;

	return list < LISTS_MAX ? permissions >> (list * PERMISSION_BITS) & PERMISSION_MASK : 0;
}

static __always_inline bool replies(__be16 port)
{
	__u32 index = bpf_ntohs(port);
	struct service *service = bpf_map_lookup_elem(&ports, &index);

	return service && service->flags & SERVICE_REPLIES;
}

/* Writes the metadata and redirects; the packet is for us and sound. */
static __always_inline enum verdict redirect(struct xdp_md *ctx, const struct interface *interface,
					     __u32 permissions)
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
	meta->permissions = permissions;
	/* The socket can have left since the lookup. */
	return bpf_redirect_map(&xsks, socket, XDP_PASS) == XDP_REDIRECT ? VERDICT_redirected :
									    VERDICT_no_socket;
}

#ifdef HOT_PATH
/* Whether the request was answered: `data` and `end` are then another packet's. Counts the hit. */
static __always_inline bool answer_from_hot_set(struct xdp_md *ctx, const struct flow *flow, void *data,
						void *end, __u32 frame_bytes, const struct service *service)
{
	__u32 zero = 0;
	struct hot_scratch *scratch = bpf_map_lookup_elem(&hot_scratches, &zero);

	if (!scratch)
		return false;
	struct hot_get *get = &scratch->get;
	if (!hot_read(get, flow, data, end) && !meta_read(ctx, scratch, flow, data, end))
		return false;
	__u32 slot = hot_index(get, service);
	if (!hot_find(&scratch->reply, get, service, slot) || (get->meta && !meta_head(scratch)) ||
	    !answer(ctx, flow, scratch, frame_bytes))
		return false;
	__u32 cpu = bpf_get_smp_processor_id();
	struct hot_hits_row *row = bpf_map_lookup_elem(&hot_hits, &cpu);
	if (row) {
		++row->slots[slot & (HOT_SLOTS - 1)];
		++row->caches[service->cache & (HOT_CACHES - 1)];
	}
	return true;
}
#endif

/* UDP to a service of ours from a listed source. */
static __always_inline enum verdict judge_udp(struct xdp_md *ctx, const struct flow *flow, void *data,
					      void *end, __u32 frame_bytes, const struct service *service,
					      __u32 permissions,
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
	if (service->flags & SERVICE_REPLIES && (!udp->source || replies(udp->source)))
		return VERDICT_source_port;
	if (frame_bytes > frame_bytes_max)
		return VERDICT_too_long;
#ifdef HOT_PATH
	if (service->flags & SERVICE_FEED && feed_is_applied(ctx, flow, data, end, udp))
		return VERDICT_feed_applied;
	if (service->flags & SERVICE_HOT && permissions & PERMISSION_READ &&
	    answer_from_hot_set(ctx, flow, data, end, frame_bytes, service))
		return VERDICT_hot_hit;
#endif
	return redirect(ctx, interface, permissions);
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
		ask_lists(memory, &flow);
		memory->source = flow.source;
		memory->destination = flow.destination;
		memory->epoch = epoch;
	}
	__u32 permissions = permissions_for(service, memory->permissions), limit = memory->limit;
	bool tcp = flow.protocol == IPPROTO_TCP;
	if (!permissions)
		return tcp ? VERDICT_tcp_source_unlisted : VERDICT_source_unlisted;
	if (limit) {
		enum verdict verdict = judge_rate(&flow.source, limit, frame_bytes);
		if (verdict != VERDICT_COUNT)
			return verdict;
	}
	if (tcp)
		return VERDICT_tcp_listed;
	return judge_udp(ctx, &flow, data, end, frame_bytes, service, permissions, interface);
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
	       verdict < VERDICT_FIRST_TX ? XDP_DROP :
	       verdict < VERDICT_FIRST_REDIRECT ? XDP_TX : XDP_REDIRECT;
}
