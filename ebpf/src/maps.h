/* The steering program's maps. The supervisor writes them, except judged, buckets, verdicts and
 * hot_hits, which only this program writes, and hot, hot_words and feeds, which a worker writes; in feeds this program
 * writes the records.
 */
#ifndef NAUTILUS_MAPS_H
#define NAUTILUS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "intf.h"

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
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LIMITS_MAX);
	__type(key, __u32);
	__type(value, struct limit);
} limits SEC(".maps");

/* Of every CPU together, so that a source has its limit once. Sources displace each other when there are
 * too many; one without a limit never has an entry.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BUCKETS_MAX);
	__type(key, struct address);
	__type(value, struct bucket);
} buckets SEC(".maps");

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

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FEED_LINES_TOTAL);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct feed_line_key);
	__type(value, struct feed_line);
} feed_lines SEC(".maps");

/* One owner a slot: the worker that applies the feed, which maps this slot alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FEEDS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct feed_slot);
} feeds SEC(".maps");

/* One writer a slot: the worker whose area it is in. Mapped by it, so that publishing is stores. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOT_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hot_slot);
} hot SEC(".maps");

/* One writer a word: the holder of the lease, the cache's owner, the owner of the channel's feed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOT_CACHES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hot_words);
} hot_words SEC(".maps");

/* How often each slot was answered from, and for each cache: a row a CPU, whose softirq is its one writer. Not a per-CPU map:
 * those cannot be mapped, and a worker that reads must not have to ask the kernel. As many entries as
 * there are possible CPUs, set before loading.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hot_hits_row);
} hot_hits SEC(".maps");

#endif
