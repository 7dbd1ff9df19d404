/* The Internet checksum (RFC 1071) without loops. A partial sum is a u64 to which 32-bit words in the
 * message's byte order are added: a packet has far fewer than the 2^32 words that could overflow it.
 */
#ifndef NAUTILUS_SUM_H
#define NAUTILUS_SUM_H

#include <linux/ip.h>
#include <linux/types.h>
#include <stdbool.h>

static __always_inline __u64 sum_of(__u64 word)
{
	return (word & 0xffffffff) + (word >> 32);
}

/* To 16 bits; a message with a right checksum in it folds to 0xffff. */
static __always_inline __u16 sum_fold(__u64 sum)
{
	sum = sum_of(sum);
	sum = sum_of(sum);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

/* The folded sum of the same bytes one place further on. */
static __always_inline __u16 sum_shifted(__u16 sum)
{
	return sum << 8 | sum >> 8;
}

/* Whether an IPv4 header without options, at most 31 bytes into the frame, has a right checksum. */
static __always_inline bool ipv4_sum_right(void *data, void *end, __u32 network)
{
	__u64 *ip = data + (network & 0x1f);

	if ((void *)ip + sizeof(struct iphdr) > end)
		return false;
	return sum_fold(sum_of(ip[0]) + sum_of(ip[1]) + *(__u32 *)(ip + 2)) == 0xffff;
}

#endif
