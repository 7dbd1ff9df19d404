/* Copies of feed messages that their worker has applied: dropped before they cost it anything.
 *
 *   worker: apply, publish, then next = N (release)       program, on any CPU: session S, numbers s..s+n
 *     version odd, session, from, next, version even  ──►   version even, S the same, from <= s, s+n <= N,
 *                                                           version still the same?   no: to the worker
 *     counts the record on its line, tail + 1         ◄──   record (line, s, n), stamp; dropped
 *
 * The program never concludes from a packet that its messages were seen: only from what the owner says it
 * has applied. A packet is dropped only when all of its messages lie in from..next, a run without a hole: what
 * was given up in a gap lies before `from`. A heartbeat, the end of a session, a packet with one new message,
 * of another session, with IP options, extension headers or a wrong checksum is the worker's, as before.
 *
 * Torn reads. Loads and stores stay in order on x86-64, the only processor this is built for. The owner makes
 * the version odd before it stores another session or run, and even after; a reader that finds the same even
 * version before and after has words of one publication. `next` alone moves under a version: one store of 8
 * bytes, made after the messages were applied, so what it covers was applied, whichever value is read. An
 * owner that dies between leaves the version odd, and one that dies after leaves what it had applied; its
 * successor makes the version odd before it does anything else. A run of this program that had read the
 * version before that drops a packet that came before.
 *
 * Exact counts. What is dropped must be counted on its line as if it had come: by a record, not by the number
 * alone, because a bit in a window that moves could be set late by a CPU that was held up, and would then stand for
 * another number. A place is taken by compare-and-swap on `head`, and the stamp, stored last, says that
 * the record is whole. No room, or the place lost too often to other CPUs: nothing has been changed, and the packet
 * is the worker's. The owner stops at a place without its stamp, and so counts every record once, in order; the
 * place is free only when `tail` has passed it. The version in a record tells the owner of which session it is.
 */
#ifndef NAUTILUS_FEED_H
#define NAUTILUS_FEED_H

#include "maps.h"
#include "parse.h"
#include "sum.h"

/* MoldUDP64 1.00, downstream packet header. */
struct mold_header {
	__u64 session_head;
	__u16 session_tail;
	__be64 sequence;
	__be16 message_count;
} __attribute__((packed));
_Static_assert(sizeof(struct mold_header) == 20, "mold_header");
#define MOLD_HEARTBEAT 0
#define MOLD_END_OF_SESSION 0xffff
/* A message has at least its length. */
#define MOLD_BLOCK_BYTES_MIN 2

/* Largest offset of a UDP header behind two tags and IPv6, as a mask that changes no such offset. */
#define FEED_TRANSPORT_MASK 0x3f
_Static_assert(sizeof(struct ethhdr) + VLAN_TAGS_MAX * sizeof(struct vlan_tag) + sizeof(struct ipv6hdr) <=
		       FEED_TRANSPORT_MASK, "two tags and IPv6");
#define FEED_SUM_BYTES 64
_Static_assert(FEED_DATAGRAM_BYTES_MAX % FEED_SUM_BYTES == 0, "whole steps");

/* A datagram whose checksum is verified, at an even offset and with zeroes behind it. */
struct feed_scratch {
	__u8 datagram[FEED_DATAGRAM_BYTES_MAX + FEED_SUM_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct feed_scratch);
} feed_scratches SEC(".maps");

/* Whether a datagram's checksum is right; `sum` is that of its pseudo-header. A function of its own to the
 * verifier, which would else walk it once for every kind of header before it.
 */
__noinline int feed_sum_right(struct xdp_md *ctx, __u32 transport, __u32 bytes, __u64 sum)
{
	__u32 zero = 0;
	struct feed_scratch *scratch = bpf_map_lookup_elem(&feed_scratches, &zero);

	if (!scratch || bytes < sizeof(struct udphdr))
		return false;
	/* Else both bounds become one comparison, which verifiers of 6.1 and 6.12 do not follow. */
	barrier_var(bytes);
	if (bytes > FEED_DATAGRAM_BYTES_MAX ||
	    bpf_xdp_load_bytes(ctx, transport, scratch->datagram, bytes))
		return false;
	__u64 *behind = (void *)scratch->datagram + bytes;
#pragma unroll
	for (int i = 0; i < FEED_SUM_BYTES / 8; i++)
		behind[i] = 0;
#pragma clang loop unroll(disable)
	for (__u32 at = 0; at < FEED_DATAGRAM_BYTES_MAX; at += FEED_SUM_BYTES) {
		__u64 *words = (void *)scratch->datagram + at;

		if (at >= bytes)
			break;
#pragma unroll
		for (int i = 0; i < FEED_SUM_BYTES / 8; i++)
			sum += sum_of(words[i]);
	}
	return sum_fold(sum) == 0xffff;
}

/* Whether the owner of the slot has applied all messages of this header; `version` is by which it is said. */
static __always_inline bool feed_covers(const struct feed_slot *slot, const struct mold_header *header,
					__u64 sequence, __u16 message_count, __u64 *version)
{
	const volatile struct feed_slot *words = slot;
	/* SYNC POINT: pairs with the release stores of `FeedSlot::publish` and `FeedSlot::advance`. */
	__u64 before = words->version;

	if (!before || before & 1)
		return false;
	barrier();
	__u64 session_head = words->session_head, session_tail = words->session_tail;
	__u64 from = words->from, next = words->next;
	barrier();
	if (words->version != before)
		return false;
	*version = before;
	/* Without a sum that could run over. */
	return header->session_head == session_head && header->session_tail == session_tail &&
	       from <= sequence && sequence < next && message_count <= next - sequence;
}

/* Leaves a record for the owner; false when there is no room. */
static __always_inline bool feed_record(struct feed_slot *slot, __u64 version, __u64 sequence,
					__u16 message_count, __u16 line)
{
#pragma clang loop unroll(disable)
	for (int tries = 0; tries < FEED_RECORD_TRIES; tries++) {
		__u64 head = *(volatile __u64 *)&slot->head;

		/* A tail beyond the head is nobody's, and counts as no room. */
		if (head - *(volatile __u64 *)&slot->tail >= FEED_RECORDS)
			return false;
		if (__sync_val_compare_and_swap(&slot->head, head, head + 1) != head)
			continue;
		volatile struct feed_record *record = &slot->records[head & (FEED_RECORDS - 1)];
		record->version = version;
		record->sequence = sequence;
		record->message_count = message_count;
		record->line = line;
		barrier();
		/* SYNC POINT: pairs with the acquire load of `FeedSlot::drain`. */
		record->stamp = head + 1;
		return true;
	}
	return false;
}

/* Whether a datagram for a SERVICE_FEED, whose lengths are true, is to be dropped; it has been recorded then. */
static __always_inline bool feed_is_applied(struct xdp_md *ctx, const struct flow *flow, void *data,
					    void *end, const struct udphdr *udp)
{
	__u32 header_bytes = flow->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 transport = flow->transport;

	if (transport != flow->network + header_bytes)
		return false;
	transport &= FEED_TRANSPORT_MASK;
	struct mold_header *header = data + transport + sizeof(*udp);
	__u16 udp_bytes = bpf_ntohs(udp->len), message_count;
	if ((void *)(header + 1) > end || udp_bytes > FEED_DATAGRAM_BYTES_MAX)
		return false;
	message_count = bpf_ntohs(header->message_count);
	if (message_count == MOLD_HEARTBEAT || message_count == MOLD_END_OF_SESSION ||
	    udp_bytes < sizeof(*udp) + sizeof(*header) + message_count * MOLD_BLOCK_BYTES_MIN)
		return false;

	struct feed_line_key key = { .group = flow->destination, .port = bpf_ntohs(udp->dest) };
	struct feed_line *line = bpf_map_lookup_elem(&feed_lines, &key);
	if (!line)
		return false;
	__u32 feed = line->feed;
	struct feed_slot *slot = bpf_map_lookup_elem(&feeds, &feed);
	__u64 version, sequence = bpf_be64_to_cpu(header->sequence);
	if (!slot || !feed_covers(slot, header, sequence, message_count, &version))
		return false;

	if (flow->family == 4 && !ipv4_sum_right(data, end, flow->network))
		return false;
	if (udp->check || flow->family == 6) {
		__u64 sum = bpf_htons(IPPROTO_UDP) + (__u64)udp->len;

		if (!udp->check) /* RFC 8200, 8.1 */
			return false;
#pragma unroll
		for (int i = 0; i < 4; i++)
			sum += (__u64)flow->source.words[i] + flow->destination.words[i];
		if (!feed_sum_right(ctx, transport, udp_bytes, sum))
			return false;
	}
	return feed_record(slot, version, sequence, message_count, line->line);
}

#endif
