/* The hot set: a request that it may answer, the slot of its key, and whether what the slot holds may
 * be used. Reads the packet and never changes it; `false` anywhere sends the request on to the worker.
 *
 * A request is `get KEY\r\n`, or an `mg` (meta.h), in one datagram with sound checksums, IPv4 without options or IPv6
 * without extension headers, untagged or with one 802.1Q tag. Everything else memcached knows is the
 * worker's, and so is every wrong checksum: it counts them.
 *
 * Slots need loads that stay in order, which BPF has only where the processor keeps them so: x86-64.
 * Words are put together here as a little-endian machine sees them.
 */
#ifndef NAUTILUS_HOT_H
#define NAUTILUS_HOT_H

#include "maps.h"
#include "parse.h"
#include "sum.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the hot path is for x86-64");

/* Before the key: UDP header, memcached's UDP frame header, the verb. */
#define FRAME_HEADER_BYTES 8
#define VERB_GET 0x20746567 /* "get " */
#define VERB_BYTES 4
#define LINE_END 0x0a0d /* "\r\n" */
#define LINE_END_BYTES 2
#define KEY_AT (sizeof(struct udphdr) + FRAME_HEADER_BYTES + VERB_BYTES)

/* Largest offsets of a request's IP and UDP header, as masks that change no such offset. */
#define HOT_NETWORK_MASK 0x1f
#define HOT_TRANSPORT_MASK 0x3f
#define HOT_KEY_MASK 0x7f
_Static_assert(sizeof(struct ethhdr) + sizeof(struct vlan_tag) <= HOT_NETWORK_MASK, "one tag");
_Static_assert(sizeof(struct ethhdr) + sizeof(struct vlan_tag) + sizeof(struct ipv6hdr) <=
		       HOT_TRANSPORT_MASK, "one tag and IPv6");

/* What a request said that its answer needs. */
struct hot_get {
	__u64 key[HOT_KEY_WORDS]; /* ends with the last word, zeroes before it */
	__u64 fixed_sum; /* addresses, protocol and ports: the same in the answer's checksum */
	__u32 key_bytes;
	__u32 ports; /* source and destination as they stood */
	__u16 id; /* of the request, in its own order */
	bool meta; /* an `mg` */
	__u32 meta_bytes; /* of its text */
};

/* What the slot says the answer is. */
struct hot_reply {
	__u64 text[HOT_REPLY_WORDS + 8]; /* as the slot has it, for a `get`; room for what is read too much */
	__u32 stored_bytes; /* of it */
	__u32 text_bytes; /* of the answer */
	__u16 text_sum; /* of the answer */
	/* What an `mg` needs beside it. */
	__u16 value_sum;
	__u8 line_bytes;
	__u8 value_bytes;
	__u8 flags_bytes;
	__u8 version_bytes;
	bool expires;
	__u32 copied_from; /* what of the text is in the answer, behind its head */
	__u32 copied_bytes;
	__u32 head_bytes; /* of the answer's first line, which ends at head_end of the scratch */
	__u32 head_end;
	__u64 flags[HOT_FLAGS_WORDS];
	__u64 version[HOT_VERSION_WORDS];
};

/* What is known of one packet at a time: more than the stack holds, and at places that only the request
 * says (meta.h).
 */
struct hot_scratch {
	struct hot_get get;
	struct hot_reply reply;
	__u8 request[144];
	__u8 head[304];
	/* Of the flags: kept here, where the verifier does not follow each value of theirs. */
	volatile __u32 pos;
	volatile __u32 q;
	volatile __u32 seen;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hot_scratch);
} hot_scratches SEC(".maps");

/* Everything about the frame around the request that an answer from here does not have. */
static __always_inline bool hot_headers(const struct flow *flow, void *data, void *end)
{
	__u32 network = flow->network;
	__u32 header_bytes = flow->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if (flow->multicast || flow->transport != network + header_bytes ||
	    network > sizeof(struct ethhdr) + sizeof(struct vlan_tag))
		return false;
	struct ethhdr *ethernet = data;
	if ((void *)(ethernet + 1) > end || ethernet->h_source[0] & 1)
		return false;
	if (network != sizeof(struct ethhdr) && ethernet->h_proto != bpf_htons(ETH_P_8021Q))
		return false;
	return flow->family == 6 || ipv4_sum_right(data, end, network);
}

/* Addresses, protocol and ports. An IPv4 address stands as ::ffff:a.b.c.d, whose prefix adds 0xffff:
 * nothing.
 */
static __always_inline __u64 hot_fixed_sum(struct hot_get *get, const struct flow *flow)
{
	__u64 fixed_sum = bpf_htons(IPPROTO_UDP) + (__u64)get->ports;

#pragma unroll
	for (int i = 0; i < 4; i++)
		fixed_sum += (__u64)flow->source.words[i] + flow->destination.words[i];
	get->fixed_sum = fixed_sum;
	return fixed_sum;
}

/* Reads a request with the key in four words that end at its end: what stands before a short key,
 * headers, is masked away, so that no loop and no copy of unknown length is needed.
 */
static __always_inline bool hot_read(struct hot_get *get, const struct flow *flow, void *data, void *end)
{
	if (!hot_headers(flow, data, end))
		return false;

	__u32 transport = flow->transport & HOT_TRANSPORT_MASK;
	void *udp = data + transport;
	if (udp + KEY_AT > end)
		return false;
	__u64 header = *(__u64 *)udp, frame = *(__u64 *)(udp + sizeof(struct udphdr));
	__u32 verb = *(__u32 *)(udp + KEY_AT - VERB_BYTES);
	/* Datagrams of the request: exactly one. The worker looks at no more of it either. */
	if ((frame >> 32 & 0xffff) != bpf_htons(1) || verb != VERB_GET)
		return false;

	__u16 length = header >> 32, checksum = header >> 48;
	__u32 key_bytes = bpf_ntohs(length);
	if (key_bytes <= KEY_AT + LINE_END_BYTES ||
	    key_bytes > KEY_AT + LINE_END_BYTES + HOT_KEY_BYTES_MAX)
		return false;
	key_bytes -= KEY_AT + LINE_END_BYTES;
	barrier_var(key_bytes);

	__u32 at = (transport + KEY_AT + key_bytes - HOT_KEY_BYTES_MAX) & HOT_KEY_MASK;
	__u64 *window = data + at;
	if ((void *)(window + HOT_KEY_WORDS) + LINE_END_BYTES > end ||
	    *(__u16 *)(window + HOT_KEY_WORDS) != LINE_END)
		return false;
	__u64 key_sum = LINE_END;
#pragma unroll
	for (int i = 0; i < HOT_KEY_WORDS; i++) {
		int bytes = (int)key_bytes - (HOT_KEY_BYTES_MAX - 8 * (i + 1));
		__u64 word = window[i];

		if (bytes <= 0)
			word = 0;
		else if (bytes < 8)
			word = word >> (64 - 8 * bytes) << (64 - 8 * bytes);
		get->key[i] = word;
		key_sum += sum_of(word);
	}
	get->meta = false;
	get->key_bytes = key_bytes;
	get->ports = header;
	get->id = frame;

	__u64 fixed_sum = hot_fixed_sum(get, flow);
	if (!checksum)
		return flow->family == 4; /* RFC 768: none was made. RFC 8200, 8.1: not so in IPv6. */
	/* The words end at the key's end; a key of odd length began between two bytes of a word. */
	__u16 text_sum = sum_fold(key_sum);
	if (key_bytes & 1)
		text_sum = sum_shifted(text_sum);
	return sum_fold(fixed_sum + 2 * (__u64)length + checksum + sum_of(frame) + verb + text_sum) == 0xffff;
}

/* Among all slots, as if there were one area. `slot_of` in hot/area.rs is the same. */
static __always_inline __u32 hot_hash(const __u64 *key, __u16 cache)
{
	__u64 hash = cache;

#pragma unroll
	for (int i = 0; i < HOT_KEY_WORDS; i++) {
		hash = (hash ^ key[i]) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 32;
	}
	return hash * 0xbb67ae8584caa73b >> 32 & (HOT_SLOTS - 1);
}

/* Another key, or one torn: either way not an answer. */
static __always_inline bool hot_shows(const volatile struct hot_copy *copy, const struct hot_get *get,
				      const struct service *service)
{
	return copy->key[3] == get->key[3] && copy->key[2] == get->key[2] &&
	       copy->key[1] == get->key[1] && copy->key[0] == get->key[0] &&
	       copy->key_bytes == get->key_bytes && copy->cache == service->cache &&
	       copy->cache_generation == service->cache_generation;
}

/* The slot to read: the key's only one, or that of the area in which it is shown. Whose shard a key is
 * in only the workers know, but no two of them show the same key: a slot that moves on meanwhile is
 * found out when it is read. HOT_SLOTS when no area shows it.
 */
static __always_inline __u32 hot_index(const struct hot_get *get, const struct service *service)
{
	__u32 area_bits = service->flags >> SERVICE_HOT_AREA_BITS_SHIFT & SERVICE_HOT_AREA_BITS_MASK;
	__u32 area_slots = HOT_SLOTS >> area_bits;
	__u32 index = hot_hash(get->key, service->cache) & (area_slots - 1);

	if (!area_bits)
		return index;
#pragma clang loop unroll(disable)
	for (int area = 0; area < HOT_AREAS_MAX && index < HOT_SLOTS; area++, index += area_slots) {
		struct hot_slot *slot = bpf_map_lookup_elem(&hot, &index);
		if (!slot)
			break;
		if (hot_shows(&slot->copies[*(volatile __u64 *)&slot->version & 1], get, service))
			return index;
	}
	return HOT_SLOTS;
}

/* The three words of the cache, the kill switch, and the value's own end. Mirrors `check` of the cache's table: every
 * deadline is a time from which on the value may not be used.
 */
static __always_inline bool hot_valid(__u16 cache, __u8 channel, __u32 epoch, __u64 expiry_ns)
{
	__u32 index = cache;
	volatile struct hot_words *words = bpf_map_lookup_elem(&hot_words, &index);

	if (!words)
		return false;
	volatile struct hot_channel *feed = &words->channels[channel];
	if ((__u32)(words->flush_epoch + feed->epoch) != epoch)
		return false;
	__u64 until_ns = words->valid_until_ns;
	if (expiry_ns && expiry_ns < until_ns)
		until_ns = expiry_ns;
	if (channel) {
		if (words->halted)
			return false;
		__u64 feed_until_ns = feed->valid_until_ns;
		if (feed_until_ns < until_ns)
			until_ns = feed_until_ns;
	}
	/* The clock costs as much as all the rest: most values need none. */
	return until_ns == ~0ull || (until_ns && bpf_ktime_get_ns() < until_ns);
}

/* Copies the slot of the key and checks it. Nothing else has been touched, so the worker
 * can still have the request.
 */
static __always_inline bool hot_find(struct hot_reply *reply, const struct hot_get *get,
				     const struct service *service, __u32 slot_index)
{
	struct hot_slot *slot = bpf_map_lookup_elem(&hot, &slot_index);
	__u64 expiry_ns, version;
	__u32 epoch;
	__u8 channel;

	if (!slot)
		return false;
#pragma clang loop unroll(disable)
	for (int tries = 0;; tries++) {
		if (tries == HOT_READ_TRIES)
			return false;
		/* SYNC POINT: pairs with the release store of `HotSlots::publish`. */
		version = *(volatile __u64 *)&slot->version;
		barrier();
		volatile struct hot_copy *copy = &slot->copies[version & 1];
		if (!hot_shows(copy, get, service))
			return false;
		expiry_ns = copy->expiry_ns;
		epoch = copy->epoch;
		channel = copy->channel;
		reply->text_bytes = copy->reply_bytes;
		reply->text_sum = copy->reply_sum;
		if (get->meta) {
			reply->value_sum = copy->value_sum;
			reply->line_bytes = copy->line_bytes;
			reply->value_bytes = copy->value_bytes;
			reply->flags_bytes = copy->flags_bytes;
			reply->version_bytes = copy->version_bytes;
#pragma unroll
			for (int i = 0; i < HOT_FLAGS_WORDS; i++)
				reply->flags[i] = copy->flags[i];
#pragma unroll
			for (int i = 0; i < HOT_VERSION_WORDS; i++)
				reply->version[i] = copy->version[i];
		}
#pragma unroll
		for (int i = 0; i < HOT_REPLY_WORDS; i++)
			reply->text[i] = copy->reply[i];
		/* Loads stay in order here: had the writer begun this copy again, it had moved the
		 * version on before.
		 */
		barrier();
		if (*(volatile __u64 *)&slot->version == version)
			break;
	}
	/* Whoever holds the map can write it: nothing in it is believed to be in bounds. */
	__u32 text_bytes = reply->text_bytes;
	barrier_var(text_bytes);
	if (!text_bytes || text_bytes > HOT_REPLY_BYTES_MAX)
		return false;
	reply->text_bytes = reply->stored_bytes = text_bytes;
	reply->copied_from = 0;
	reply->copied_bytes = text_bytes;
	reply->head_bytes = 0;
	reply->expires = expiry_ns;
	return hot_valid(service->cache, channel, epoch, expiry_ns);
}

#endif
