/* An emulated line: forwards TCP connections with a delay each way and one downstream rate that all of them share.

   line TARGET_PORT RTT_MS BYTES_PER_SECOND WINDOW STATUS_FILE

   Listens on a free port of 127.0.0.1 and prints it.  A rate of 0 is no limit.  What a connection has under way (read from
   the server and not yet acknowledged by the client, half a round trip after it got it) never exceeds WINDOW bytes.  The
   rate is shared in turns of 16 KiB.  What a client sends in its first round trip waits for the end of it, as if connecting
   had taken that long.  No loss, no slow start.  STATUS_FILE holds four counters that go up while it runs: bytes
   downstream, bytes upstream, connections opened, connections open now. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { QUANTUM = 16 << 10, UP_BUFFER = 1 << 20, MARKS = 4096, MAX_EVENTS = 256, KERNEL_BUFFER = 512 << 10 };
static const int64_t MERGE_NS = 200000, NEVER = INT64_MAX, MIN_SLEEP_NS = 300000, BURST_NS = 2000000;

/* Moments at which a stream's bytes up to a position may go on. */
struct marks { int64_t when[MARKS]; uint64_t upto[MARKS]; unsigned first, n; };

/* One direction of a connection; positions count bytes from its start:
   acked <= out <= arrived <= sent <= in. */
struct stream {
    int from, to;
    int readable, writable, hung_up, ended, closed;
    char *buffer;
    uint64_t size, base, in, sent, arrived, out, acked;
    int64_t hold_until, end_at;
    struct marks arrive, ack;
};

struct connection { struct stream up, down; int failed; struct connection *next; };

struct status { uint64_t down, up, opened, open; };

static struct status *status;
static struct connection *connections, *turn;
static int64_t delay_ns, busy_until;
static double ns_per_byte;
static uint64_t window;
static int poller;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int is_full(const struct marks *m) { return m->n == MARKS; }

static void push(struct marks *m, int64_t when, uint64_t upto) {
    unsigned last = (m->first + m->n - 1) % MARKS;
    if (m->n > 1 && when - m->when[last] < MERGE_NS && m->n > MARKS / 2) {
        m->when[last] = when;
        m->upto[last] = upto;
        return;
    }
    unsigned place = (m->first + m->n++) % MARKS;
    m->when[place] = when;
    m->upto[place] = upto;
}

static int64_t next_mark(const struct marks *m) { return m->n ? m->when[m->first] : NEVER; }

static void pop_until(struct marks *m, int64_t now, uint64_t *position) {
    while (m->n && m->when[m->first] <= now) {
        *position = m->upto[m->first];
        m->first = (m->first + 1) % MARKS;
        m->n--;
    }
}

/* The part of a stream's ring at a position, without wrapping. */
static char *part(const struct stream *s, uint64_t position, uint64_t n, uint64_t *length) {
    uint64_t at = (position - s->base) % s->size;
    *length = n < s->size - at ? n : s->size - at;
    return s->buffer + at;
}

static int take_in(struct stream *s, int64_t now) {
    while (s->readable && !s->ended) {
        if (s->in == s->out) s->base = s->in; /* an empty ring starts anew: its memory stays in the cache */
        uint64_t length, room = s->size - (s->in - s->acked);
        if (!room) return 0;
        char *place = part(s, s->in, room, &length);
        ssize_t n = recv(s->from, place, length, 0);
        if (n > 0) {
            s->in += n;
            if ((uint64_t)n < length && !s->hung_up) s->readable = 0; /* empty: epoll tells of more */
        } else if (n == 0) {
            s->ended = 1;
            s->end_at = now + delay_ns;
        } else if (errno == EAGAIN) {
            s->readable = 0;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

static int give_out(struct stream *s, int64_t now) {
    uint64_t before = s->out;
    pop_until(&s->arrive, now, &s->arrived);
    while (s->out < s->arrived && s->writable && !is_full(&s->ack)) {
        uint64_t length;
        char *place = part(s, s->out, s->arrived - s->out, &length);
        ssize_t n = send(s->to, place, length, MSG_NOSIGNAL);
        if (n > 0) s->out += n;
        else if (errno == EAGAIN) s->writable = 0;
        else if (errno != EINTR) return -1;
    }
    if (s->out > before) push(&s->ack, now + delay_ns, s->out);
    if (s->ended && !s->closed && s->out == s->in && s->end_at <= now) {
        shutdown(s->to, SHUT_WR);
        s->closed = 1;
    }
    return 0;
}

/* Send what streams hold through the bottleneck, in turns. */
static void share_rate(int64_t now) {
    static int is_idle = 1;
    /* an idle line saves nothing up, but for what this program may have slept too long */
    if (is_idle && busy_until < now - BURST_NS) busy_until = now - BURST_NS;
    is_idle = 0;
    while (busy_until <= now || ns_per_byte == 0) {
        struct connection *c = turn ? turn : connections, *first = c;
        while (c && (c->down.in == c->down.sent || is_full(&c->down.arrive))) {
            c = c->next ? c->next : connections;
            if (c == first) c = NULL;
        }
        is_idle = !c;
        if (is_idle) break;
        struct stream *s = &c->down;
        uint64_t n = s->in - s->sent;
        if (n > QUANTUM && ns_per_byte > 0) n = QUANTUM;
        s->sent += n;
        status->down += n;
        busy_until += n * ns_per_byte;
        push(&s->arrive, (busy_until > now ? busy_until : now) + delay_ns, s->sent);
        turn = c->next;
    }
}

static int64_t stream_next(const struct stream *s) {
    int64_t next = next_mark(&s->arrive);
    if (s->in - s->acked >= s->size && next_mark(&s->ack) < next) next = next_mark(&s->ack);
    if (s->ended && !s->closed && s->out == s->in && s->end_at < next) next = s->end_at;
    return next;
}

static void open_stream(struct stream *s, int from, int to, uint64_t size) {
    s->from = from;
    s->to = to;
    s->writable = 1;
    s->size = size;
    s->buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->buffer == MAP_FAILED) fail("mmap");
}

static void watch(int fd, struct connection *c, int is_server) {
    int one = 1, size = KERNEL_BUFFER;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, is_server ? SO_RCVBUF : SO_SNDBUF, &size, sizeof size);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    /* pointers are even: the lowest bit tells the server's side */
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.u64 = (uintptr_t)c | is_server}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

static void accept_all(int listener, int port) {
    int client;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
        target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int server = socket(AF_INET, SOCK_STREAM, 0);
        if (server < 0 || connect(server, (struct sockaddr *)&target, sizeof target)) {
            if (server >= 0) close(server);
            close(client);
            continue;
        }
        struct connection *c = calloc(1, sizeof *c);
        if (!c) fail("calloc");
        open_stream(&c->up, client, server, UP_BUFFER);
        open_stream(&c->down, server, client, window);
        c->up.hold_until = now_ns() + 2 * delay_ns;
        c->next = connections;
        connections = c;
        watch(client, c, 0);
        watch(server, c, 1);
        status->opened++;
        status->open++;
    }
}

static void close_connection(struct connection **place) {
    struct connection *c = *place;
    *place = c->next;
    if (turn == c) turn = c->next;
    close(c->up.from);
    close(c->up.to);
    munmap(c->up.buffer, c->up.size);
    munmap(c->down.buffer, c->down.size);
    free(c);
    status->open--;
}

static void set_ready(struct epoll_event *event) {
    struct connection *c = (struct connection *)(uintptr_t)(event->data.u64 & ~1ULL);
    int is_server = event->data.u64 & 1;
    struct stream *read = is_server ? &c->down : &c->up, *write = is_server ? &c->up : &c->down;
    if (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) read->readable = 1;
    if (event->events & (EPOLLRDHUP | EPOLLHUP)) read->hung_up = 1;
    if (event->events & EPOLLOUT) write->writable = 1;
    if (event->events & EPOLLERR) c->failed = 1;
}

/* Move everything that may move now; return when to come back. */
static int64_t move(void) {
    int64_t now = now_ns(), next = NEVER;
    for (struct connection *c = connections; c; c = c->next) {
        pop_until(&c->up.ack, now, &c->up.acked);
        pop_until(&c->down.ack, now, &c->down.acked);
        if (take_in(&c->up, now) || take_in(&c->down, now)) c->failed = 1;
        struct stream *s = &c->up;
        if (s->sent < s->in && !is_full(&s->arrive)) {
            status->up += s->in - s->sent;
            s->sent = s->in;
            push(&s->arrive, (now > s->hold_until ? now : s->hold_until) + delay_ns, s->sent);
        }
    }
    share_rate(now);
    int waits = 0;
    for (struct connection **place = &connections; *place;) {
        struct connection *c = *place;
        if (give_out(&c->up, now) || give_out(&c->down, now)) c->failed = 1;
        if (c->failed || (c->up.closed && c->down.closed)) {
            close_connection(place);
            continue;
        }
        int64_t up = stream_next(&c->up), down = stream_next(&c->down);
        if (up < next) next = up;
        if (down < next) next = down;
        waits |= c->down.sent < c->down.in;
        place = &c->next;
    }
    if (waits && busy_until < next) next = busy_until;
    return next;
}

static int listen_anywhere(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1024)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: line TARGET_PORT RTT_MS BYTES_PER_SECOND WINDOW STATUS_FILE\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int port = atoi(argv[1]);
    delay_ns = atof(argv[2]) * 1e6 / 2;
    ns_per_byte = atof(argv[3]) > 0 ? 1e9 / atof(argv[3]) : 0;
    window = strtoull(argv[4], NULL, 10);
    int file = open(argv[5], O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, sizeof *status)) fail(argv[5]);
    status = mmap(NULL, sizeof *status, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    poller = epoll_create1(0);
    int listener = listen_anywhere(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    static int listener_tag, timer_tag;
    struct epoll_event event = {EPOLLIN, {.ptr = &listener_tag}}, events[MAX_EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event = (struct epoll_event){EPOLLIN | EPOLLET, {.ptr = &timer_tag}};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        int64_t next = move();
        if (next != NEVER) {
            int64_t earliest = now_ns() + MIN_SLEEP_NS;
            if (next < earliest) next = earliest;
            struct itimerspec at = {.it_value = {next / 1000000000, next % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        int n = epoll_wait(poller, events, MAX_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener_tag) accept_all(listener, port);
            else if (events[i].data.ptr != &timer_tag) set_ready(&events[i]);
        }
    }
}
