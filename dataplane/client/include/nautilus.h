/*
 * Reads a cache of a node on this host out of shared memory, from C.
 *
 *     nautilus_reader *quotes;
 *     char why[256], record[128];
 *     struct nautilus_value value;
 *     if (nautilus_attach("/run/nautilus/node-1", "quotes", 0, &quotes, why, sizeof why)) ...
 *     switch (nautilus_get(quotes, "md:nasdaq:AAPL:bbo", 18, record, sizeof record, &value)) ...
 *
 * Threads: a reader is used by one thread at a time. nautilus_clone gives another thread a reader of
 * its own over the same mapping. nautilus_abi_version and nautilus_status_text may be called any time.
 *
 * nautilus_get, nautilus_get_many and nautilus_heartbeat_age_ns make no system call and allocate
 * nothing, unless NAUTILUS_AUTOMATIC has them attach again.
 *
 * Errors are results, never signals or exceptions. A null pointer where one is not allowed is
 * NAUTILUS_BAD_ARGUMENT; lengths are believed. Link with -lnautilus_client.
 */
#ifndef NAUTILUS_H
#define NAUTILUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Compare with nautilus_abi_version(): another number means another header. */
#define NAUTILUS_ABI_VERSION 1

/* Results of a read. */
#define NAUTILUS_OK 0
#define NAUTILUS_MISS 1             /* never written, deleted, expired, flushed or evicted */
#define NAUTILUS_SUSPECT 2          /* the key's feed has a gap or is silent: do not use what you have */
#define NAUTILUS_WRITER_BUSY 3      /* the key changed under 64 tries in a row: try again */
#define NAUTILUS_DETACHED 4         /* the node has not been heard for 1 s: nautilus_reattach */
#define NAUTILUS_LEASE_EXPIRED 5    /* no value of this cache may be used on this host */
#define NAUTILUS_BUFFER_TOO_SMALL 6 /* value_bytes says what the value needs */
#define NAUTILUS_TIMED_OUT 7        /* of a wait: no change */

/* Results of attaching. */
#define NAUTILUS_NEW_MEMORY 8    /* of a reattach that went well: the node has started anew */
#define NAUTILUS_BAD_ARGUMENT 16 /* of any function */
#define NAUTILUS_REFUSED 17      /* this user is not in cache.readers of the node file */
#define NAUTILUS_NO_CACHE 18     /* the node has no cache of this id */
#define NAUTILUS_UNREACHABLE 19  /* no supervisor listens there, or it does not answer */
#define NAUTILUS_INCOMPATIBLE 20 /* the node is of another release */
#define NAUTILUS_INTERNAL 21     /* of any function: a bug of this library */

/* nautilus_attach: a read that would be NAUTILUS_DETACHED attaches again first, at most every 20 ms. */
#define NAUTILUS_AUTOMATIC 1

/* Versions that no value has: of a key that is not there, of one that is suspect. */
#define NAUTILUS_VERSION_MISS 0
#define NAUTILUS_VERSION_SUSPECT UINT64_MAX

/* Bounds in bytes. A longer key is a miss. */
#define NAUTILUS_KEY_BYTES_MAX 250
#define NAUTILUS_VALUE_BYTES_MAX 1048576

/* One attached cache. */
typedef struct nautilus_reader nautilus_reader;

/* What is known of a value; of a key without one, version and zeroes. */
struct nautilus_value {
	uint64_t version;     /* for nautilus_wait_for_change; memcached's CAS unique */
	uint64_t expiry_ns;   /* when it ends, CLOCK_MONOTONIC; 0 = never */
	uint32_t value_bytes; /* bytes of the value */
	uint32_t flags;       /* the writer's */
	uint32_t channel;     /* of the feed that owns the key, 1..255; 0 = clients own it */
	uint32_t reserved;
};

/* One key of nautilus_get_many. The caller fills the first four. */
struct nautilus_read {
	const void *key;
	size_t key_bytes;
	void *out;
	size_t out_bytes;
	struct nautilus_value value;
	int32_t status; /* NAUTILUS_OK, or why there is no value */
	uint32_t reserved;
};

/* NAUTILUS_ABI_VERSION of the library. */
uint32_t nautilus_abi_version(void);

/* A line on a status; lives as long as the library. */
const char *nautilus_status_text(int status);

/*
 * Attaches to the cache of this id. path is the node's run directory or the supervisor.sock in it;
 * options is 0 or NAUTILUS_AUTOMATIC. Takes at most about a second. After a failure *reader is as it
 * was, and error (error_bytes long; may be null with 0) holds a message with its end.
 */
int nautilus_attach(const char *path, const char *cache_id, uint32_t options,
		    nautilus_reader **reader, char *error, size_t error_bytes);

/* Another reader of the same mapping, for another thread. */
int nautilus_clone(const nautilus_reader *reader, nautilus_reader **copy);

/* Gives a reader back; null does nothing. The mapping goes with its last reader. */
void nautilus_close(nautilus_reader *reader);

/* Copies the value of a key to out. value may be null. */
int nautilus_get(nautilus_reader *reader, const void *key, size_t key_bytes, void *out,
		 size_t out_bytes, struct nautilus_value *value);

/*
 * Reads count keys, faster than one by one; each has its own status. The answers are no snapshot.
 * NAUTILUS_OK unless an argument is wrong.
 */
int nautilus_get_many(nautilus_reader *reader, struct nautilus_read *reads, size_t count);

/*
 * Waits until the key differs from last_version (of a struct nautilus_value, also of one that a MISS
 * or SUSPECT has filled) and returns what nautilus_get would; NAUTILUS_TIMED_OUT after timeout_ns
 * nanoseconds. Watches for 20 us, then sleeps for up to 200 us at a time: a change is seen about a
 * microsecond after it at first, within about 0.3 ms later on. Changes between two looks are seen as
 * one.
 */
int nautilus_wait_for_change(nautilus_reader *reader, const void *key, size_t key_bytes,
			     uint64_t last_version, uint64_t timeout_ns, void *out, size_t out_bytes,
			     struct nautilus_value *value);

/*
 * Asks the supervisor again, after NAUTILUS_DETACHED. NAUTILUS_OK: the memory is the same, its
 * supervisor was away. NAUTILUS_NEW_MEMORY: the node has started anew and its cache began empty.
 */
int nautilus_reattach(nautilus_reader *reader, char *error, size_t error_bytes);

/* Nanoseconds since the node was last heard; reads are NAUTILUS_DETACHED above 1,000,000,000. */
uint64_t nautilus_heartbeat_age_ns(const nautilus_reader *reader);

#ifdef __cplusplus
}
#endif

#endif
