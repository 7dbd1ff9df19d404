/* `mg KEY FLAGS...\r\n` of a hot key, where the answer follows from the slot alone:
 *
 *   v f c s k q O(opaque), and t of a value without an end, each once, in any order
 *
 * All else is the worker's: flags with effects or tokens, times, base64, our own, a flag twice.
 *
 *   request  | 32 zeroes | mg KEY v f Oab\r\n | zeroes |       read at places that are found on the way
 *   head     | zeroes | VA 64 | f0 Oab\r\n |                  the flags from HEAD_FLAGS_AT on, what is
 *                    <-------- HEAD_FLAGS_AT                   before them once the flags are known
 *   answer   head, then the value and its line end from the slot's reply to `get`
 *
 * Texts of unknown length are copied as whole words; what is copied too much is written over by what
 * follows.
 */
#ifndef NAUTILUS_META_H
#define NAUTILUS_META_H

#include "hot.h"

#define VERB_MG 0x20676d /* "mg " */
#define META_VERB_BYTES 3
#define META_AT (sizeof(struct udphdr) + FRAME_HEADER_BYTES)
/* Longest text: the longest key and as many flags as fit. Longer ones are the worker's. */
#define META_TEXT_BYTES_MAX 96
#define META_TEXT_WORDS (META_TEXT_BYTES_MAX / 8)
#define META_FLAGS_MAX 8
#define META_OPAQUE_WORDS 4
/* In the scratch: where the request begins, and its key. */
#define REQUEST_AT 32
#define REQUEST_KEY_AT (REQUEST_AT + META_VERB_BYTES)
#define REQUEST_MASK 0x7f
#define HEAD_FLAGS_AT 32
#define HEAD_MASK 0xff
/* Words of the longest head: 118 bytes. */
#define HEAD_WORDS 15
/* "END\r\n", which ends the reply to `get` and no other. */
#define END_BYTES 5

/* Unaligned, as x86-64 loads and stores it. */
#define WORD(at) (*(__u64 *)(at))

#define ONES 0x0101010101010101ull

/* Place of the first byte up to the space in several words, as many bytes as they have if there is none.
 * Without branches: the verifier would follow every place by itself.
 */
static __always_inline __u32 blank_from(const __u8 *at, int words)
{
	__u64 place = 0, go_on = 1;

#pragma unroll
	for (int i = 0; i < words; i++) {
		__u64 word = WORD(at + 8 * i);
		/* The lowest bit marks the first such byte; a borrow only spoils those above it. */
		__u64 found = (word - 0x21 * ONES) & ~word & 0x80 * ONES;
		__u64 in_word = (((found & -found) - 1) >> 7 & ONES) * ONES >> 56;
		place += go_on * in_word;
		go_on &= in_word >> 3;
	}
	return place;
}

/* Reads an `mg` up to its flags. */
static __always_inline bool meta_read(struct xdp_md *ctx, struct hot_scratch *scratch,
				      const struct flow *flow, void *data, void *end)
{
	struct hot_get *get = &scratch->get;
	__u32 transport = flow->transport & HOT_TRANSPORT_MASK;
	void *udp = data + transport;

	if (udp + META_AT + sizeof(__u32) > end ||
	    (*(__u32 *)(udp + META_AT) & 0xffffff) != VERB_MG || !hot_headers(flow, data, end))
		return false;
	__u64 header = *(__u64 *)udp, frame = *(__u64 *)(udp + sizeof(struct udphdr));
	if ((frame >> 32 & 0xffff) != bpf_htons(1))
		return false;
	__u16 length = header >> 32, checksum = header >> 48;
	__u32 bytes = bpf_ntohs(length);
	if (bytes < META_AT + META_VERB_BYTES + 1 + LINE_END_BYTES || bytes > META_AT + META_TEXT_BYTES_MAX)
		return false;
	bytes -= META_AT;
	barrier_var(bytes);

	__u8 *request = scratch->request;
	/* The bytes before it were never anything but zero. */
#pragma unroll
	for (int i = 0; i <= META_TEXT_WORDS; i++)
		WORD(request + REQUEST_AT + 8 * i) = 0;
	if (!bytes || bytes > META_TEXT_BYTES_MAX ||
	    bpf_xdp_load_bytes(ctx, transport + META_AT, request + REQUEST_AT, bytes))
		return false;
	__u64 text_sum = 0;
#pragma unroll
	for (int i = 0; i < META_TEXT_WORDS; i++)
		text_sum += sum_of(WORD(request + REQUEST_AT + 8 * i));

	__u32 key_bytes = blank_from(request + REQUEST_KEY_AT, HOT_KEY_WORDS + 1);
	barrier_var(key_bytes);
	if (!key_bytes || key_bytes > HOT_KEY_BYTES_MAX)
		return false;
	__u8 *window = request + ((REQUEST_KEY_AT + key_bytes - HOT_KEY_BYTES_MAX) & REQUEST_MASK);
#pragma unroll
	for (int i = 0; i < HOT_KEY_WORDS; i++) {
		int of_word = (int)key_bytes - (HOT_KEY_BYTES_MAX - 8 * (i + 1));
		__u64 word = WORD(window + 8 * i);

		if (of_word <= 0)
			word = 0;
		else if (of_word < 8)
			word = word >> (64 - 8 * of_word) << (64 - 8 * of_word);
		get->key[i] = word;
	}
	get->key_bytes = key_bytes;
	get->ports = header;
	get->id = frame;
	get->meta = true;
	get->meta_bytes = bytes;
	__u64 fixed_sum = hot_fixed_sum(get, flow);
	if (!checksum)
		return flow->family == 4;
	return sum_fold(fixed_sum + 2 * (__u64)length + checksum + sum_of(frame) + text_sum) == 0xffff;
}

/* Decimal digits of a number below 1,000, and how many. */
static __always_inline __u32 digits_of(__u8 number, __u32 *count)
{
	__u32 ones = '0' + number % 10, tens = '0' + number / 10 % 10, hundreds = '0' + number / 100;

	*count = number < 10 ? 1 : number < 100 ? 2 : 3;
	return number < 10 ? ones : number < 100 ? tens | ones << 8 : hundreds | tens << 8 | ones << 16;
}

#define FLAG(letter) (' ' | (letter) << 8)
#define SEEN(letter) (1u << ((letter) & 31))

/* Puts the answer's first line together and says what the whole answer is. The slot has been copied; what
 * it says is not believed to be in bounds.
 */
static __always_inline bool meta_head(struct hot_scratch *scratch)
{
	const struct hot_get *get = &scratch->get;
	struct hot_reply *reply = &scratch->reply;
	__u8 *request = scratch->request, *head = scratch->head;
	__u32 last = REQUEST_AT + get->meta_bytes - LINE_END_BYTES, size_bytes;
	__u32 size = digits_of(reply->value_bytes, &size_bytes);
	bool ended = false;

	/* Empty slots' and others': only what has the shape of a value's reply. */
	if (!reply->line_bytes ||
	    reply->line_bytes + reply->value_bytes + LINE_END_BYTES + END_BYTES != reply->stored_bytes ||
	    reply->flags_bytes > 10 || reply->version_bytes > 20)
		return false;
	scratch->pos = REQUEST_KEY_AT + get->key_bytes;
	scratch->q = HEAD_FLAGS_AT;
	scratch->seen = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i <= META_FLAGS_MAX; i++) {
		__u32 pos = scratch->pos, q = scratch->q;
		__u8 *at = request + (pos & REQUEST_MASK), *out = head + (q & HEAD_MASK);

		if (at[0] == '\r') {
			ended = pos == last;
			break;
		}
		__u8 flag = at[1], after = at[2];
		if (at[0] != ' ')
			return false;
		pos += 2;
		*(__u16 *)out = FLAG(flag);
		switch (flag) {
		case 'v':
		case 'q':
			break;
		case 'k':
#pragma unroll
			for (int j = 0; j < HOT_KEY_WORDS; j++)
				WORD(out + 2 + 8 * j) = WORD(request + REQUEST_KEY_AT + 8 * j);
			q += 2 + get->key_bytes;
			break;
		case 's':
			*(__u32 *)(out + 2) = size;
			q += 2 + size_bytes;
			break;
		case 'f':
			WORD(out + 2) = reply->flags[0];
			WORD(out + 10) = reply->flags[1];
			q += 2 + reply->flags_bytes;
			break;
		case 'c':
			WORD(out + 2) = reply->version[0];
			WORD(out + 10) = reply->version[1];
			WORD(out + 18) = reply->version[2];
			q += 2 + reply->version_bytes;
			break;
		case 't':
			if (reply->expires)
				return false;
			*(__u16 *)(out + 2) = '-' | '1' << 8;
			q += 4;
			break;
		case 'O': {
			__u32 token = blank_from(at + 2, META_OPAQUE_WORDS);
			if (token >= 8 * META_OPAQUE_WORDS)
				return false;
#pragma unroll
			for (int j = 0; j < META_OPAQUE_WORDS; j++)
				WORD(out + 2 + 8 * j) = WORD(at + 2 + 8 * j);
			q += 2 + token;
			pos += token;
			after = ' '; /* what ends it is looked at next */
			break;
		}
		default:
			return false;
		}
		__u32 seen = scratch->seen;
		if ((after != ' ' && after != '\r') || seen & SEEN(flag))
			return false;
		scratch->seen = seen | SEEN(flag);
		scratch->pos = pos;
		scratch->q = q;
	}
	if (!ended)
		return false;
	__u32 q = scratch->q;
	*(__u16 *)(head + (q & HEAD_MASK)) = LINE_END;
	q += LINE_END_BYTES;

	bool wants_value = scratch->seen & SEEN('v');
	__u32 front_bytes = wants_value ? META_VERB_BYTES + size_bytes : 2;
	__u64 front = wants_value ? 'V' | 'A' << 8 | ' ' << 16 | (__u64)size << 24 : 'H' | 'D' << 8;
	WORD(head + HEAD_FLAGS_AT - 16) = 0;
	WORD(head + HEAD_FLAGS_AT - 8) = front << (8 * (8 - front_bytes) & 63);

	__u32 head_bytes = q - HEAD_FLAGS_AT + front_bytes;
	barrier_var(head_bytes);
	if (head_bytes > 8 * HEAD_WORDS)
		return false;
	__u64 sum = 0;
#pragma unroll
	for (int i = 0; i < HEAD_WORDS; i++) {
		__u64 word = WORD(head + ((q - 8 * (i + 1)) & HEAD_MASK));
		/* All ones while the word is of the line: no branch, as above. */
		sum += sum_of(word & ((__s64)(8 * i) - (__s64)head_bytes) >> 63);
	}
	__u16 text_sum = sum_fold(sum), value_sum = wants_value ? reply->value_sum : 0;
	/* The words end at the line's end; behind a line of odd length the value begins between two bytes. */
	if (head_bytes & 1) {
		text_sum = sum_shifted(text_sum);
		value_sum = sum_shifted(value_sum);
	}
	reply->text_sum = sum_fold((__u64)text_sum + value_sum);
	/* The rest of the answer is the value, as the reply to `get` has it. */
	reply->copied_from = reply->line_bytes;
	reply->copied_bytes = wants_value ? reply->value_bytes + LINE_END_BYTES : 0;
	reply->text_bytes = head_bytes + reply->copied_bytes;
	reply->head_bytes = head_bytes;
	reply->head_end = q;
	return true;
}

/* From the end of the line backwards: what is too much lies before it, where the headers are still to be
 * written.
 */
static __always_inline void meta_write_head(const struct hot_scratch *scratch, void *data, void *end,
					    __u32 text_at)
{
	const struct hot_reply *reply = &scratch->reply;
	__u32 head_bytes = reply->head_bytes, q = reply->head_end;

#pragma clang loop unroll(disable)
	for (int i = 0; i < HEAD_WORDS; i++) {
		if (8 * i >= (int)head_bytes)
			break;
		void *to = data + ((text_at + head_bytes - 8 * (i + 1)) & HEAD_MASK);
		if (to + 8 > end)
			break;
		WORD(to) = WORD(scratch->head + ((q - 8 * (i + 1)) & HEAD_MASK));
	}
}

#endif
