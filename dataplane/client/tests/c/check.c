/*
 * Uses every function of nautilus.h on the node that tests/c_abi.rs runs, and ends with 0 if all of it
 * was as expected: check RUN_DIR. Says "waiting" when the node is to change `changing`, and "anew" when
 * it is to start anew.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nautilus.h"

#define CHECK(what)                                                                 \
	do {                                                                        \
		if (!(what)) {                                                      \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                    \
		}                                                                   \
	} while (0)

/* The library allocates through these, too: it takes malloc from the program. */
static unsigned long allocations;
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *at, size_t bytes);

void *malloc(size_t bytes)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_calloc(count, bytes);
}

void *realloc(void *at, size_t bytes)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_realloc(at, bytes);
}

static int get(nautilus_reader *reader, const char *key, void *out, size_t out_bytes,
	       struct nautilus_value *value)
{
	return nautilus_get(reader, key, strlen(key), out, out_bytes, value);
}

static int wait_for(nautilus_reader *reader, const char *key, uint64_t last, uint64_t timeout_ns,
		    void *out, size_t out_bytes, struct nautilus_value *value)
{
	return nautilus_wait_for_change(reader, key, strlen(key), last, timeout_ns, out, out_bytes,
					value);
}

static void one_key(nautilus_reader *reader)
{
	struct nautilus_value value;
	char out[64];

	memset(out, 'x', sizeof out);
	CHECK(get(reader, "plain", out, sizeof out, &value) == NAUTILUS_OK);
	CHECK(value.value_bytes == 11 && memcmp(out, "plain value", 11) == 0 && out[11] == 'x');
	CHECK(value.flags == 7 && value.version > 0 && value.expiry_ns == 0 && value.channel == 0);
	CHECK(get(reader, "plain", out, sizeof out, NULL) == NAUTILUS_OK);
	CHECK(get(reader, "plain", out, 10, &value) == NAUTILUS_BUFFER_TOO_SMALL);
	CHECK(value.value_bytes == 11);
	CHECK(get(reader, "plain", NULL, 0, &value) == NAUTILUS_BUFFER_TOO_SMALL);
	CHECK(get(reader, "empty", NULL, 0, &value) == NAUTILUS_OK && value.value_bytes == 0);
	CHECK(get(reader, "absent", out, sizeof out, &value) == NAUTILUS_MISS);
	CHECK(value.version == NAUTILUS_VERSION_MISS);
	CHECK(get(reader, "suspect", out, sizeof out, &value) == NAUTILUS_SUSPECT);
	CHECK(value.version == NAUTILUS_VERSION_SUSPECT);
	CHECK(get(reader, "live", out, sizeof out, &value) == NAUTILUS_OK && value.channel == 4);
	CHECK(nautilus_get(reader, NULL, 3, out, sizeof out, &value) == NAUTILUS_BAD_ARGUMENT);
	CHECK(nautilus_get(reader, "plain", 5, NULL, 3, &value) == NAUTILUS_BAD_ARGUMENT);
	CHECK(nautilus_get(NULL, "plain", 5, out, sizeof out, &value) == NAUTILUS_BAD_ARGUMENT);
}

static void many_keys(nautilus_reader *reader)
{
	enum { COUNT = 50 };
	struct nautilus_read reads[COUNT];
	char keys[COUNT][8], outs[COUNT][16];

	memset(reads, 0, sizeof reads);
	for (int i = 0; i < COUNT; i++) {
		reads[i].key = keys[i];
		reads[i].key_bytes = (size_t)snprintf(keys[i], sizeof keys[i], "many%d", i);
		reads[i].out = outs[i];
		reads[i].out_bytes = sizeof outs[i];
	}
	CHECK(nautilus_get_many(reader, reads, COUNT) == NAUTILUS_OK);
	for (int i = 0; i < COUNT; i++) {
		/* The node has written the even ones. */
		CHECK(reads[i].status == (i % 2 ? NAUTILUS_MISS : NAUTILUS_OK));
		if (i % 2 == 0)
			CHECK(reads[i].value.value_bytes == reads[i].key_bytes &&
			      memcmp(outs[i], keys[i], reads[i].key_bytes) == 0);
	}
	CHECK(nautilus_get_many(reader, NULL, 0) == NAUTILUS_OK);
	CHECK(nautilus_get_many(reader, NULL, 1) == NAUTILUS_BAD_ARGUMENT);
	reads[40].out = NULL;
	CHECK(nautilus_get_many(reader, reads, COUNT) == NAUTILUS_BAD_ARGUMENT);
}

/* From here on any system call but exit kills. (Strict seccomp would take the clock's TSC away.) */
static int forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Three thousand reads without a system call and without an allocation. */
static void no_system_call(nautilus_reader *reader)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		char out[64];
		unsigned long before = allocations;

		if (forbid_system_calls() != 0)
			_exit(2);
		int good = 1;
		for (int i = 0; i < 1000; i++) {
			good &= get(reader, "plain", out, sizeof out, NULL) == NAUTILUS_OK;
			good &= get(reader, "absent", out, sizeof out, NULL) == NAUTILUS_MISS;
			good &= get(reader, "suspect", out, sizeof out, NULL) == NAUTILUS_SUSPECT;
		}
		good &= allocations == before;
		syscall(SYS_exit, good ? 0 : 3);
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fprintf(stderr, "wait status %#x of the process without system calls\n", status);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void *in_a_thread(void *reader)
{
	char out[64];

	for (int i = 0; i < 10000; i++)
		CHECK(get(reader, "plain", out, sizeof out, NULL) == NAUTILUS_OK);
	nautilus_close(reader);
	return NULL;
}

int main(int count, char **arguments)
{
	nautilus_reader *reader = NULL, *other = NULL, *none = NULL;
	struct nautilus_value value;
	char error[256], out[64];
	pthread_t thread;

	CHECK(count == 2);
	CHECK(nautilus_abi_version() == NAUTILUS_ABI_VERSION);
	CHECK(strcmp(nautilus_status_text(NAUTILUS_MISS), "no such key") == 0);
	CHECK(nautilus_attach(arguments[1], "orders", 0, &none, error, sizeof error) ==
	      NAUTILUS_NO_CACHE);
	CHECK(strstr(error, "no such cache") && none == NULL);
	CHECK(nautilus_attach("/nowhere", "quotes", 0, &none, error, sizeof error) ==
	      NAUTILUS_UNREACHABLE);
	CHECK(nautilus_attach(arguments[1], "quotes", 8, &none, error, sizeof error) ==
	      NAUTILUS_BAD_ARGUMENT);
	CHECK(nautilus_attach(arguments[1], "", 0, &none, NULL, 0) == NAUTILUS_BAD_ARGUMENT);
	if (nautilus_attach(arguments[1], "quotes", 0, &reader, error, sizeof error) != NAUTILUS_OK)
		fprintf(stderr, "%s\n", error);
	CHECK(reader != NULL);
	CHECK(nautilus_heartbeat_age_ns(reader) < 1000000000);

	one_key(reader);
	many_keys(reader);
	no_system_call(reader);

	CHECK(nautilus_clone(reader, &other) == NAUTILUS_OK);
	CHECK(pthread_create(&thread, NULL, in_a_thread, other) == 0);
	one_key(reader);
	CHECK(pthread_join(thread, NULL) == 0);

	CHECK(get(reader, "changing", out, sizeof out, &value) == NAUTILUS_OK);
	uint64_t last = value.version;
	CHECK(wait_for(reader, "changing", last, 1000000, out, sizeof out, &value) ==
	      NAUTILUS_TIMED_OUT);
	CHECK(value.version == last);
	CHECK(wait_for(reader, "changing", last + 1, 0, out, sizeof out, &value) == NAUTILUS_OK);
	puts("waiting");
	fflush(stdout);
	CHECK(wait_for(reader, "changing", last, 10000000000, out, sizeof out, &value) ==
	      NAUTILUS_OK);
	CHECK(value.version > last && value.value_bytes == 7 && memcmp(out, "changed", 7) == 0);

	CHECK(nautilus_reattach(reader, NULL, 0) == NAUTILUS_OK);
	CHECK(nautilus_attach(arguments[1], "quotes", NAUTILUS_AUTOMATIC, &other, NULL, 0) ==
	      NAUTILUS_OK);
	puts("anew");
	fflush(stdout);
	while (get(reader, "plain", out, sizeof out, &value) != NAUTILUS_DETACHED)
		usleep(1000);
	CHECK(value.version == NAUTILUS_VERSION_MISS);
	while (nautilus_reattach(reader, error, sizeof error) != NAUTILUS_NEW_MEMORY)
		usleep(1000);
	CHECK(get(reader, "plain", out, sizeof out, NULL) == NAUTILUS_MISS);
	CHECK(get(other, "plain", out, sizeof out, NULL) == NAUTILUS_MISS);
	nautilus_close(other);
	nautilus_close(reader);
	nautilus_close(NULL);
	puts("all as expected");
	return 0;
}
