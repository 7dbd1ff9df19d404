/* Prints every number of nautilus.h: constants, sizes and offsets. A Rust test compares them. */
#include <inttypes.h>
#include <stdio.h>

#include "nautilus.h"

#define CONSTANT(name) printf(#name " %" PRIu64 "\n", (uint64_t)NAUTILUS_##name)
#define SIZE(name) printf(#name " %zu\n", sizeof(struct nautilus_##name))
#define FIELD(name, field) \
	printf(#name "." #field " %zu\n", offsetof(struct nautilus_##name, field))

int main(void)
{
	CONSTANT(ABI_VERSION);
	CONSTANT(AUTOMATIC);
	CONSTANT(VERSION_MISS);
	CONSTANT(VERSION_SUSPECT);
	CONSTANT(KEY_BYTES_MAX);
	CONSTANT(VALUE_BYTES_MAX);
	CONSTANT(OK);
	CONSTANT(MISS);
	CONSTANT(SUSPECT);
	CONSTANT(WRITER_BUSY);
	CONSTANT(DETACHED);
	CONSTANT(LEASE_EXPIRED);
	CONSTANT(BUFFER_TOO_SMALL);
	CONSTANT(TIMED_OUT);
	CONSTANT(NEW_MEMORY);
	CONSTANT(BAD_ARGUMENT);
	CONSTANT(REFUSED);
	CONSTANT(NO_CACHE);
	CONSTANT(UNREACHABLE);
	CONSTANT(INCOMPATIBLE);
	CONSTANT(INTERNAL);
	SIZE(value);
	FIELD(value, version);
	FIELD(value, expiry_ns);
	FIELD(value, value_bytes);
	FIELD(value, flags);
	FIELD(value, channel);
	FIELD(value, reserved);
	SIZE(read);
	FIELD(read, key);
	FIELD(read, key_bytes);
	FIELD(read, out);
	FIELD(read, out_bytes);
	FIELD(read, value);
	FIELD(read, status);
	FIELD(read, reserved);
	return 0;
}
