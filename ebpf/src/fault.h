/* The contract between the fault program and user space: what is done to the packets of a line, and how that
 * is drawn. `fault/intf.rs` mirrors the structs and asserts the same sizes and offsets; `fault/fate.rs` is the
 * same decision in Rust, and a test holds the two together packet by packet.
 */
#ifndef NAUTILUS_FAULT_H
#define NAUTILUS_FAULT_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include "intf.h"

/* Lines of one wire, both ways together. */
#define FAULT_LINES_MAX 64
/* Ways through the wire: 0 forward, 1 back. */
#define FAULT_WAYS 2
/* Receive queues of each of its interfaces that can have a socket. */
#define FAULT_QUEUES_MAX 16
#define FAULT_PPM 1000000

/* fault_line.flags */
#define FAULT_HOLDS 1 /* what is not lost goes to the socket of the user-space half, which sends it on */
#define FAULT_REPAIRS 2 /* a corrupted datagram gets the checksum that fits it */

/* Key of `fault_lines`: where a line's packets go. */
struct fault_key {
	struct address address;
	__u32 port; /* host order */
	__u32 way;
};
_Static_assert(sizeof(struct fault_key) == 24, "fault_key");
_Static_assert(offsetof(struct fault_key, port) == 16, "fault_key.port");

/* fault_fate.flags: what became of a packet. */
#define FATE_LOST 1
#define FATE_CORRUPTED 2
#define FATE_DUPLICATED 4
#define FATE_REORDERED 8

/* One packet's fate. */
struct fault_fate {
	__u64 number; /* the packet's on its line, from 1 */
	__u32 flags; /* FATE_* bits */
	__u32 bit; /* of a corrupted one: which of the payload's bits was turned */
};
_Static_assert(sizeof(struct fault_fate) == 16, "fault_fate");

/* Value of `fault_rules`: a line as the file describes it, and what has become of its packets so far. Read,
 * changed and copied under the lock, so that packets of several queues are numbered one after another and
 * all counts are of one moment.
 */
struct fault_line {
	struct bpf_spin_lock lock;
	__u32 flags; /* FAULT_* bits */
	__u64 seed;
	__u64 after; /* packets that pass unharmed before the first fault */
	__u64 until; /* number of the last packet that may be harmed */
	__u32 loss_ppm;
	__u32 burst_enter_ppm; /* a good packet's chance to be a burst's first */
	__u32 burst_leave_ppm; /* a burst's packet's chance to be the first good one */
	__u32 burst_loss_ppm; /* inside a burst, in the place of loss_ppm */
	__u32 corrupt_ppm;
	__u32 duplicate_ppm;
	__u32 reorder_ppm;
	__u32 in_burst;
	__u64 received;
	__u64 bytes; /* whole frames, as received */
	__u64 lost;
	__u64 corrupted;
	__u64 duplicated; /* here; those of a line that holds are made where they are held */
	__u64 handed; /* to the user-space half */
	__u64 burst_count;
	struct fault_fate last;
};
_Static_assert(sizeof(struct fault_line) == 136, "fault_line");
_Static_assert(offsetof(struct fault_line, seed) == 8, "fault_line.seed");
_Static_assert(offsetof(struct fault_line, loss_ppm) == 32, "fault_line.loss_ppm");
_Static_assert(offsetof(struct fault_line, received) == 64, "fault_line.received");
_Static_assert(offsetof(struct fault_line, last) == 120, "fault_line.last");

/* Value of `fault_others`, indexed by way: packets of no line, which pass as they came. */
struct fault_other {
	__u64 packet_count;
	__u64 byte_count;
};
_Static_assert(sizeof(struct fault_other) == 16, "fault_other");

/* fault_meta.magic; the bytes read "NAUF" on a little-endian host. */
#define FAULT_META_MAGIC 0x4655414e

/* Directly before the first byte of every frame that is handed to the user-space half. 32 bytes are all the
 * metadata that every kernel allows.
 */
struct fault_meta {
	__u64 rx_ns; /* CLOCK_MONOTONIC when the program ran */
	__u64 jitter; /* drawn for the delay's variable part */
	__u64 number; /* the packet's on its line */
	__u32 magic;
	__u16 line; /* index of `fault_rules` */
	__u16 flags; /* FATE_* bits */
};
_Static_assert(sizeof(struct fault_meta) == 32, "fault_meta");
_Static_assert(offsetof(struct fault_meta, magic) == 24, "fault_meta.magic");
_Static_assert(offsetof(struct fault_meta, line) == 28, "fault_meta.line");

/* What is drawn for a packet. Each draw depends on seed, number and kind alone: changing one rate of a line
 * does not move the other faults, and what became of packet N does not depend on the size of the first N.
 */
enum fault_draw {
	DRAW_LOSS,
	DRAW_BURST,
	DRAW_CORRUPT,
	DRAW_BIT,
	DRAW_DUPLICATE,
	DRAW_REORDER,
	DRAW_JITTER,
	DRAW_COUNT = 8 /* room for another without new numbers for all */
};

/* The output of splitmix64 (Steele, Lea and Flood) at any place of its sequence. */
static __always_inline __u64 fault_drawn(__u64 seed, __u64 number, enum fault_draw kind)
{
	__u64 value = seed + (number * DRAW_COUNT + kind + 1) * 0x9e3779b97f4a7c15;

	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

/* A number below `bound`. */
static __always_inline __u32 fault_below(__u64 drawn, __u32 bound)
{
	return (drawn >> 32) * bound >> 32;
}

static __always_inline bool fault_happens(const struct fault_line *line, __u64 number, enum fault_draw kind,
					  __u32 ppm)
{
	return fault_below(fault_drawn(line->seed, number, kind), FAULT_PPM) < ppm;
}

/* The fate of the line's next packet, counted. The caller holds the lock. */
static __always_inline struct fault_fate fault_next(struct fault_line *line, __u32 payload_bytes,
						    __u32 frame_bytes)
{
	__u64 number = ++line->received;
	struct fault_fate fate = { .number = number };

	line->bytes += frame_bytes;
	if (number > line->after && number <= line->until) {
		__u32 turn_ppm = line->in_burst ? line->burst_leave_ppm : line->burst_enter_ppm;
		if (fault_happens(line, number, DRAW_BURST, turn_ppm)) {
			line->in_burst = !line->in_burst;
			line->burst_count += line->in_burst;
		}
		__u32 loss_ppm = line->in_burst ? line->burst_loss_ppm : line->loss_ppm;
		if (fault_happens(line, number, DRAW_LOSS, loss_ppm)) {
			fate.flags = FATE_LOST;
		} else {
			if (payload_bytes && fault_happens(line, number, DRAW_CORRUPT, line->corrupt_ppm)) {
				fate.flags |= FATE_CORRUPTED;
				fate.bit = fault_below(fault_drawn(line->seed, number, DRAW_BIT),
						       payload_bytes * 8);
			}
			if (fault_happens(line, number, DRAW_DUPLICATE, line->duplicate_ppm))
				fate.flags |= FATE_DUPLICATED;
			if (fault_happens(line, number, DRAW_REORDER, line->reorder_ppm))
				fate.flags |= FATE_REORDERED;
		}
	}
	bool lost = fate.flags & FATE_LOST, holds = line->flags & FAULT_HOLDS;
	line->lost += lost;
	line->corrupted += !!(fate.flags & FATE_CORRUPTED);
	line->duplicated += !holds && fate.flags & FATE_DUPLICATED;
	line->handed += holds && !lost;
	line->last = fate;
	return fate;
}

#endif
