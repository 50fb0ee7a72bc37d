/* What the fake replica and the load generator share: clock, errors, growable bytes. */
#ifndef BENCH_GATEWAY_COMMON_H
#define BENCH_GATEWAY_COMMON_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull
#define SECOND 1000000000ull

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

static inline void *grow(void *old, size_t bytes) {
    void *fresh = realloc(old, bytes);
    if (!fresh) die("memory");
    return fresh;
}

typedef struct {
    char *data;
    size_t len, cap;
} Bytes;

static inline void append(Bytes *b, const void *data, size_t len) {
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2;
        b->data = grow(b->data, b->cap);
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

/* Give back what an idle connection does not need: thousands of them are open at once. */
static inline void release(Bytes *b) {
    free(b->data);
    *b = (Bytes){0};
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* epoll_wait with a deadline in nanoseconds; UINT64_MAX waits for ever. */
struct epoll_event;
static inline int wait_until(int epoll, struct epoll_event *events, int count, uint64_t deadline) {
    struct timespec left = {0}, *timeout = NULL;
    if (deadline != UINT64_MAX) {
        uint64_t now = now_ns(), ns = deadline > now ? deadline - now : 0;
        left.tv_sec = (time_t)(ns / SECOND);
        left.tv_nsec = (long)(ns % SECOND);
        timeout = &left;
    }
    int ready = (int)syscall(SYS_epoll_pwait2, epoll, events, count, timeout, NULL, 0);
    if (ready < 0 && errno != EINTR) die("epoll_pwait2 (Linux 5.11 or newer)");
    return ready < 0 ? 0 : ready;
}

#endif
