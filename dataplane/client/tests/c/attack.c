/*
 * What a user who may read a cache can do beyond reading it: attack RUN_DIR SUPERVISOR WORKER...
 *
 * Everything is tried, one line each: "refused WHAT: ERROR" or "ALLOWED WHAT". Before it, the same calls
 * are made on a memfd of the program's own, where they must go well ("control WHAT"): a call that is
 * malformed would be refused for the wrong reason. Nothing here stops at the first success.
 *
 * Refuses to run as root, and in a folder that is no run directory: there much of it would be allowed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "nautilus.h"

static int on_our_own;

static void tried(int went_well, const char *what)
{
	int error = errno;

	if (on_our_own)
		printf("%s %s: %s\n", went_well ? "control" : "MALFORMED", what, strerror(error));
	else if (went_well)
		printf("ALLOWED %s\n", what);
	else
		printf("refused %s: %s\n", what, strerror(error));
	errno = 0;
}

/* A call that returns -1 with errno. */
#define TRY(what, call) tried((errno = 0, (call) != -1), what)

static int opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd;
}

/* Everything that would change the memory behind a descriptor, or make it changeable. */
static void change_memory(int fd, char *map)
{
	char path[64], byte = 'x';
	struct iovec slice = { .iov_base = &byte, .iov_len = 1 };
	int source = memfd_create("source", MFD_CLOEXEC), pipes[2];
	void *mapped;

	if (source < 0 || write(source, "abc", 3) != 3 || pipe(pipes) || write(pipes[1], "abc", 3) != 3)
		exit(2);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	TRY("open /proc/self/fd/N O_RDWR", opens(path, O_RDWR));
	TRY("open /proc/self/fd/N O_WRONLY", opens(path, O_WRONLY));
	TRY("open /proc/self/fd/N O_RDWR|O_TRUNC", opens(path, O_RDWR | O_TRUNC));
	TRY("open /proc/thread-self/fd/N O_RDWR",
	    (snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd), opens(path, O_RDWR)));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	TRY("mmap PROT_WRITE, MAP_SHARED",
	    (intptr_t)(mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)));
	if (mapped != MAP_FAILED)
		munmap(mapped, 4096);
	TRY("mprotect PROT_WRITE", mprotect(map, 4096, PROT_READ | PROT_WRITE));
	TRY("madvise MADV_REMOVE", madvise(map + 4096, 4096, MADV_REMOVE));
	TRY("write", write(fd, &byte, 1));
	TRY("pwrite", pwrite(fd, &byte, 1, 0));
	TRY("pwritev2", pwritev2(fd, &slice, 1, 0, 0));
	TRY("sendfile into it", sendfile(fd, source, &(off_t){ 0 }, 3));
	TRY("copy_file_range into it",
	    copy_file_range(source, &(off_t){ 0 }, fd, &(off_t){ 0 }, 3, 0));
	TRY("splice into it", splice(pipes[0], NULL, fd, &(off_t){ 0 }, 3, 0));
	TRY("ftruncate, longer", ftruncate(fd, 1 << 30));
	TRY("ftruncate to 8192", ftruncate(fd, 8192));
	TRY("truncate /proc/self/fd/N", truncate(path, 8192));
	TRY("fallocate, punch a hole",
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	TRY("fallocate", fallocate(fd, 0, 0, 4096));
	TRY("fcntl F_SETFL O_RDWR, then write",
	    fcntl(fd, F_SETFL, O_RDWR) == -1 ? -1 : (int)pwrite(fd, &byte, 1, 0));
	TRY("fcntl F_SETLK F_WRLCK", fcntl(fd, F_SETLK, &(struct flock){ .l_type = F_WRLCK }));
	TRY("fchmod 0666", fchmod(fd, 0666));
	TRY("chmod /proc/self/fd/N", chmod(path, 0666));
	TRY("futimens", futimens(fd, NULL));
	TRY("fsetxattr user.", fsetxattr(fd, "user.x", "y", 1, 0));
	TRY("fcntl F_ADD_SEALS", fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	close(source);
	close(pipes[0]);
	close(pipes[1]);
}

/* The kinds of call that reach into another process. */
static void reach_into(const char *who, pid_t pid, const void *address)
{
	char what[96], path[64], byte = 0;
	struct iovec here = { .iov_base = &byte, .iov_len = 1 };
	struct iovec there = { .iov_base = (void *)address, .iov_len = 1 };
	int pidfd, status;

#define WHAT(text) (snprintf(what, sizeof what, "%s: %s", who, text), what)
	int attached = (errno = 0, ptrace(PTRACE_ATTACH, pid, NULL, NULL)) != -1;

	tried(attached, WHAT("ptrace attach"));
	if (attached) {
		waitpid(pid, &status, 0);
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
	}
	tried((errno = 0, ptrace(PTRACE_SEIZE, pid, NULL, NULL)) != -1, WHAT("ptrace seize"));
	tried((errno = 0, process_vm_readv(pid, &here, 1, &there, 1, 0)) != -1,
	      WHAT("process_vm_readv"));
	tried((errno = 0, process_vm_writev(pid, &here, 1, &there, 1, 0)) != -1,
	      WHAT("process_vm_writev"));
	for (int i = 0; i < 6; i++) {
		static const char *names[] = { "mem", "maps", "environ", "fd", "map_files", "io" };

		snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
		/* Directories are opened to be listed. */
		int flags = i == 0 ? O_RDWR : i == 3 || i == 4 ? O_RDONLY | O_DIRECTORY : O_RDONLY;
		char text[80];

		snprintf(text, sizeof text, "open /proc/PID/%s", names[i]);
		tried((errno = 0, opens(path, flags)) != -1, WHAT(text));
	}
	for (int fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
		if (opens(path, O_RDONLY) >= 0 && !on_our_own)
			tried(1, WHAT("open /proc/PID/fd/N"));
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int copied = 0;
	for (int fd = 0; fd < 64; fd++) {
		int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

		if (copy >= 0)
			close(copy), copied++;
	}
	tried((errno = copied ? 0 : EPERM, copied) > 0, WHAT("pidfd_getfd of descriptors 0..63"));
	tried((errno = 0, kill(pid, 0)) != -1, WHAT("kill"));
	tried((errno = 0, (int)syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0)) != -1,
	      WHAT("pidfd_send_signal"));
	close(pidfd);
}

/* Sends a request of the attach protocol and returns the code and how many descriptors came. */
static int ask(const char *path, const void *request, size_t bytes, int *descriptors)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char reply[5000];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(32 * sizeof(int))];
	} control;
	struct iovec slice = { .iov_base = reply, .iov_len = sizeof reply };
	struct msghdr message = { .msg_iov = &slice, .msg_iovlen = 1,
				  .msg_control = &control, .msg_controllen = sizeof control };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), code = -1;

	*descriptors = 0;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
	    send(fd, request, bytes, MSG_NOSIGNAL) == (ssize_t)bytes &&
	    recvmsg(fd, &message, MSG_CMSG_CLOEXEC) >= 32) {
		code = reply[5];
		for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part))
			*descriptors += (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	}
	close(fd);
	return code;
}

static void ask_for_more(const char *socket_path)
{
	static const struct {
		const char *what;
		char bytes[73];
		size_t count;
	} asks[] = {
		{ "ask for all regions", "NEAT\1\1\0\0", 8 },
		{ "ask for the status", "NEAT\1\2\0\0", 8 },
		{ "ask for a cache that is not there", "NEAT\1\3\0\0control", 72 },
		{ "ask for a cache without a name", "NEAT\1\3\0\0", 72 },
		{ "ask for all regions with a cache's name", "NEAT\1\1\0\0quotes", 72 },
		{ "ask for a cache whose name goes on", "NEAT\1\3\0\0quotes\0x", 72 },
		{ "ask for the hits of a cache that is not there", "NEAT\1\4\0\0control", 72 },
		{ "ask with another verb", "NEAT\1\5\0\0", 8 },
		{ "ask with nothing but junk", "junk", 4 },
	};
	for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
		char what[128];
		int descriptors, code = ask(socket_path, asks[i].bytes, asks[i].count, &descriptors);

		snprintf(what, sizeof what, "%s (code %d, %d descriptors)", asks[i].what, code,
			 descriptors);
		errno = EACCES;
		tried(code <= 0 || descriptors > 0, what);
	}
}

/* The files of the run directory. */
static void change_run_dir(const char *run_dir)
{
	char path[512], what[640];
	struct dirent *entry;
	DIR *folder = opendir(run_dir);

	while (folder && (entry = readdir(folder))) {
		struct stat file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", run_dir, entry->d_name);
		if (lstat(path, &file) != 0)
			continue;
#define FILE_WHAT(text) (snprintf(what, sizeof what, "%s: %s", entry->d_name, text), what)
		tried((errno = 0, chmod(path, file.st_mode & 07777)) != -1, FILE_WHAT("chmod"));
		if (S_ISSOCK(file.st_mode) && strcmp(entry->d_name, "supervisor.sock") != 0) {
			int descriptors, code = ask(path, "NEAT\1\1\0\0", 8, &descriptors);

			tried(code >= 0 || descriptors > 0, FILE_WHAT("connect"));
		} else if (!S_ISSOCK(file.st_mode)) {
			/* Whoever can open the lock can hold it against the next supervisor. */
			tried((errno = 0, opens(path, O_RDONLY)) != -1, FILE_WHAT("open"));
			tried((errno = 0, opens(path, O_RDWR)) != -1, FILE_WHAT("open O_RDWR"));
		}
	}
	if (folder)
		closedir(folder);
	/* Whoever can make a file there can remove and replace what is there. */
	for (int up = 0; up < 2; up++) {
		snprintf(path, sizeof path, "%s%s/planted-%d", run_dir, up ? "/.." : "", getpid());
		int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

		tried(fd >= 0, up ? "make a file beside the run directory" : "make a file in the run directory");
		if (fd >= 0)
			unlink(path), close(fd);
	}
}

/*
 * What may be written, the memory in which readers tell of hits, is sealed: its size is what it was, and what
 * is in it is believed by nobody.
 */
static void change_hits(int fd)
{
	TRY("hits: ftruncate, longer", ftruncate(fd, 1 << 30));
	TRY("hits: ftruncate to 0", ftruncate(fd, 0));
	TRY("hits: fallocate beyond the end", fallocate(fd, 0, 1 << 20, 4096));
	TRY("hits: fcntl F_ADD_SEALS", fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	TRY("hits: fchmod 0666", fchmod(fd, 0666));
	char junk[1 << 12];

	memset(junk, 0xff, sizeof junk);
	/* Everything but the header, with which a region is recognised. */
	for (off_t at = 128; at < 36 << 10; at += sizeof junk)
		if (pwrite(fd, junk, sizeof junk, at) < 0 && at < 32 << 10)
			exit(2);
}

/* Every descriptor this process has; the cache's is returned, and none but that of hits is writable. */
static int own_descriptors(void)
{
	int cache = -1;

	for (int fd = 0; fd < 256; fd++) {
		char path[64], target[256];
		int flags = fcntl(fd, F_GETFL);

		if (flags < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, target, sizeof target - 1);

		target[length < 0 ? 0 : length] = 0;
		printf("descriptor %d: %s, %s\n", fd, target,
		       (flags & O_ACCMODE) == O_RDONLY ? "read-only" : "writable");
		if (strncmp(target, "/memfd:nautilus", 15) != 0)
			continue;
		if (strncmp(target, "/memfd:nautilus-hits", 20) == 0) {
			change_hits(fd);
			continue;
		}
		if ((flags & O_ACCMODE) != O_RDONLY || !strstr(target, "cache"))
			printf("ALLOWED a descriptor of %s\n", target);
		cache = fd;
	}
	return cache;
}

int main(int count, char **arguments)
{
	char error[512], socket_path[512];
	nautilus_reader *reader = NULL;
	static char ours;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count < 4 || geteuid() == 0)
		return 2;
	snprintf(socket_path, sizeof socket_path, "%s/supervisor.sock", arguments[1]);
	struct stat file;
	if (stat(socket_path, &file) != 0 || !S_ISSOCK(file.st_mode))
		return 2;
	on_our_own = 1;
	int fd = memfd_create("own", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *map = ftruncate(fd, 16384) ? MAP_FAILED
					 : mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return 2;
	change_memory(fd, map);
	munmap(map, 8192);
	close(fd);
	pid_t child = fork();
	if (child == 0) {
		for (;;)
			pause();
	}
	reach_into("child", child, &ours);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	on_our_own = 0;

	int status = nautilus_attach(arguments[1], "quotes", 0, &reader, error, sizeof error);
	printf("attached: %s%s%s\n", nautilus_status_text(status), reader ? "" : ": ",
	       reader ? "" : error);
	fd = own_descriptors();
	if (reader && fd < 0)
		return 2;
	if (fd >= 0) {
		map = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			return 2;
		change_memory(fd, map);
	}
	ask_for_more(socket_path);
	change_run_dir(arguments[1]);
	reach_into("supervisor", atoi(arguments[2]), &ours);
	for (int i = 3; i < count; i++)
		reach_into("worker", atoi(arguments[i]), &ours);
	nautilus_close(reader);
	puts("all was tried");
	return 0;
}
