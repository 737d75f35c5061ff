/* sioload - bounded single-threaded epoll load generator for Socket.IO v5 /
 * Engine.IO v4 (WebSocket and HTTP long-polling), 127.0.0.1 only.
 *
 *   cc -O2 -o sioload sioload.c
 *   ./sioload MODE [key=value ...]
 *
 * MODE  echo    every client keeps W x  42["echo","<payload>"]  in flight, waits for its echo
 *       ack     42<id>["ack","<payload>"]  ->  43<id>[...]
 *       fanout  S clients (default: client 0) together keep K x 42["bcast","<payload>"] in flight; each is complete when
 *               all N clients have received 42["m","<payload>"]; reports deliveries/s
 *       connect open N connections, C handshakes at a time, until 40{...}; reports conn/s
 *       idle    open N connections, hold dur seconds, report RSS of server pid= before/after, and its CPU for the heartbeats
 *       poll    long-polling echo: POST 42[...] then GET, one keep-alive connection per client
 *       raw     plain WebSocket text echo (no Socket.IO), W in flight
 *
 * keys: port= n= size= w= k= s= c= dur= warm= pid= path=
 * A line of JSON is written to stdout at the end; the status is 3 if a client was lost, 1 if one could not connect.
 * Linux only (epoll, /proc). Whatever happens, it is over after five minutes.
 * A client that has several echoes in one recv() answers them with one send().
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { M_ECHO, M_ACK, M_FANOUT, M_CONNECT, M_IDLE, M_POLL, M_RAW };
static const char *mode_names[] = {"echo", "ack", "fanout", "connect", "idle", "poll", "raw"};
enum { ST_NEW, ST_HTTP, ST_OPEN, ST_CONN, ST_UP, ST_DEAD };
enum { PS_OPEN, PS_CONNECT_POST, PS_CONNECT_GET, PS_POST, PS_GET };

typedef struct client {
    int fd, st, idx, ps;
    char *in; int inlen, incap;
    char *out; int outlen, outoff, outcap, want_w;
    int pending;                 /* replies owed, flushed after each recv */
    uint64_t *ts; int th, tt;    /* ring of send times */
    uint64_t recvd, ackid;
    char sid[64];
} client;

static int mode, port = 8000, N = 1, size = 32, W = 1, K = 4, C = 64;
static int S = 1;                     /* fanout: number of sending clients */
static double dur = 3, warm = 1;
static int pid = 0;
static const char *path = "/socket.io/";
static client *cl;
static int ep, nup, ndead, ninflight_conn, opened;
static char *frame; static int framelen;         /* prebuilt masked event frame */
static char *payload;
static uint64_t done_msgs, measured0, t_meas0; static int measuring, stopping;
static uint64_t errors, beats;
static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

/* log-linear histogram of ns: 64 octaves x 128 */
static uint64_t hist[64 * 128], hcount;
static void hadd(uint64_t v) {
    if (!measuring) return;
    int o = v < 128 ? 0 : 63 - __builtin_clzll(v) - 6;
    hist[o * 128 + (int)(v >> o)]++; hcount++;
}
static double hq(double q) {              /* microseconds, 1.6 % resolution */
    uint64_t want = (uint64_t)(q * hcount), acc = 0;
    for (int i = 0; i < 64 * 128; i++) { acc += hist[i]; if (acc > want) return (double)((uint64_t)(i % 128) << (i / 128)) / 1e3; }
    return 0;
}

static int mkframe(char *dst, const char *p, int len) {
    int h; unsigned char *d = (unsigned char *)dst;
    d[0] = 0x81;
    if (len < 126) { d[1] = 0x80 | len; h = 2; }
    else if (len < 65536) { d[1] = 0x80 | 126; d[2] = len >> 8; d[3] = len; h = 4; }
    else { d[1] = 0x80 | 127; memset(d + 2, 0, 4); d[6] = len >> 24; d[7] = len >> 16; d[8] = len >> 8; d[9] = len; h = 10; }
    memcpy(d + h, MASK, 4); h += 4;
    for (int i = 0; i < len; i++) d[h + i] = p[i] ^ MASK[i & 3];
    return h + len;
}

static long rss_kib(int p) {
    char b[256]; snprintf(b, sizeof b, "/proc/%d/status", p);
    FILE *f = fopen(b, "r"); long v = -1; if (!f) return -1;
    while (fgets(b, sizeof b, f)) if (sscanf(b, "VmRSS: %ld", &v) == 1) break;
    fclose(f); return v;
}
static double cpu_s(int p) {              /* of all its threads, in nanoseconds: /proc has hundredths of seconds only */
    clockid_t c; struct timespec t;
    return clock_getcpuclockid(p, &c) || clock_gettime(c, &t) ? 0 : t.tv_sec + t.tv_nsec / 1e9;
}
static double self_cpu(void) { struct rusage r; getrusage(RUSAGE_SELF, &r); return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6; }

static void ev(client *c, int op) { struct epoll_event e = {.events = EPOLLIN | (c->want_w ? EPOLLOUT : 0), .data.ptr = c}; epoll_ctl(ep, op, c->fd, &e); }
static void dead(client *c, const char *why) {
    if (c->st == ST_DEAD) return;
    if (!stopping) { errors++; if (errors <= 3) fprintf(stderr, "client %d dead: %s (state %d)\n", c->idx, why, c->st); }
    if (c->st == ST_UP) nup--; else ninflight_conn--;
    c->st = ST_DEAD; ndead++; close(c->fd); c->fd = -1;
}
static void csend(client *c, const char *b, int len) {
    if (c->fd < 0) return;
    if (!c->outlen) {
        ssize_t r = send(c->fd, b, len, MSG_NOSIGNAL);
        if (r == len) return;
        if (r < 0) { if (errno != EAGAIN) { dead(c, strerror(errno)); return; } r = 0; }
        b += r; len -= r;
    }
    if (c->outoff + c->outlen + len > c->outcap) {
        memmove(c->out, c->out + c->outoff, c->outlen); c->outoff = 0;
        if (c->outlen + len > c->outcap) { c->outcap = (c->outlen + len) * 2; c->out = realloc(c->out, c->outcap); }
    }
    memcpy(c->out + c->outoff + c->outlen, b, len); c->outlen += len;
    if (!c->want_w) { c->want_w = 1; ev(c, EPOLL_CTL_MOD); }
}
static void sendtext(client *c, const char *s) { char b[256]; int n = mkframe(b, s, strlen(s)); csend(c, b, n); }

static void start(client *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) { perror("socket"); exit(1); }
    int one = 1; setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)}; inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    if (connect(c->fd, (void *)&a, sizeof a) < 0 && errno != EINPROGRESS) { perror("connect"); exit(1); }
    c->st = ST_NEW; c->want_w = 1; ninflight_conn++; ev(c, EPOLL_CTL_ADD);
}

/* ---- modes ---- */
#define BK 4096
static uint64_t bsent, bdone, bt[BK]; static int bcnt[BK];
static void bcast(void) { bt[bsent % BK] = now(); bcnt[bsent % BK] = 0; client *c = &cl[bsent % S]; bsent++; csend(c, frame, framelen); }
static char *big;
static void push(client *c, int n) {       /* send n new messages on c */
    if (stopping || c->st != ST_UP) return;
    uint64_t t = now(); int len = 0;
    for (int i = 0; i < n; i++) {
        c->ts[c->tt++ % W] = t;
        if (mode == M_ACK) {
            char b[128 + 70000]; int k = snprintf(b, sizeof b, "42%llu[\"ack\",\"%s\"]", (unsigned long long)c->ackid++, payload);
            len += mkframe(big + len, b, k);
        } else { memcpy(big + len, frame, framelen); len += framelen; }
    }
    csend(c, big, len);
}
static void got(client *c) {
    done_msgs++; hadd(now() - c->ts[c->th++ % W]); c->pending++;
}
static void http_req(client *c) {
    char b[70000]; int n;
    if (c->ps == PS_OPEN) n = snprintf(b, sizeof b, "GET %s?EIO=4&transport=polling HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nUser-Agent: sioload/1\r\n\r\n", path, port);
    else if (c->ps == PS_CONNECT_GET || c->ps == PS_GET) n = snprintf(b, sizeof b, "GET %s?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nUser-Agent: sioload/1\r\n\r\n", path, c->sid, port);
    else {
        static char body[70000]; int bl = c->ps == PS_CONNECT_POST ? snprintf(body, sizeof body, "40") : snprintf(body, sizeof body, "42[\"echo\",\"%s\"]", payload);
        n = snprintf(b, sizeof b, "POST %s?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nUser-Agent: sioload/1\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n\r\n%s", path, c->sid, port, bl, body);
    }
    csend(c, b, n);
}
static void is_up(client *c) { if (c->st == ST_UP) return; c->st = ST_UP; nup++; ninflight_conn--; }

static void on_text(client *c, const char *p, int len) {
    if (mode == M_RAW) { if (len != size) dead(c, "bad raw echo"); else got(c); return; }
    if (len < 1) return;
    if (p[0] == '2') { beats++; sendtext(c, "3"); return; }
    if (c->st == ST_OPEN) { if (p[0] != '0') { dead(c, "no open packet"); return; } c->st = ST_CONN; sendtext(c, "40"); return; }
    if (c->st == ST_CONN) {
        if (len > 2 && p[0] == '4' && p[1] == '0') { is_up(c); return; }
        dead(c, "no connect packet"); return;
    }
    if (len < 3 || p[0] != '4') return;
    if (mode == M_ECHO && p[1] == '2') { if (len < size + 11) dead(c, "short echo"); else got(c); }
    else if (mode == M_ACK && p[1] == '3') got(c);
    else if (mode == M_FANOUT && p[1] == '2') {
        done_msgs++; uint64_t s = c->recvd++;
        if (s >= bsent) { dead(c, "unexpected broadcast"); return; }
        if (++bcnt[s % BK] == N) { bdone++; hadd(now() - bt[s % BK]); if (!stopping) cl[0].pending++; }
    }
}

/* consume what can be parsed of b; returns consumed */
static int feed(client *c, const char *b, int len) {
    int o = 0;
    if (c->st == ST_HTTP && mode != M_POLL) {
        const char *e = memmem(b, len, "\r\n\r\n", 4);
        if (!e) return 0;
        if (len < 12 || memcmp(b + 9, "101", 3)) { fprintf(stderr, "%.*s\n", len > 300 ? 300 : len, b); dead(c, "not 101"); return len; }
        o = e + 4 - b;
        if (mode == M_RAW) is_up(c); else c->st = ST_OPEN;
    }
    if (mode == M_POLL) {
        for (;;) {
            const char *s = b + o; int l = len - o;
            const char *e = l ? memmem(s, l, "\r\n\r\n", 4) : 0; if (!e) return o;
            int hl = e + 4 - s; const char *body = e + 4; int bl = 0, total = 0; static char cb[70000];
            const char *h = 0; for (const char *q = s; q < e; q++) if (!strncasecmp(q, "content-length:", 15)) { h = q; break; }
            if (h) { bl = atoi(h + 15); total = hl + bl; if (l < total) return o; }
            else { /* chunked */
                const char *q = body, *end = s + l; int n = 0;
                for (;;) { const char *x = memmem(q, end - q, "\r\n", 2); if (!x) return o; int k = strtol(q, 0, 16); if (end - x - 2 < k + 2) return o; memcpy(cb + n, x + 2, k); n += k; q = x + 4 + k; if (!k) break; }
                total = q - s; bl = n; body = cb;
            }
            if (memcmp(s + 9, "200", 3)) { fprintf(stderr, "%.*s\n", l > 300 ? 300 : l, s); dead(c, "http not 200"); return len; }
            o += total;
            switch (c->ps) {
            case PS_OPEN: { const char *q = memmem(body, bl, "\"sid\":\"", 7); if (!q) { dead(c, "no sid"); return len; } q += 7; int i = 0; while (q[i] != '"' && i < 63) { c->sid[i] = q[i]; i++; } c->sid[i] = 0; c->ps = PS_CONNECT_POST; http_req(c); break; }
            case PS_CONNECT_POST: c->ps = PS_CONNECT_GET; http_req(c); break;
            case PS_CONNECT_GET: is_up(c); c->ps = PS_POST; break;
            case PS_POST: c->ps = PS_GET; http_req(c); break;
            case PS_GET: if (bl >= size + 11) { got(c); c->pending = 0; c->ps = PS_POST; if (!stopping) { c->ts[c->tt++ % W] = now(); http_req(c); } } else if (!stopping) { http_req(c); } break;
            }
        }
    }
    while (len - o >= 2 && c->st != ST_DEAD) {
        const unsigned char *u = (const unsigned char *)b + o; uint64_t l = u[1] & 127; int h = 2;
        if (l == 126) { if (len - o < 4) break; l = u[2] << 8 | u[3]; h = 4; }
        else if (l == 127) { if (len - o < 10) break; l = 0; for (int i = 2; i < 10; i++) l = l << 8 | u[i]; h = 10; }
        if ((uint64_t)(len - o) < h + l) break;
        int op = u[0] & 15;
        if (op == 1) on_text(c, b + o + h, (int)l);
        else if (op == 8) { dead(c, "close frame"); return len; }
        else if (op == 9) { char f[140]; int n = mkframe(f, b + o + h, (int)l); f[0] = (char)0x8a; csend(c, f, n); }
        o += h + (int)l;
    }
    return o;
}
static char rb[1 << 18];
static void on_read(client *c) {
    ssize_t r = recv(c->fd, rb, sizeof rb, 0);
    if (r == 0) { dead(c, "eof"); return; }
    if (r < 0) { if (errno != EAGAIN) dead(c, strerror(errno)); return; }
    if (c->inlen) {
        if (c->inlen + r > c->incap) { c->incap = (c->inlen + r) * 2; c->in = realloc(c->in, c->incap); }
        memcpy(c->in + c->inlen, rb, r); c->inlen += r;
        int o = feed(c, c->in, c->inlen); if (c->st == ST_DEAD) return;
        memmove(c->in, c->in + o, c->inlen - o); c->inlen -= o;
    } else {
        int o = feed(c, rb, r); if (c->st == ST_DEAD) return;
        if (o < r) { if (c->incap < r - o) { c->incap = (r - o) * 2; c->in = realloc(c->in, c->incap); } memcpy(c->in, rb + o, r - o); c->inlen = r - o; }
    }
    if (c->pending && mode != M_FANOUT && mode != M_POLL) { int n = c->pending; c->pending = 0; push(c, n); }
}
static void loop_once(int timeout_ms) {
    static struct epoll_event es[1024];
    int n = epoll_wait(ep, es, 1024, timeout_ms);
    for (int i = 0; i < n; i++) {
        client *c = es[i].data.ptr; if (c->st == ST_DEAD) continue;
        if (c->st == ST_NEW) {
            int err = 0; socklen_t l = sizeof err; getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
            if (err) { dead(c, strerror(err)); continue; }
            c->want_w = 0; ev(c, EPOLL_CTL_MOD); c->st = ST_HTTP;
            if (mode == M_POLL) { c->ps = PS_OPEN; http_req(c); continue; }
            char b[600]; int k = snprintf(b, sizeof b, "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nUser-Agent: sioload/1\r\n\r\n",
                path, mode == M_RAW ? "" : "?EIO=4&transport=websocket", port);
            csend(c, b, k); continue;
        }
        if (es[i].events & EPOLLOUT && c->want_w) {
            ssize_t r = send(c->fd, c->out + c->outoff, c->outlen, MSG_NOSIGNAL);
            if (r > 0) { c->outoff += r; c->outlen -= r; }
            if (!c->outlen) { c->outoff = 0; c->want_w = 0; ev(c, EPOLL_CTL_MOD); }
        }
        if (es[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_read(c);
    }
    if (mode == M_FANOUT && cl[0].pending) { int k = cl[0].pending; cl[0].pending = 0; while (k-- > 0 && !stopping) bcast(); }
}
static void run_until(uint64_t t) { uint64_t x; while ((x = now()) < t && ndead < N) { int ms = (t - x) / 1000000; loop_once(ms > 50 ? 50 : ms); } }

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    for (mode = 0; mode < 7 && strcmp(mode_names[mode], argv[1]); mode++) ;
    if (mode == 7) { fprintf(stderr, "bad mode\n"); return 2; }
    for (int i = 2; i < argc; i++) {
        char *k = argv[i], *v = strchr(k, '='); if (!v) continue; *v++ = 0;
        if (!strcmp(k, "port")) port = atoi(v); else if (!strcmp(k, "n")) N = atoi(v); else if (!strcmp(k, "size")) size = atoi(v);
        else if (!strcmp(k, "w")) W = atoi(v); else if (!strcmp(k, "k")) K = atoi(v); else if (!strcmp(k, "c")) C = atoi(v); else if (!strcmp(k, "s")) S = atoi(v);
        else if (!strcmp(k, "dur")) dur = atof(v); else if (!strcmp(k, "warm")) warm = atof(v); else if (!strcmp(k, "pid")) pid = atoi(v);
        else if (!strcmp(k, "path")) path = v; else { fprintf(stderr, "bad key %s\n", k); return 2; }
    }
    if (N < 1 || W < 1 || K < 1 || S < 1 || C < 1 || size < 0 || K > BK) { fprintf(stderr, "a count is out of its range\n"); return 2; }
    if (S > N) S = N;
    if (dur > 60) dur = 60;
    if (warm > 60) warm = 60;
    alarm(300);
    struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
    if (size > 60000) size = 60000;
    if (mode == M_POLL) W = 1;
    if (mode == M_CONNECT || mode == M_IDLE) W = 1;
    ep = epoll_create1(0); cl = calloc(N, sizeof *cl);
    payload = malloc(size + 1); for (int i = 0; i < size; i++) payload[i] = 'a' + i % 26; payload[size] = 0;
    char *txt = malloc(size + 64); int tl = mode == M_RAW ? sprintf(txt, "%s", payload) : sprintf(txt, "42[\"%s\",\"%s\"]", mode == M_FANOUT ? "bcast" : "echo", payload);
    frame = malloc(tl + 16); framelen = mkframe(frame, txt, tl); big = malloc((size_t)(framelen + 64) * (W + 1));
    for (int i = 0; i < N; i++) { cl[i].idx = i; cl[i].ts = calloc(W, sizeof(uint64_t)); }

    long rss0 = pid ? rss_kib(pid) : 0;
    double scpu0 = pid ? cpu_s(pid) : 0; uint64_t t0 = now(), tmax = t0 + 120000000000ull;
    while (nup + ndead < N && now() < tmax) {
        while (opened < N && ninflight_conn < C) start(&cl[opened++]);
        loop_once(100);
    }
    double tconn = (now() - t0) / 1e9, scpu_conn = pid ? cpu_s(pid) - scpu0 : 0;
    if (nup < N) { fprintf(stderr, "only %d of %d connected in %.0f s\n", nup, N, tconn); return 1; }
    double rate = 0, gshare = self_cpu() / tconn, sshare = pid ? scpu_conn / tconn : 0; double kib = 0, hold = 0; long rss1 = 0; uint64_t beats0 = beats;
    if (mode == M_CONNECT) rate = nup / tconn;
    else if (mode == M_IDLE) {
        double s0 = pid ? cpu_s(pid) : 0;
        run_until(now() + dur * 1e9);
        hold = pid ? cpu_s(pid) - s0 : 0; rss1 = pid ? rss_kib(pid) : 0; kib = nup ? (double)(rss1 - rss0) / nup : 0; rate = nup / tconn;
    }
    else {
        for (int i = 0; i < N && mode != M_FANOUT; i++) {
            if (mode == M_POLL) { cl[i].ts[cl[i].tt++ % W] = now(); http_req(&cl[i]); }
            else push(&cl[i], W);
            if (i % 64 == 63) loop_once(0);
        }
        if (mode == M_FANOUT) for (int i = 0; i < K; i++) bcast();
        run_until(now() + warm * 1e9);
        double g0 = self_cpu(), s0 = pid ? cpu_s(pid) : 0; measuring = 1; t_meas0 = now(); measured0 = done_msgs;
        run_until(now() + dur * 1e9);
        double el = (now() - t_meas0) / 1e9; uint64_t m = done_msgs - measured0; measuring = 0;
        gshare = (self_cpu() - g0) / el; sshare = pid ? (cpu_s(pid) - s0) / el : 0; rate = m / el;
        rss1 = pid ? rss_kib(pid) : 0;
    }
    stopping = 1;
    printf("{\"mode\": \"%s\", \"clients\": %d, \"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"generator_cpu\": %.4f, "
           "\"server_cpu\": %.4f, \"kib_per_client\": %.2f, \"beats\": %llu, \"idle_cpu_s\": %.6f, \"errors\": %llu}\n",
           mode_names[mode], N, rate, hq(.5), hq(.99), gshare, sshare, kib, (unsigned long long)(beats - beats0), hold, (unsigned long long)errors);
    fflush(stdout);
    for (int i = 0; i < N; i++) if (cl[i].fd > 0) {
        if (mode != M_POLL && cl[i].st == ST_UP) { char f[8] = {(char)0x88, (char)0x82, 0, 0, 0, 0, 3, (char)0xe8}; send(cl[i].fd, f, 8, MSG_NOSIGNAL | MSG_DONTWAIT); }
        close(cl[i].fd);
    }
    return errors ? 3 : 0;
}
