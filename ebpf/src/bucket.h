/* What a source may send in a time: two token buckets for each source with a limit, one of packets and one
 * of bytes, shared by all CPUs.
 *
 *   full_at      the bucket is empty when it lies a burst ahead, full once it has passed
 *   ───┼──────────────┼───────────► time        a packet that costs c moves it to max(full_at, now) + c,
 *     now          full_at                      and is dropped where that is more than a burst from now
 *
 * A bucket is one word that is exchanged by compare-and-swap: no lock, no refill by anybody, and no two
 * CPUs spend the same token. Rates are met to the unit of time, bursts exactly; what is not granted is
 * the rest when costs were rounded up. Two inaccuracies remain, both to the source's loss: a packet that
 * finds its packet token and then loses the race for the last bytes has spent the token, and one that
 * loses BUCKET_TRIES races in a row is dropped. One is to its gain: a source that was displaced from
 * `buckets` starts again with a full burst.
 */
#ifndef NAUTILUS_BUCKET_H
#define NAUTILUS_BUCKET_H

#include <stdbool.h>
#include "maps.h"

/* False when the bucket does not hold as much; a cost of 0 is no bucket. */
static __always_inline bool holds(__u64 full_at, __u64 now, __u64 cost, __u64 burst)
{
	return !cost || (full_at > now ? full_at - now : 0) + cost <= burst;
}

static __always_inline bool take(__u64 *bucket, __u64 now, __u64 cost, __u64 burst)
{
	if (!cost)
		return true;
	__u64 full_at = *(volatile __u64 *)bucket;
#pragma clang loop unroll(disable)
	for (int tries = 0; tries < BUCKET_TRIES; tries++) {
		if (!holds(full_at, now, cost, burst))
			return false;
		__u64 found = __sync_val_compare_and_swap(bucket, full_at, (full_at > now ? full_at : now) + cost);
		if (found == full_at)
			return true;
		full_at = found;
	}
	return false;
}

static __always_inline struct bucket *bucket_of(const struct address *source)
{
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, source);

	if (!bucket) {
		struct bucket full = {};
		/* Another CPU may have been faster: then its bucket is the one. */
		bpf_map_update_elem(&buckets, source, &full, BPF_NOEXIST);
		bucket = bpf_map_lookup_elem(&buckets, source);
	}
	return bucket;
}

/* VERDICT_COUNT when the source may send this frame. Takes from both buckets or, races aside, from none:
 * what is dropped costs nothing.
 */
static __always_inline enum verdict judge_rate(const struct address *source, __u32 index, __u32 frame_bytes)
{
	struct limit *limit = bpf_map_lookup_elem(&limits, &index);
	struct bucket *bucket = bucket_of(source);

	/* No memory for a bucket, which an LRU map always finds but in a race: then deny. */
	if (!limit || !bucket)
		return VERDICT_packet_limit;
	__u64 now = bpf_ktime_get_ns() * BUCKET_UNITS_PER_NS;
	__u64 bytes = frame_bytes & 0xffff;
	__u64 byte_cost = (bytes * limit->byte_cost + (1 << BYTE_COST_SHIFT) - 1) >> BYTE_COST_SHIFT;

	if (!holds(*(volatile __u64 *)&bucket->bytes_full_at, now, byte_cost, limit->byte_burst))
		return VERDICT_byte_limit;
	if (!take(&bucket->packets_full_at, now, limit->packet_cost, limit->packet_burst))
		return VERDICT_packet_limit;
	if (!take(&bucket->bytes_full_at, now, byte_cost, limit->byte_burst))
		return VERDICT_byte_limit;
	return VERDICT_COUNT;
}

#endif
