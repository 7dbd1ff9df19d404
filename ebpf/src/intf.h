/* The contract between the steering program and user space: every struct, constant and verdict that
 * crosses the boundary. `intf.rs` mirrors the structs and asserts the same sizes and offsets;
 * `build.rs` reads the verdict list below and generates the Rust table from it, so that this file
 * is the only list.
 */
#ifndef NAUTILUS_INTF_H
#define NAUTILUS_INTF_H

#include <linux/types.h>
#include <stddef.h>

/* 802.1Q and 802.1ad tags followed; more go to the kernel. */
#define VLAN_TAGS_MAX 2
/* IPv6 extension headers followed; more go to the kernel. */
#define EXTENSION_HEADERS_MAX 4
/* AF_XDP sockets of one node, over all its interfaces and queues. */
#define SOCKETS_MAX 64
#define INTERFACES_MAX 16
#define SOURCES_EXACT_MAX 16384
#define SOURCES_MAX 16384
#define SERVED_MAX 1024
#define PORTS_MAX 65536
/* Pairs of addresses a CPU remembers; a power of two. Too low: busy pairs displace each other and pay
 * for the trie again. Too high: the memory itself is no longer in the CPU's cache.
 */
#define JUDGED_MAX 512

/* Lists a node has: 0 is the node's own, the others are caches'. What a source may do on each stands in
 * one word, PERMISSION_BITS a list.
 */
#define LISTS_MAX 21
#define PERMISSION_BITS 3
#define PERMISSION_MASK 7

/* Limits a node has; 0 is none. */
#define LIMITS_MAX 64
/* Sources with a limit that are remembered at once. Too low: more busy sources than this take each
 * other's place, and whoever comes back has its burst again. Too high: memory.
 */
#define BUCKETS_MAX 16384
/* Buckets count time in 1/16 ns: a u64 lasts 36 years. */
#define BUCKET_UNITS_PER_NS 16
/* The cost of a byte has this many bits behind the point. */
#define BYTE_COST_SHIFT 20
/* How often a bucket that another CPU has just changed is tried again. Too low: a source that stays
 * below its limit loses packets when several queues receive them. Too high: a flood over many queues
 * holds all of them up.
 */
#define BUCKET_TRIES 8

/* The hot set. Slots: a power of two. Too low: hot keys displace each other. Too high: the slots
 * themselves are no longer in the CPU's cache.
 */
#define HOT_SLOTS 4096
/* Equal parts of the slots, one a worker: a power of two up to this. */
#define HOT_AREAS_MAX 8
/* Caches of one node that can be answered from the hot set, and feed channels of each. */
#define HOT_CACHES 16
#define HOT_CHANNELS 256
#define HOT_KEY_BYTES_MAX 32
#define HOT_KEY_WORDS (HOT_KEY_BYTES_MAX / 8)
/* Text of one reply. With it the longest answer is 201 bytes longer than its request; a driver leaves
 * 256 bytes before a packet and the kernel keeps 40 of them to itself.
 */
#define HOT_REPLY_BYTES_MAX 208
#define HOT_REPLY_WORDS (HOT_REPLY_BYTES_MAX / 8)
/* Words of the client's flags (32 bits) and the version (64 bits) in decimal digits. */
#define HOT_FLAGS_WORDS 2
#define HOT_VERSION_WORDS 3
/* How often a slot is copied before the worker gets the request. Too low: a key that is being written
 * costs a detour. Too high: a writer that publishes without pause holds up the queue.
 */
#define HOT_READ_TRIES 3

/* Feeds of a node, lines of one, and lines of all of them. */
#define FEEDS_MAX 16
#define FEED_LINES_MAX 3
#define FEED_LINES_TOTAL (FEEDS_MAX * FEED_LINES_MAX)
/* Dropped packets of a feed that its worker has not counted yet; a power of two. Too low: while the worker
 * sleeps or works, copies reach it that it need not have seen. Too high: memory.
 */
#define FEED_RECORDS 2048
/* How often the place of a record that another CPU has just taken is tried again. Too low: a copy reaches
 * the worker that it need not have seen. Too high: lines on many queues hold each other up.
 */
#define FEED_RECORD_TRIES 4
/* Longest datagram of a feed whose checksum is verified here, UDP header included; longer ones are the
 * worker's.
 */
#define FEED_DATAGRAM_BYTES_MAX 2048

/* Value of `hot_hits`, one a CPU: answers from each slot, and for each cache. */
struct hot_hits_row {
	__u64 slots[HOT_SLOTS];
	__u64 caches[HOT_CACHES];
};
_Static_assert(sizeof(struct hot_hits_row) == 32896, "hot_hits_row");
_Static_assert(offsetof(struct hot_hits_row, caches) == 32768, "hot_hits_row.caches");

/* rx_meta.magic; the bytes read "NAUT" on a little-endian host. */
#define RX_META_MAGIC 0x5455414e

/* Directly before the first byte of every redirected frame (XDP metadata). */
struct rx_meta {
	__u64 rx_ns; /* CLOCK_MONOTONIC when the program ran, nanoseconds */
	__u32 magic; /* RX_META_MAGIC */
	__u32 permissions; /* PERMISSION_* bits: what the source may do with the service it means */
};
_Static_assert(sizeof(struct rx_meta) == 16, "rx_meta");
_Static_assert(offsetof(struct rx_meta, magic) == 8, "rx_meta.magic");

/* Key of `sources_exact` and `served`: IPv6, or IPv4 as ::ffff:a.b.c.d, in network order. */
struct address {
	__u32 words[4];
};
_Static_assert(sizeof(struct address) == 16, "address");

/* Key of `sources`: bits counted over the 16 bytes, so an IPv4 /15 is 96 + 15. */
struct source_prefix {
	__u32 bits;
	struct address address;
};
_Static_assert(sizeof(struct source_prefix) == 20, "source_prefix");
_Static_assert(offsetof(struct source_prefix, address) == 4, "source_prefix.address");

#define PERMISSION_READ 1
#define PERMISSION_WRITE 2
#define PERMISSION_ADMIN 4

/* Value of `sources_exact` and `sources`. The family keeps ::/0 from meaning every IPv4 address too:
 * both families share one trie, and ::/0 covers the mapped range.
 */
struct source {
	__u64 permissions; /* PERMISSION_* bits of list N from bit N * PERMISSION_BITS on; 0 denies */
	__u32 limit; /* index of `limits`; 0 is none */
	__u32 family; /* 4 or 6: the family of the packets it speaks for */
};
_Static_assert(sizeof(struct source) == 16, "source");
_Static_assert(offsetof(struct source, limit) == 8, "source.limit");
_Static_assert(offsetof(struct source, family) == 12, "source.family");
_Static_assert(LISTS_MAX * PERMISSION_BITS <= 64, "every list has its bits");

/* Value of `limits`: costs are what a packet or byte takes of its bucket, in BUCKET_UNITS_PER_NS, and
 * bursts what a full bucket holds. A cost of 0 is no bucket.
 */
struct limit {
	__u64 packet_cost;
	__u64 packet_burst;
	__u64 byte_cost; /* of 2^BYTE_COST_SHIFT bytes */
	__u64 byte_burst;
};
_Static_assert(sizeof(struct limit) == 32, "limit");
_Static_assert(offsetof(struct limit, byte_cost) == 16, "limit.byte_cost");

/* Value of `buckets`, keyed by source: when each bucket is full again, in units since boot. A time that
 * has passed is a full bucket.
 */
struct bucket {
	__u64 packets_full_at;
	__u64 bytes_full_at;
};
_Static_assert(sizeof(struct bucket) == 16, "bucket");
_Static_assert(offsetof(struct bucket, bytes_full_at) == 8, "bucket.bytes_full_at");

/* service.flags */
#define SERVICE_UDP 1
#define SERVICE_TCP 2
#define SERVICE_UNICAST 4 /* answers to unicast destinations */
#define SERVICE_MULTICAST 8 /* answers to multicast destinations */
#define SERVICE_REPLIES 16 /* sends a datagram back: source ports are checked against loops */
#define SERVICE_HOT 32 /* a memcached cache whose hot keys the program may answer itself */
#define SERVICE_FEED 64 /* lines of feeds: what was applied may be dropped, see `feed_lines` */
/* Of a SERVICE_HOT: into how many areas the slots are divided, as a power of two. */
#define SERVICE_HOT_AREA_BITS_SHIFT 8
#define SERVICE_HOT_AREA_BITS_MASK 3
_Static_assert(1 << SERVICE_HOT_AREA_BITS_MASK == HOT_AREAS_MAX, "every number of areas");

/* Value of `ports`, indexed by destination port in host order; flags 0 is no service. */
struct service {
	__u32 id; /* for the reader of the map; the program does not look at it */
	__u32 flags; /* SERVICE_* bits */
	__u32 cache_generation; /* of a SERVICE_HOT: a hot slot must say the same */
	__u16 cache; /* of a SERVICE_HOT: below HOT_CACHES */
	__u16 list; /* whose permissions count; below LISTS_MAX */
};
_Static_assert(sizeof(struct service) == 16, "service");
_Static_assert(offsetof(struct service, flags) == 4, "service.flags");
_Static_assert(offsetof(struct service, cache_generation) == 8, "service.cache_generation");
_Static_assert(offsetof(struct service, cache) == 12, "service.cache");
_Static_assert(offsetof(struct service, list) == 14, "service.list");

/* Value of `interfaces`, keyed by ifindex. */
struct interface {
	__u8 mac[6]; /* ours on this interface */
	__u16 queue_count; /* receive queues that may have a socket */
	__u32 first_socket; /* xsks[first_socket + rx_queue_index] */
};
_Static_assert(sizeof(struct interface) == 12, "interface");
_Static_assert(offsetof(struct interface, queue_count) == 6, "interface.queue_count");
_Static_assert(offsetof(struct interface, first_socket) == 8, "interface.first_socket");

/* Value of `served`. */
struct served {
	__u32 reserved; /* 0 */
};
_Static_assert(sizeof(struct served) == 4, "served");

/* Value of `judged`: what the lists said of a pair of addresses while `list_epoch` was `epoch`. */
struct judged {
	struct address source;
	struct address destination; /* served */
	__u64 epoch;
	__u64 permissions; /* the source's, as in `source`; 0 is unlisted */
	__u32 limit; /* the source's */
	__u32 reserved;
};
_Static_assert(sizeof(struct judged) == 56, "judged");
_Static_assert(offsetof(struct judged, epoch) == 32, "judged.epoch");
_Static_assert(offsetof(struct judged, limit) == 48, "judged.limit");

/* Value of `verdicts`, indexed by enum verdict, one per possible CPU. */
struct tally {
	__u64 packet_count;
	__u64 byte_count; /* whole frames from the Ethernet header on, as received */
};
_Static_assert(sizeof(struct tally) == 16, "tally");
_Static_assert(offsetof(struct tally, byte_count) == 8, "tally.byte_count");

/* One half of a hot slot: a key and its finished reply. */
struct hot_copy {
	__u64 expiry_ns; /* CLOCK_MONOTONIC from which on it is no longer true; 0 is never */
	__u64 key[HOT_KEY_WORDS]; /* ends with the last word, zeroes before it */
	__u32 cache_generation;
	__u32 epoch; /* flush epoch and channel epoch of the cache when the value was written, added */
	__u16 cache;
	__u16 reply_bytes; /* 1..HOT_REPLY_BYTES_MAX */
	__u16 reply_sum; /* ones'-complement sum of the text, which starts at an even offset (RFC 1071) */
	__u8 channel; /* 0: the clients' own */
	__u8 key_bytes; /* 1..HOT_KEY_BYTES_MAX; 0 is an empty slot */
	__u16 value_sum; /* as reply_sum, of the value and the line end behind it */
	__u8 line_bytes; /* of the reply before its value; 0: no meta request is answered from it */
	__u8 value_bytes;
	__u8 flags_bytes; /* digits of the client's flags */
	__u8 version_bytes; /* digits of the version */
	__u16 reserved; /* 0 */
	__u64 flags[HOT_FLAGS_WORDS]; /* digits, then zeroes */
	__u64 version[HOT_VERSION_WORDS]; /* digits, then zeroes */
	__u64 reply[HOT_REPLY_WORDS]; /* everything after the UDP frame header, as `get` is told */
};
_Static_assert(sizeof(struct hot_copy) == 312, "hot_copy");
_Static_assert(offsetof(struct hot_copy, key) == 8, "hot_copy.key");
_Static_assert(offsetof(struct hot_copy, cache_generation) == 40, "hot_copy.cache_generation");
_Static_assert(offsetof(struct hot_copy, epoch) == 44, "hot_copy.epoch");
_Static_assert(offsetof(struct hot_copy, cache) == 48, "hot_copy.cache");
_Static_assert(offsetof(struct hot_copy, channel) == 54, "hot_copy.channel");
_Static_assert(offsetof(struct hot_copy, value_sum) == 56, "hot_copy.value_sum");
_Static_assert(offsetof(struct hot_copy, flags) == 64, "hot_copy.flags");
_Static_assert(offsetof(struct hot_copy, version) == 80, "hot_copy.version");
_Static_assert(offsetof(struct hot_copy, reply) == 104, "hot_copy.reply");

/* Value of `hot`. Readers use copies[version & 1] and believe it when the version is the same
 * afterwards; the one writer fills the other copy and then stores version + 1. Ten cache lines, of which
 * a hit on a reply up to 192 bytes touches five or six.
 */
struct hot_slot {
	__u64 version;
	struct hot_copy copies[2];
	__u64 reserved; /* 0 */
};
_Static_assert(sizeof(struct hot_slot) == 640, "hot_slot");
_Static_assert(sizeof(struct hot_slot) % 64 == 0, "a slot begins a cache line");
_Static_assert(offsetof(struct hot_slot, copies) == 8, "hot_slot.copies");

/* One feed channel of a cache. */
struct hot_channel {
	__u64 valid_until_ns; /* CLOCK_MONOTONIC; 0 is suspect, ~0 is without a limit */
	__u64 epoch; /* how often the channel was begun anew */
};
_Static_assert(sizeof(struct hot_channel) == 16, "hot_channel");

/* Value of `hot_words`, indexed by cache: what says, after a reply was copied, whether it may be
 * used. All zero, as loaded, says no.
 */
struct hot_words {
	__u64 valid_until_ns; /* CLOCK_MONOTONIC, the lease; ~0 for a cache that needs none */
	__u64 flush_epoch; /* how often everything was forgotten */
	__u64 halted; /* the supervisor's: not 0 while the node's kill switch is on */
	__u64 reserved[5]; /* 0 */
	struct hot_channel channels[HOT_CHANNELS]; /* of channel 0, the clients', only the epoch counts */
};
_Static_assert(sizeof(struct hot_words) == 4160, "hot_words");
_Static_assert(offsetof(struct hot_words, halted) == 16, "hot_words.halted");
_Static_assert(offsetof(struct hot_words, channels) == 64, "hot_words.channels");

/* Key of `feed_lines`: where a line is received. */
struct feed_line_key {
	struct address group;
	__u32 port; /* host order */
};
_Static_assert(sizeof(struct feed_line_key) == 20, "feed_line_key");
_Static_assert(offsetof(struct feed_line_key, port) == 16, "feed_line_key.port");

/* Value of `feed_lines`: whose line it is, and which. */
struct feed_line {
	__u32 feed; /* index of `feeds` */
	__u32 line; /* below FEED_LINES_MAX */
};
_Static_assert(sizeof(struct feed_line) == 8, "feed_line");

/* One packet that was dropped, for the worker to count. */
struct feed_record {
	__u64 stamp; /* its place in the sequence of records, plus 1, once the rest is written */
	__u64 version; /* of the slot, by which it was judged */
	__u64 sequence;
	__u16 message_count; /* 1..65534 */
	__u16 line;
	__u32 reserved; /* 0 */
};
_Static_assert(sizeof(struct feed_record) == 32, "feed_record");
_Static_assert(offsetof(struct feed_record, message_count) == 24, "feed_record.message_count");
_Static_assert(offsetof(struct feed_record, line) == 26, "feed_record.line");

/* Value of `feeds`: what the owner of a feed has applied, and what the program dropped because of it. All
 * zero, as loaded, is "nothing is known". Each group of words has a cache line of its own, since each has
 * another writer; whole pages, so that a worker can map one slot alone.
 */
struct feed_slot {
	/* The owner's. Odd or 0: nothing is known. The other words may be used when it is the same before
	 * and after they were read; `next` moves up under one version.
	 */
	__u64 version;
	__u64 session_head; /* the session's first 8 bytes as they stand in the packet */
	__u64 session_tail; /* and its last 2 */
	__u64 from; /* every message from this number on ... */
	__u64 next; /* ... to before this one was applied */
	__u64 reserved_0[3];
	/* The program's: records begun, on all CPUs together. */
	__u64 head;
	__u64 reserved_1[7];
	/* The owner's: records counted. */
	__u64 tail;
	__u64 reserved_2[495];
	struct feed_record records[FEED_RECORDS];
};
_Static_assert(sizeof(struct feed_slot) == 17 * 4096, "feed_slot");
_Static_assert(offsetof(struct feed_slot, head) == 64, "feed_slot.head");
_Static_assert(offsetof(struct feed_slot, tail) == 128, "feed_slot.tail");
_Static_assert(offsetof(struct feed_slot, records) == 4096, "feed_slot.records");

/* Every packet counts exactly one of these. One per line: X(name, "what it means"). The lists are in
 * the order in which the program can reach them, and a packet gets the first that applies.
 */
#define PASS_VERDICTS(X) \
	X(link_truncated, "the frame ends inside its Ethernet header or a VLAN tag") \
	X(vlan_depth, "more than two VLAN tags") \
	X(not_ip, "neither IPv4 nor IPv6: ARP, LLDP, 802.3 and the like") \
	X(ip_malformed, "the IP header is cut short or contradicts itself") \
	X(unknown_interface, "the interface has no entry in the interfaces map") \
	X(other_mac, "the destination MAC is neither ours nor the group's of a multicast destination") \
	X(other_address, "the destination address is not served") \
	X(fragment, "an IP fragment, the first and IPv6 atomic ones included") \
	X(extension_headers, "an IPv6 header chain that is too long, out of order, cut short or still to be routed") \
	X(other_protocol, "neither UDP nor TCP: ICMP, IGMP, tunnels and the like") \
	X(transport_truncated, "the frame ends before the UDP or TCP ports") \
	X(other_port, "no service of ours on this port for this protocol and kind of destination") \
	X(tcp_listed, "TCP to a port of ours from a listed source") \
	X(too_long, "for a service of ours, but longer than a UMEM chunk holds") \
	X(no_socket, "for a service of ours, but the arriving queue has no socket") \
	X(no_metadata, "for a service of ours, but the driver has no room for the receive stamp")

#define DROP_VERDICTS(X) \
	X(source_invalid, "to a port of ours from a multicast, reserved, broadcast, zero, loopback or IPv4-mapped source, or from the destination itself") \
	X(source_unlisted, "UDP to a port of ours from a source that is not on its list") \
	X(tcp_source_unlisted, "TCP to a port of ours from a source that is not on its list") \
	X(packet_limit, "to a port of ours from a listed source that has used up its packets") \
	X(byte_limit, "to a port of ours from a listed source that has used up its bytes") \
	X(ip_length, "UDP to a port of ours whose IP length exceeds the frame or leaves no room for UDP") \
	X(udp_length, "UDP to a port of ours whose UDP length is under 8 or exceeds the IP packet") \
	X(source_port, "UDP to a replying service from port 0 or from the port of a replying service: a loop") \
	X(feed_applied, "a copy of feed messages that the feed's worker has applied: counted on its line")

#define TX_VERDICTS(X) \
	X(hot_hit, "a get or mg of a hot key from a source that may read: answered")

#define REDIRECT_VERDICTS(X) \
	X(redirected, "handed to the AF_XDP socket of the arriving queue")

#define VERDICT_ENUMERATOR(name, help) VERDICT_##name,
#define VERDICT_ONE(name, help) +1
enum verdict {
	PASS_VERDICTS(VERDICT_ENUMERATOR)
	DROP_VERDICTS(VERDICT_ENUMERATOR)
	TX_VERDICTS(VERDICT_ENUMERATOR)
	REDIRECT_VERDICTS(VERDICT_ENUMERATOR)
	VERDICT_COUNT
};
#define VERDICT_FIRST_DROP (0 PASS_VERDICTS(VERDICT_ONE))
#define VERDICT_FIRST_TX (VERDICT_FIRST_DROP DROP_VERDICTS(VERDICT_ONE))
#define VERDICT_FIRST_REDIRECT (VERDICT_FIRST_TX TX_VERDICTS(VERDICT_ONE))
_Static_assert(VERDICT_redirected == VERDICT_FIRST_REDIRECT, "verdict order");

#endif
