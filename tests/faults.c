/* Makes system calls fail on demand: LD_PRELOAD of the fault tests.
 *
 * FAULT="CALL ERRNO TEXT BYTES": CALL (open, mkdir, read, write, fsync, rename) fails with ERRNO for files with TEXT in
 * their path, once BYTES have been read or written of such files. open fails for writing only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long passed;

static int fails(const char *call, const char *path, long n) {
    const char *fault = getenv("FAULT");
    char name[16], text[256];
    int number;
    long bytes;
    if (!fault || sscanf(fault, "%15s %d %255s %ld", name, &number, text, &bytes) != 4) return 0;
    if (strcmp(name, call) || !strstr(path, text)) return 0;
    if (n > 0 && passed + n <= bytes) { passed += n; return 0; }
    errno = number;
    return 1;
}

static int fd_fails(const char *call, int fd, long n) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path, n);
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *to, size_t n) {
    return fd_fails("read", fd, n) ? -1 : REAL(ssize_t, read, int, void *, size_t)(fd, to, n);
}
ssize_t write(int fd, const void *from, size_t n) {
    return fd_fails("write", fd, n) ? -1 : REAL(ssize_t, write, int, const void *, size_t)(fd, from, n);
}
int fsync(int fd) { return fd_fails("fsync", fd, 0) ? -1 : REAL(int, fsync, int)(fd); }
int rename(const char *from, const char *to) {
    return fails("rename", from, 0) ? -1 : REAL(int, rename, const char *, const char *)(from, to);
}
int mkdir(const char *path, mode_t mode) {
    return fails("mkdir", path, 0) ? -1 : REAL(int, mkdir, const char *, mode_t)(path, mode);
}
static int open_real(const char *name, const char *path, int flags, mode_t mode) {
    if ((flags & O_ACCMODE) != O_RDONLY && fails("open", path, 0)) return -1;
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name))(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, int);
    va_end(list);
    return open_real("open", path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, int);
    va_end(list);
    return open_real("open64", path, flags, mode);
}
