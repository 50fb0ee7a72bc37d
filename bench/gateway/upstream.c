/* Fake vLLM replicas that cost next to nothing: N ports of 127.0.0.1, one process, one thread, epoll.
 *
 *   upstream COUNT      binds COUNT free ports, prints them on one line, serves until it is killed
 *
 * GET /health /metrics /v1/models, as far as gateways ask for them. POST /v1/chat/completions answers a JSON document of
 * 0.7 KB, or with "stream":true one HTTP chunk and one send() per event. The number of content events is the request's
 * max_tokens (or max_completion_tokens); the pace is the same for all streams:
 *
 *   GET /bench/pace?US  microseconds between the events of a stream from now on
 *   GET /bench/counts   {"requests":..,"streams":..,"finished":..,"events":..,"open":..} since the start
 *
 * A content event carries its own send time and number, "@NANOSECONDS.NUMBER@", so that the client can tell latency,
 * loss and alteration. "return_token_ids":true adds "token_ids" to each event and "prompt_token_ids" to the first, as
 * vLLM does. A reader who does not keep up stops his stream (nothing is dropped); it catches up later.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { MAX_PORTS = 1024, READ_SIZE = 1 << 20, MAX_REQUEST = 64 << 20, EVENTS = 512, SENDS_PER_TURN = 256 };

typedef struct {
    int fd, port;
    Bytes in, out;
    size_t out_start, need; /* need: bytes of the request that is arriving; 0 as long as its head is not complete */
    bool streaming, ids, usage, close_after, told_continue;
    uint32_t sent, total, prompt_tokens;
    uint64_t due;
    int place; /* in the heap; -1: not in it */
} Conn;

typedef struct {
    bool stream, ids, usage;
    uint32_t tokens;
} Wish;

typedef struct {
    size_t head, body, total; /* bytes */
    bool chunked, close, expect;
} Frame;

static int epoll_fd, port_count, running[MAX_PORTS];
static Conn **conns;
static int conns_cap;
static uint64_t interval_ns = 20 * MS;
static struct {
    unsigned long long requests, streams, finished, events;
} counts;

/* -- Streams that wait for their next event: a heap, earliest first ------------------------------------------------ */

static Conn **heap;
static int heap_len, heap_cap;

static void place(Conn *c, int i) {
    heap[i] = c;
    c->place = i;
}

static void sift_up(Conn *c, int i) {
    while (i && heap[(i - 1) / 2]->due > c->due) {
        place(heap[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    place(c, i);
}

static void sift_down(Conn *c, int i) {
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        place(heap[child], i);
        i = child;
    }
    place(c, i);
}

static void heap_push(Conn *c) {
    if (heap_len == heap_cap) heap = grow(heap, sizeof *heap * (size_t)(heap_cap = heap_cap * 2 + 64));
    sift_up(c, heap_len++);
}

static void heap_remove(Conn *c) {
    int i = c->place;
    if (i < 0) return;
    c->place = -1;
    Conn *last = heap[--heap_len];
    if (last == c) return;
    if (i && heap[(i - 1) / 2]->due > last->due) sift_up(last, i);
    else sift_down(last, i);
}

/* -- Bytes out ----------------------------------------------------------------------------------------------------- */

static void close_conn(Conn *c) {
    heap_remove(c);
    if (c->streaming) running[c->port]--;
    close(c->fd);
    conns[c->fd] = NULL;
    release(&c->in);
    release(&c->out);
    free(c);
}

static void watch(Conn *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* False: the connection is lost and c is gone. What does not fit into the socket waits in c->out. */
static bool put(Conn *c, const char *data, size_t len) {
    ssize_t n = 0;
    if (!c->out.len) {
        n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            close_conn(c);
            return false;
        }
        if (n < 0) n = 0;
        if ((size_t)n == len) return true;
        watch(c, EPOLLIN | EPOLLOUT);
    }
    append(&c->out, data + n, len - (size_t)n);
    return true;
}

static bool put_chunk(Conn *c, const char *data, size_t len) {
    static Bytes b;
    char size[32];
    b.len = 0;
    append(&b, size, (size_t)sprintf(size, "%zx\r\n", len));
    append(&b, data, len);
    append(&b, "\r\n", 2);
    return put(c, b.data, b.len);
}

#define ID "\"id\":\"chatcmpl-0123456789abcdef\""
#define CHUNK_START "data: {" ID ",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\""
#define EVENT_START CHUNK_START ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@"
#define STAMP "0000000000000000000.000000"
#define EVENT_MIDDLE "@\"},\"logprobs\":null,\"finish_reason\":null"
#define EVENT_END "}]}\n\n"

/* Ready-made chunks of a content event, without and with a token id; time, number and id are written over. */
static char ready_made[2][512];
static size_t ready_len[2], stamp_at[2], token_at;

static void make_templates(void) {
    for (int ids = 0; ids < 2; ids++) {
        char event[400];
        int len = sprintf(event, EVENT_START STAMP EVENT_MIDDLE "%s" EVENT_END, ids ? ",\"token_ids\":[10000]" : "");
        ready_len[ids] = (size_t)sprintf(ready_made[ids], "%x\r\n%s\r\n", len, event);
        stamp_at[ids] = (size_t)(strstr(ready_made[ids], STAMP) - ready_made[ids]);
    }
    token_at = (size_t)(strstr(ready_made[1], "[10000]") + 1 - ready_made[1]);
}

static void digits(char *at, int width, uint64_t value) {
    while (width--) {
        at[width] = (char)('0' + value % 10);
        value /= 10;
    }
}

static bool put_event(Conn *c) {
    char *event = ready_made[c->ids];
    digits(event + stamp_at[c->ids], 19, now_ns());
    digits(event + stamp_at[c->ids] + 20, 6, c->sent);
    if (c->ids) digits(event + token_at, 5, 10000 + c->sent % 90000);
    c->sent++;
    counts.events++;
    return put(c, event, ready_len[c->ids]);
}

static bool put_first(Conn *c) {
    Bytes b = {0};
    char number[16];
    static const char start[] = CHUNK_START ",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                            "\"logprobs\":null,\"finish_reason\":null}]";
    append(&b, start, sizeof start - 1);
    if (c->ids) {
        append(&b, ",\"prompt_token_ids\":[", 21);
        for (uint32_t i = 0; i < c->prompt_tokens; i++)
            append(&b, number, (size_t)sprintf(number, i ? ",%u" : "%u", 1000 + i % 9000));
        append(&b, "]", 1);
    }
    append(&b, "}\n\n", 3);
    bool alive = put_chunk(c, b.data, b.len);
    release(&b);
    return alive;
}

static bool finish_stream(Conn *c) {
    static const char last[] = CHUNK_START ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,"
                                           "\"finish_reason\":\"length\",\"stop_reason\":null}]}\n\n";
    char usage[512];
    counts.finished++;
    running[c->port]--;
    c->streaming = false;
    if (!put_chunk(c, last, sizeof last - 1)) return false;
    int len = sprintf(usage, CHUNK_START ",\"choices\":[],\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u,"
                                         "\"completion_tokens\":%u}}\n\n",
                      c->prompt_tokens, c->prompt_tokens + c->sent, c->sent);
    if (c->usage && !put_chunk(c, usage, (size_t)len)) return false;
    if (!put_chunk(c, "data: [DONE]\n\n", 14) || !put(c, "0\r\n\r\n", 5)) return false;
    if (c->close_after && !c->out.len) {
        close_conn(c);
        return false;
    }
    return true;
}

/* One event of one stream; false if c is gone. A stream whose reader is behind waits for EPOLLOUT instead. */
static bool step(Conn *c) {
    if (c->sent < c->total && !put_event(c)) return false;
    if (c->sent == c->total) return finish_stream(c);
    c->due += interval_ns;
    if (!c->out.len) heap_push(c);
    return true;
}

static bool start_stream(Conn *c, const Wish *wish, size_t body_len) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    counts.streams++;
    running[c->port]++;
    c->streaming = true;
    c->ids = wish->ids;
    c->usage = wish->usage;
    c->sent = 0;
    c->total = wish->tokens;
    c->prompt_tokens = (uint32_t)(body_len / 4);
    c->due = now_ns();
    return put(c, head, sizeof head - 1) && put_first(c) && step(c);
}

static bool answer(Conn *c, const char *status, const char *type, const char *body) {
    char b[2048];
    int len = snprintf(b, sizeof b, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s", status, type,
                       strlen(body), body);
    return put(c, b, (size_t)len);
}

/* -- Bytes in ------------------------------------------------------------------------------------------------------ */

static const char *skip_string(const char *p, const char *end) { /* p: behind the opening quote */
    for (;;) {
        const char *quote = memchr(p, '"', (size_t)(end - p));
        if (!quote) return end;
        const char *slash = quote;
        while (slash > p && slash[-1] == '\\') slash--;
        p = quote + 1;
        if ((quote - slash) % 2 == 0) return p;
    }
}

static bool is(const char *key, size_t len, const char *name) { return len == strlen(name) && !memcmp(key, name, len); }

/* Reads the top-level fields that matter (and stream_options.include_usage). Text in prompts is never taken for a key. */
static Wish read_wish(const char *p, size_t len) {
    Wish wish = {.tokens = 16};
    const char *end = p + len;
    int depth = 0;
    while (p < end) {
        char ch = *p++;
        if (ch == '{' || ch == '[') depth++;
        else if (ch == '}' || ch == ']') depth--;
        if (ch != '"') continue;
        const char *key = p;
        p = skip_string(p, end);
        size_t key_len = (size_t)(p - key) - 1;
        while (p < end && (*p == ' ' || *p == '\n')) p++;
        if (depth > 2 || p >= end || *p != ':') continue;
        for (p++; p < end && (*p == ' ' || *p == '\n');) p++;
        bool yes = p < end && *p == 't';
        if (depth == 2 && is(key, key_len, "include_usage")) wish.usage = yes;
        if (depth != 1) continue;
        if (is(key, key_len, "stream")) wish.stream = yes;
        else if (is(key, key_len, "return_token_ids")) wish.ids = yes;
        else if ((is(key, key_len, "max_tokens") || is(key, key_len, "max_completion_tokens")) && *p >= '0' && *p <= '9')
            wish.tokens = (uint32_t)strtoul(p, NULL, 10);
    }
    return wish;
}

static bool answer_control(Conn *c, const char *target) {
    char body[256];
    if (!strncmp(target, "/bench/pace?", 12)) {
        interval_ns = strtoull(target + 12, NULL, 10) * 1000;
        return answer(c, "200 OK", "text/plain", "ok");
    }
    int open = 0;
    for (int i = 0; i < port_count; i++) open += running[i];
    sprintf(body, "{\"requests\":%llu,\"streams\":%llu,\"finished\":%llu,\"events\":%llu,\"open\":%d}", counts.requests,
            counts.streams, counts.finished, counts.events, open);
    return answer(c, "200 OK", "application/json", body);
}

static const char COMPLETION[] =
    "{" ID ",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":"
    "{\"role\":\"assistant\",\"content\":\"The quick brown fox jumps over the lazy dog while the gateway counts tokens and "
    "the replica pretends that it has thought about the question for a while, which it has not, since it is a program of "
    "four hundred lines.\",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],"
    "\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}],\"service_tier\":null,"
    "\"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":256,\"total_tokens\":304,\"completion_tokens\":48}}";

static bool answer_get(Conn *c, const char *target) {
    char body[512];
    if (!strncmp(target, "/bench/", 7)) return answer_control(c, target);
    if (!strcmp(target, "/health")) return answer(c, "200 OK", "text/plain", "");
    if (!strcmp(target, "/metrics")) {
        sprintf(body,
                "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} %d.0\n"
                "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n"
                "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.1\n",
                running[c->port]);
        return answer(c, "200 OK", "text/plain; version=0.0.4", body);
    }
    if (!strcmp(target, "/v1/models"))
        return answer(c, "200 OK", "application/json",
                      "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1700000000,"
                      "\"owned_by\":\"bench\",\"root\":\"m\",\"max_model_len\":1048576}]}");
    return answer(c, "404 Not Found", "application/json", "{\"detail\":\"Not Found\"}");
}

/* c may be gone when this returns false. */
static bool handle(Conn *c, const char *request, const Frame *frame, const char *body, size_t body_len) {
    char method[8] = "", target[256] = "";
    sscanf(request, "%7s %255s", method, target);
    c->close_after = frame->close;
    if (!strcmp(method, "GET") || !strcmp(method, "HEAD")) return answer_get(c, target);
    if (strcmp(target, "/v1/chat/completions")) return answer_get(c, "/none");
    counts.requests++;
    Wish wish = read_wish(body, body_len);
    if (wish.stream) return start_stream(c, &wish, body_len);
    return answer(c, "200 OK", "application/json", COMPLETION);
}

static bool field(const char *line, const char *name) { return !strncasecmp(line, name, strlen(name)); }

/* Framing of a request whose head is complete; request is ended by a NUL somewhere behind. */
static Frame read_head(const char *request, size_t head_len) {
    Frame frame = {.head = head_len};
    for (const char *line = request; line < request + head_len;) {
        if (field(line, "content-length:")) frame.body = strtoull(line + 15, NULL, 10);
        else if (field(line, "transfer-encoding: chunked")) frame.chunked = true;
        else if (field(line, "connection: close")) frame.close = true;
        else if (field(line, "expect:")) frame.expect = true;
        line = (const char *)memchr(line, '\n', (size_t)(request + head_len - line)) + 1;
    }
    frame.total = head_len + frame.body;
    return frame;
}

/* Decodes a chunked body; bytes of framing and body, 0 as long as it is not complete. */
static size_t unchunk(const char *data, size_t len, Bytes *body) {
    size_t at = 0;
    for (;;) {
        const char *newline = memchr(data + at, '\n', len - at);
        if (!newline) return 0;
        size_t size = strtoull(data + at, NULL, 16);
        at = (size_t)(newline + 1 - data);
        if (len < at + size + 2) return 0;
        append(body, data + at, size);
        at += size + 2;
        if (!size) return at; /* no trailers are expected */
    }
}

/* Handles complete requests of data (which has a NUL behind its end). Bytes taken, or -1 if c is gone. */
static ssize_t take_requests(Conn *c, const char *data, size_t len) {
    size_t at = 0;
    while (at < len && !c->streaming && !c->out.len) {
        const char *request = data + at;
        if (c->need && len - at < c->need) break;
        const char *head_end = memmem(request, len - at, "\r\n\r\n", 4);
        if (!head_end) break;
        Frame frame = read_head(request, (size_t)(head_end + 4 - request));
        if (frame.expect && !c->told_continue && (c->told_continue = true) && !put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25))
            return -1;
        const char *body = request + frame.head;
        size_t body_len = frame.body;
        Bytes plain = {0};
        if (frame.chunked) {
            size_t framed = unchunk(body, len - at - frame.head, &plain);
            if (!framed) {
                release(&plain);
                break;
            }
            frame.total = frame.head + framed;
            body = plain.data;
            body_len = plain.len;
        } else if (len - at < frame.total) {
            c->need = frame.total;
            break;
        }
        c->need = 0;
        c->told_continue = false;
        bool alive = handle(c, request, &frame, body, body_len);
        release(&plain);
        if (!alive) return -1;
        if (frame.close && !c->streaming && !c->out.len) {
            close_conn(c);
            return -1;
        }
        at += frame.total;
    }
    return (ssize_t)at;
}

/* Requests that lie in c->in; false if c is gone. */
static bool take_waiting(Conn *c) {
    if (!c->in.len) return true;
    append(&c->in, "", 1);
    c->in.len--;
    ssize_t taken = take_requests(c, c->in.data, c->in.len);
    if (taken < 0) return false;
    memmove(c->in.data, c->in.data + taken, c->in.len - (size_t)taken);
    c->in.len -= (size_t)taken;
    if (!c->in.len) release(&c->in);
    return true;
}

static void readable(Conn *c) {
    static char buffer[READ_SIZE + 1];
    ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->in.len + (size_t)n > MAX_REQUEST) {
        close_conn(c);
        return;
    }
    if (c->in.len) {
        append(&c->in, buffer, (size_t)n);
        take_waiting(c);
        return;
    }
    buffer[n] = 0;
    ssize_t taken = take_requests(c, buffer, (size_t)n);
    if (taken >= 0 && taken < n) append(&c->in, buffer + taken, (size_t)(n - taken));
}

static void writable(Conn *c) {
    ssize_t n = send(c->fd, c->out.data + c->out_start, c->out.len - c->out_start, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
        close_conn(c);
        return;
    }
    c->out_start += (size_t)n;
    if (c->out_start < c->out.len) return;
    c->out_start = 0;
    release(&c->out);
    watch(c, EPOLLIN);
    if (c->streaming) heap_push(c);
    else if (c->close_after) close_conn(c);
    else take_waiting(c);
}

/* -- The loop ------------------------------------------------------------------------------------------------------ */

static void accept_all(int listener, int port) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (fd >= conns_cap) {
            conns = grow(conns, sizeof *conns * (size_t)(fd * 2 + 64));
            memset(conns + conns_cap, 0, sizeof *conns * (size_t)(fd * 2 + 64 - conns_cap));
            conns_cap = fd * 2 + 64;
        }
        Conn *c = conns[fd] = calloc(1, sizeof *c);
        if (!c) die("memory");
        c->fd = fd;
        c->port = port;
        c->place = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    }
}

static int listen_on_free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 4096)) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &len);
    printf("%d ", ntohs(address.sin_port));
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    return fd;
}

static void send_due_events(void) {
    uint64_t now = now_ns();
    for (int i = 0; i < SENDS_PER_TURN && heap_len && heap[0]->due <= now; i++) {
        Conn *c = heap[0];
        heap_remove(c);
        if (step(c) && !c->streaming) take_waiting(c);
    }
}

int main(int argc, char **argv) {
    static int listeners[MAX_PORTS];
    port_count = argc == 2 ? atoi(argv[1]) : 0;
    if (port_count < 1 || port_count > MAX_PORTS) {
        fprintf(stderr, "usage: upstream COUNT\n");
        return 2;
    }
    raise_file_limit();
    make_templates();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < port_count; i++) listeners[i] = listen_on_free_port();
    printf("\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = wait_until(epoll_fd, events, EVENTS, heap_len ? heap[0]->due : UINT64_MAX);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, port = fd - listeners[0];
            if (port >= 0 && port < port_count && listeners[port] == fd) {
                accept_all(fd, port);
                continue;
            }
            if (fd < conns_cap && conns[fd] && events[i].events & EPOLLOUT) writable(conns[fd]);
            if (fd < conns_cap && conns[fd] && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(conns[fd]);
        }
        send_due_events();
    }
}
