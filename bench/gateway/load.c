/* Load on one address of 127.0.0.1: requests or streams in a closed loop, and the processor time that others spend on them.
 *
 *   load json   --port P -c N --body FILE --seconds S [--warm S] [--windows]
 *   load run    --port P -c N --body FILE --streams N --tokens N [--spread S] [--seconds LIMIT]
 *   load steady --port P -c N --body FILE --tokens N --seconds S [--spread S]
 *   common:     [--header "Name: value"]... [--pid PID]...
 *
 * json: each connection sends its next request when the answer has come. run: each connection reads streams one after
 * another until the given number is done or the limit is over; the first ones start spread over S seconds. steady: one
 * stream on each connection; measuring starts when all have had their first token, or after 20 seconds of patience with
 * those that have ("waiting" counts the others), and ends after S seconds.
 *
 * Every answer is decoded fully. A status other than 200, a broken framing, a missing [DONE], a lost, doubled or altered
 * event counts as an error. Prints one JSON document. CPU time is read (scheduler counters of every thread of the given
 * processes, /proc/PID/task/TID/schedstat) at the very start and end of measuring. Latency of an event is the time since its
 * sending, which it carries ("@NANOSECONDS.NUMBER@", see upstream.c); TTFT is taken from the request to the first token.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { MAX_PIDS = 64, PATIENCE_S = 20, EVENTS = 512, READ_SIZE = 1 << 18, MAX_WINDOWS = 4096, STAMP = 28 };

typedef enum { IDLE, SENDING, HEAD, SIZED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } State;

typedef struct {
    int fd;
    State state;
    size_t sent;        /* bytes of the request */
    uint64_t left;      /* bytes of the sized body, or of the chunk */
    uint64_t start, due; /* due: when a connection that is not used yet starts; 0: started */
    bool event_stream, chunked, closing, done, bad, first_seen;
    uint32_t next; /* number of the token that is awaited */
    Bytes line;    /* head or event that is arriving */
} Conn;

typedef struct {
    float *at;
    size_t len, cap;
} Samples;

typedef struct {
    uint64_t cpu, user_ticks, system_ticks;
} Cpu;

static struct {
    bool json, steady, windows;
    int port, connections;
    double seconds, warm, spread;
    long streams, tokens;
    pid_t pids[MAX_PIDS];
    int pid_count;
} opt = {.connections = 1, .seconds = 5};

static int epoll_fd;
static Bytes request;
static Conn *conns;
static struct sockaddr_in address;
static bool measuring, over;
static uint64_t began, ended;
static long streams_started, streams_open, streams_with_token;
static struct {
    unsigned long long requests, streams, chunks, tokens, reads, bytes, unfinished, waiting, errors;
    char first_error[160];
} total;
static Samples latency_us, ttft_us;
static struct {
    uint64_t at, requests, cpu;
} window[MAX_WINDOWS];
static int windows;

/* -- Processor time ------------------------------------------------------------------------------------------------ */

static bool read_text(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    if (n < 0) return false;
    text[n] = 0;
    return true;
}

static void add_process(pid_t pid, Cpu *sum) {
    char path[320], text[1024];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) die("a watched process has ended");
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, task->d_name);
        if (read_text(path, text, sizeof text)) sum->cpu += strtoull(text, NULL, 10);
    }
    closedir(tasks);
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    unsigned long long user, system;
    if (!read_text(path, text, sizeof text)) return;
    if (sscanf(strrchr(text, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2) {
        sum->user_ticks += user;
        sum->system_ticks += system;
    }
}

static Cpu read_cpu(void) {
    Cpu sum = {0};
    for (int i = 0; i < opt.pid_count; i++) add_process(opt.pids[i], &sum);
    return sum;
}

static Cpu at_start, at_end;

static void start_measuring(void) {
    measuring = true;
    at_start = read_cpu();
    began = now_ns();
}

static void stop_measuring(void) {
    ended = now_ns();
    at_end = read_cpu();
    measuring = false;
    over = true;
}

static void take_window(void) {
    if (windows == MAX_WINDOWS) return;
    window[windows].at = now_ns() - began;
    window[windows].requests = total.requests;
    window[windows++].cpu = read_cpu().cpu - at_start.cpu;
}

static void keep(Samples *s, double value) {
    if (s->len == s->cap) s->at = grow(s->at, sizeof *s->at * (s->cap = s->cap * 2 + 1024));
    s->at[s->len++] = (float)value;
}

/* -- Connections --------------------------------------------------------------------------------------------------- */

static void open_conn(Conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) die("connect");
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
}

static void close_conn(Conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    release(&c->line);
}

static void fail(Conn *c, const char *why) {
    c->bad = true;
    if (!measuring && opt.json) return; /* while it warms up */
    if (!total.errors++) snprintf(total.first_error, sizeof total.first_error, "%s", why);
}

static void begin_request(Conn *c) {
    c->state = SENDING;
    c->sent = 0;
    c->next = 0;
    c->line.len = 0;
    c->event_stream = c->chunked = c->closing = c->done = c->bad = c->first_seen = false;
    c->start = now_ns();
    c->due = 0;
    if (!opt.json) {
        streams_started++;
        streams_open++;
    }
    if (c->fd < 0) open_conn(c);
}

static void answer_over(Conn *c);

static void lost(Conn *c, const char *why) {
    fail(c, why);
    close_conn(c);
    answer_over(c);
}

/* The answer has ended, well or not: count it, and go on with the next one. */
static void answer_over(Conn *c) {
    uint64_t now = now_ns();
    c->state = IDLE;
    if (!opt.json) streams_open--;
    if (!c->bad && c->event_stream && !c->done) fail(c, "no [DONE]");
    if (!c->bad && c->event_stream && c->next != opt.tokens) fail(c, "tokens are missing");
    if (!c->bad && opt.json && c->event_stream) fail(c, "a stream came");
    if (!c->bad && measuring) {
        if (opt.json) {
            total.requests++;
            keep(&latency_us, (double)(now - c->start) / 1e3);
        } else {
            total.streams++;
        }
    }
    if (c->closing) close_conn(c);
    if (over) return;
    if (opt.steady) {
        if (!c->bad) fail(c, "a stream ended too early");
        return;
    }
    if (opt.json || streams_started < opt.streams) begin_request(c);
}

/* -- Answers ------------------------------------------------------------------------------------------------------- */

static uint64_t number(const char *p, int width) {
    uint64_t value = 0;
    while (width--) value = value * 10 + (uint64_t)(*p++ - '0');
    return value;
}

static void take_event(Conn *c, const char *event, size_t len) {
    if (len >= 12 && !memcmp(event, "data: [DONE]", 12)) {
        c->done = true;
        return;
    }
    if (len >= 6 && event[0] == ':') return; /* a comment, for instance a heartbeat */
    const char *mark = memchr(event, '@', len);
    if (!mark || (size_t)(event + len - mark) < STAMP || mark[27] != '@') {
        if (memmem(event, len, "\"error\"", 7)) fail(c, "error event");
        return;
    }
    if (number(mark + 21, 6) != c->next % 1000000) {
        if (!c->bad) fail(c, "tokens out of order");
        return;
    }
    c->next++;
    uint64_t now = now_ns();
    if (measuring) {
        total.tokens++;
        keep(&latency_us, (double)(now - number(mark + 1, 19)) / 1e3);
    }
    if (c->first_seen) return;
    c->first_seen = true;
    streams_with_token++;
    keep(&ttft_us, (double)(now - c->start) / 1e3);
}

/* Payload of a stream, cut at any place. */
static void take_payload(Conn *c, const char *data, size_t len) {
    while (len) {
        size_t joined = c->line.len;
        const char *end = NULL;
        if (joined && c->line.data[joined - 1] == '\n' && *data == '\n') {
            take_event(c, c->line.data, joined - 1);
            c->line.len = 0;
            data++;
            len--;
            continue;
        }
        end = memmem(data, len, "\n\n", 2);
        if (!end) {
            append(&c->line, data, len);
            return;
        }
        size_t size = (size_t)(end - data);
        if (joined) {
            append(&c->line, data, size);
            take_event(c, c->line.data, c->line.len);
            c->line.len = 0;
        } else {
            take_event(c, data, size);
        }
        data = end + 2;
        len -= size + 2;
    }
}

static bool field(const char *line, const char *name) { return !strncasecmp(line, name, strlen(name)); }

static bool take_head(Conn *c, char *head, size_t len) {
    head[len - 1] = 0;
    bool sized = false;
    if (strncmp(head, "HTTP/1.1 200", 12)) {
        char why[160];
        snprintf(why, sizeof why, "answered %.*s", (int)strcspn(head, "\r\n\"\\") % 60, head);
        fail(c, why);
    }
    for (char *line = strchr(head, '\n'); line; line = strchr(line + 1, '\n')) {
        const char *name = line + 1;
        if (field(name, "content-length:")) {
            sized = true;
            c->left = strtoull(name + 15, NULL, 10);
        } else if (field(name, "transfer-encoding:") && strcasestr(name, "chunked")) c->chunked = true;
        else if (field(name, "connection: close")) c->closing = true;
        else if (field(name, "content-type: text/event-stream")) c->event_stream = true;
    }
    if (!opt.json && !c->event_stream && !c->bad) fail(c, "not a stream");
    c->state = c->chunked ? CHUNK_SIZE : SIZED;
    c->line.len = 0;
    return sized || c->chunked;
}

/* Returns bytes of the head that were taken; the state has changed if it is complete. */
static size_t take_head_bytes(Conn *c, char *data, size_t len) {
    char *end = c->line.len ? NULL : memmem(data, len, "\r\n\r\n", 4);
    if (end) {
        size_t size = (size_t)(end + 4 - data);
        if (!take_head(c, data, size)) lost(c, "no framing");
        return size;
    }
    size_t before = c->line.len;
    append(&c->line, data, len);
    end = memmem(c->line.data, c->line.len, "\r\n\r\n", 4);
    if (!end) return len;
    size_t size = (size_t)(end + 4 - c->line.data);
    if (!take_head(c, c->line.data, size)) lost(c, "no framing");
    return size - before;
}

static size_t take_chunk_line(Conn *c, const char *data, size_t len) {
    size_t used = 0;
    while (used < len && data[used] != '\n') {
        char ch = data[used++];
        int digit = ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1;
        if (digit >= 0) c->left = c->left * 16 + (uint64_t)digit;
        else if (ch != '\r') fail(c, "bad chunk size");
    }
    if (used == len) return used;
    if (measuring) total.chunks += c->left > 0;
    c->state = c->left ? CHUNK_DATA : TRAILER;
    return used + 1;
}

static void take_bytes(Conn *c, char *data, size_t len) {
    while (len && c->state > SENDING) {
        size_t used = 1;
        switch (c->state) {
        case HEAD:
            used = take_head_bytes(c, data, len);
            c->left = c->chunked ? 0 : c->left;
            break;
        case SIZED:
        case CHUNK_DATA:
            used = len < c->left ? len : c->left;
            if (c->event_stream) take_payload(c, data, used);
            c->left -= used;
            if (!c->left && c->state == CHUNK_DATA) c->state = CHUNK_END;
            break;
        case CHUNK_SIZE:
            used = take_chunk_line(c, data, len);
            break;
        case CHUNK_END: /* the line break behind a chunk */
            if (*data == '\n') c->state = CHUNK_SIZE;
            break;
        default: /* TRAILER: the empty line behind the last chunk */
            if (*data == '\n') answer_over(c);
            break;
        }
        data += used;
        len -= used;
        if (c->state == SIZED && !c->left) answer_over(c);
    }
    if (len) fail(c, "bytes behind the answer");
}

/* hung_up: no further event will come, so read to the end. */
static void readable(Conn *c, bool hung_up) {
    static char buffer[READ_SIZE];
    for (;;) {
        if (c->fd < 0 || over) return;
        ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            if (c->state == IDLE) close_conn(c);
            else lost(c, n ? "connection reset" : "connection closed");
            return;
        }
        if (measuring) {
            total.reads++;
            total.bytes += (unsigned long long)n;
        }
        take_bytes(c, buffer, (size_t)n);
        if (n < READ_SIZE && !hung_up) return;
    }
}

static void write_request(Conn *c) {
    while (c->fd >= 0 && c->state == SENDING) {
        ssize_t n = send(c->fd, request.data + c->sent, request.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) {
            lost(c, "cannot send");
            return;
        }
        c->sent += (size_t)n;
        if (c->sent == request.len) c->state = HEAD;
    }
}

/* -- The loop ------------------------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, Samples *s) {
    static const double share[] = {0.5, 0.9, 0.99};
    static const char *label[] = {"p50", "p90", "p99"};
    qsort(s->at, s->len, sizeof *s->at, compare);
    printf(",\"%s\":{\"count\":%zu", name, s->len);
    for (int i = 0; i < 3 && s->len; i++) printf(",\"%s\":%.1f", label[i], s->at[(size_t)(share[i] * (double)(s->len - 1))]);
    printf("}");
}

static void print_result(void) {
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    printf("{\"wall_s\":%.6f,\"cpu_s\":%.6f,\"user_s\":%.3f,\"system_s\":%.3f", (double)(ended - began) / 1e9,
           (double)(at_end.cpu - at_start.cpu) / 1e9, (double)(at_end.user_ticks - at_start.user_ticks) * tick,
           (double)(at_end.system_ticks - at_start.system_ticks) * tick);
    printf(",\"requests\":%llu,\"streams\":%llu,\"chunks\":%llu,\"tokens\":%llu,\"reads\":%llu,\"bytes\":%llu,\"unfinished\":%llu,"
           "\"waiting\":%llu,\"errors\":%llu,\"first_error\":\"%s\"",
           total.requests, total.streams, total.chunks, total.tokens, total.reads, total.bytes, total.unfinished,
           total.waiting, total.errors, total.first_error);
    print_samples("latency_us", &latency_us);
    print_samples("ttft_us", &ttft_us);
    printf(",\"windows\":[");
    for (int i = 0; i < windows; i++)
        printf("%s[%.6f,%llu,%.6f]", i ? "," : "", (double)window[i].at / 1e9, (unsigned long long)window[i].requests,
               (double)window[i].cpu / 1e9);
    printf("]}\n");
}

/* Starts the connections whose time has come; when the next one is due. */
static uint64_t start_due(void) {
    static int next;
    uint64_t now = now_ns();
    for (; next < opt.connections && conns[next].due <= now; next++) {
        Conn *c = &conns[next];
        if (opt.json || opt.steady || streams_started < opt.streams) begin_request(c);
    }
    return next < opt.connections ? conns[next].due : UINT64_MAX;
}

static bool finished(void) {
    if (over) return true;
    if (opt.json) return false;
    if (opt.steady) return !measuring && total.errors;
    return streams_started >= opt.streams && !streams_open;
}

static void run(void) {
    uint64_t start = now_ns(), warm_end = start + (uint64_t)(opt.warm * 1e9), next_window = UINT64_MAX;
    uint64_t all_in = start + (uint64_t)((opt.spread + PATIENCE_S) * 1e9), end = UINT64_MAX;
    if (!opt.json && !opt.steady) {
        start_measuring();
        end = began + (uint64_t)(opt.seconds * 1e9);
    }
    while (!finished()) {
        struct epoll_event events[EVENTS];
        uint64_t due = start_due(), now = now_ns();
        bool ready = opt.json ? now >= warm_end : streams_with_token >= opt.connections || now >= all_in;
        if (!measuring && ready) {
            total.waiting = opt.json ? 0 : (unsigned long long)(opt.connections - streams_with_token);
            start_measuring();
            end = began + (uint64_t)(opt.seconds * 1e9);
            if (opt.windows) next_window = began + SECOND;
        }
        if (now >= next_window) {
            take_window();
            next_window += SECOND;
        }
        if (measuring && now >= end) break;
        uint64_t wake = measuring ? end : opt.json ? warm_end : all_in;
        if (due < wake) wake = due;
        if (next_window < wake) wake = next_window;
        int count = wait_until(epoll_fd, events, EVENTS, wake);
        for (int i = 0; i < count; i++) {
            Conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) write_request(c);
            uint32_t hung_up = events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
            if (hung_up || events[i].events & EPOLLIN) readable(c, hung_up);
            write_request(c); /* the next request, on the connection that has just become free */
        }
    }
    if (!began) start_measuring();
    if (!ended) stop_measuring();
    if (!opt.steady) total.unfinished = (unsigned long long)streams_open;
}

/* -- Command line -------------------------------------------------------------------------------------------------- */

static void read_body(const char *path, Bytes *body) {
    char part[1 << 16];
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    for (size_t n; (n = fread(part, 1, sizeof part, file));) append(body, part, n);
    fclose(file);
}

static void make_request(const Bytes *headers, const Bytes *body) {
    char head[512];
    int len = sprintf(head,
                      "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                      "Accept: */*\r\nUser-Agent: inferdock-bench\r\nContent-Length: %zu\r\n",
                      opt.port, body->len);
    append(&request, head, (size_t)len);
    append(&request, headers->data, headers->len);
    append(&request, "\r\n", 2);
    append(&request, body->data, body->len);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'},   {"connections", 1, 0, 'c'}, {"body", 1, 0, 'b'},   {"seconds", 1, 0, 's'},
        {"warm", 1, 0, 'w'},   {"windows", 0, 0, 'W'},     {"streams", 1, 0, 'n'}, {"tokens", 1, 0, 't'},
        {"spread", 1, 0, 'd'}, {"header", 1, 0, 'H'},      {"pid", 1, 0, 'P'},    {0},
    };
    Bytes headers = {0}, body = {0};
    const char *mode = argc > 1 ? argv[1] : "";
    opt.json = !strcmp(mode, "json");
    opt.steady = !strcmp(mode, "steady");
    if (!opt.json && !opt.steady && strcmp(mode, "run")) return fprintf(stderr, "usage: see load.c\n"), 2;
    argv++, argc--;
    for (int o; (o = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'b': read_body(optarg, &body); break;
        case 's': opt.seconds = atof(optarg); break;
        case 'w': opt.warm = atof(optarg); break;
        case 'W': opt.windows = true; break;
        case 'n': opt.streams = atol(optarg); break;
        case 't': opt.tokens = atol(optarg); break;
        case 'd': opt.spread = atof(optarg); break;
        case 'H':
            append(&headers, optarg, strlen(optarg));
            append(&headers, "\r\n", 2);
            break;
        case 'P':
            if (opt.pid_count < MAX_PIDS) opt.pids[opt.pid_count++] = atoi(optarg);
            break;
        default: return 2;
        }
    }
    raise_file_limit();
    make_request(&headers, &body);
    address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc((size_t)opt.connections, sizeof *conns);
    if (!conns) die("memory");
    uint64_t start = now_ns();
    for (int i = 0; i < opt.connections; i++) {
        conns[i].fd = -1;
        conns[i].due = start + (uint64_t)(opt.spread * 1e9 * i / opt.connections);
    }
    run();
    print_result();
    return 0;
}
