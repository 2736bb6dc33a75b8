/* A server's TCP, as Linux has it: what it takes, refuses, answers and forgets.
 *
 * Written after net/ipv4/tcp_input.c, tcp_minisocks.c, tcp_timer.c and syncookies.c (6.x); a
 * function's name in a comment is the place. One connection at a time over one set of addresses
 * and ports, which is all an adversary needs. It knows neither the gateway nor SMTP, but for the
 * application on top of it. Nothing is allocated. */
#ifndef EXHAUSTIVE_KERNEL_H
#define EXHAUSTIVE_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "application.h"

enum { FLAG_FIN = 1, FLAG_SYN = 2, FLAG_RST = 4, FLAG_PSH = 8, FLAG_ACK = 16 };

/* What a segment carries besides timestamps. */
enum { OPTION_NONE, OPTION_MD5, OPTION_AO };

enum { SEGMENT_PAYLOAD = 1400 };

struct segment {
    uint32_t seq, ack, tsval;
    uint16_t window, length;
    uint8_t flags, option, timestamps, to_server;
    uint8_t payload[SEGMENT_PAYLOAD];
};

/* Where a server's initial numbers come from. */
enum {
    ISN_FRESH,                     /* another for each connection: no server does, most models do */
    ISN_CLOCK,                     /* RFC 6528: a secret of the addresses and ports, and 64 ns a step */
    ISN_COOKIE,                    /* tcp_syncookies = 2, or a full queue: no state before the ACK */
    ISN_COOKIES_NEAR,              /* the same, of a port whose cookies of two minutes lie close together */
    ISN_MODELS
};

enum {
    KERNEL_LISTEN,                 /* no connection */
    KERNEL_SYN_RECV,
    KERNEL_ESTABLISHED,
    KERNEL_CLOSE_WAIT,             /* never for long: who reads the end closes */
    KERNEL_LAST_ACK,
    KERNEL_FIN_WAIT1,
    KERNEL_CLOSING,
    KERNEL_FIN_WAIT2,              /* nobody holds it: a TIME-WAIT socket in Linux, as is the next */
    KERNEL_TIME_WAIT
};

#define SECONDS 1000000000ull
#define COOKIE_MINUTE (60 * SECONDS)
enum { COOKIE_AGES = 2, COOKIE_SIZES = 4, COOKIE_ROUND = 64 };      /* MAX_SYNCOOKIE_AGE; entries of msstab */
enum { KERNEL_WINDOW = 65535, KERNEL_OUT = 8, KERNEL_EARLY = 64 };
enum { NEAR = 5 };                 /* how close together: as few bytes as the search has to say */

struct kernel {
    uint64_t now, since;           /* nanoseconds; `since`: the last time the peer moved anything */
    uint64_t issued;               /* bits of the minutes in which cookies were given: nobody knows others */
    uint64_t connections;          /* begun, ever; of a clock's, since the last long wait: each a moment later */
    uint32_t irs, rcv_nxt, iss, snd_una, snd_nxt, snd_wnd, ts_recent;
    uint32_t last_rcv_nxt;         /* of the connection before, for who wants to know */
    uint32_t early_seq;
    uint16_t early_length;
    uint8_t early[KERNEL_EARLY];   /* tcp_data_queue_ofo: one range, which is all that is sent here */
    uint8_t state, model, timestamps, strict, fin_sent, denies_ehlo;
    uint8_t count;                 /* of `out` */
    struct application application;
    struct segment out[KERNEL_OUT];
};

static inline int32_t seq_diff(uint32_t a, uint32_t b) { return (int32_t)(a - b); }

static inline void kernel_open(struct kernel *kernel, uint8_t model, uint8_t denies_ehlo) {
    memset(kernel, 0, offsetof(struct kernel, application));
    kernel->model = model;
    kernel->denies_ehlo = denies_ehlo;
    kernel->strict = model == ISN_FRESH;
    kernel->count = 0;
}

static inline void kernel_send(struct kernel *kernel, uint32_t seq, uint32_t ack, uint8_t flags, const uint8_t *payload,
                               uint32_t length) {
    struct segment *segment = &kernel->out[kernel->count];
    if (kernel->count == KERNEL_OUT)
        return;
    kernel->count++;
    segment->seq = seq;
    segment->ack = ack;
    segment->flags = flags;
    segment->window = KERNEL_WINDOW;
    segment->option = OPTION_NONE;
    segment->timestamps = kernel->timestamps && !(flags & FLAG_RST);
    segment->tsval = 1;
    segment->to_server = 0;
    segment->length = (uint16_t)length;
    if (length)
        memcpy(segment->payload, payload, length);
}

static inline void kernel_acknowledge(struct kernel *kernel) {
    kernel_send(kernel, kernel->snd_nxt, kernel->rcv_nxt, FLAG_ACK, NULL, 0);
}

/* tcp_v4_send_reset: the number is what the segment acknowledged. */
static inline void kernel_refuse(struct kernel *kernel, const struct segment *segment) {
    uint32_t end = segment->seq + segment->length + !!(segment->flags & FLAG_SYN) + !!(segment->flags & FLAG_FIN);
    if (segment->flags & FLAG_RST)
        return;
    if (segment->flags & FLAG_ACK)
        kernel_send(kernel, segment->ack, 0, FLAG_RST, NULL, 0);
    else
        kernel_send(kernel, 0, end, FLAG_RST | FLAG_ACK, NULL, 0);
}

static inline void kernel_forget(struct kernel *kernel) {
    if (kernel->state > KERNEL_SYN_RECV)
        kernel->last_rcv_nxt = kernel->rcv_nxt;
    kernel->state = KERNEL_LISTEN;
    kernel->early_length = kernel->fin_sent = 0;
}

/* cookie_hash: linear in the client's number, so that one cookie is one for every number of the client's. What a
 * minute adds comes round after 64, in Linux after 256: longer than any course of events. */
static inline uint32_t kernel_cookie(const struct kernel *kernel, uint32_t isn, uint64_t minute, uint32_t size) {
    uint32_t step = kernel->model == ISN_COOKIES_NEAR ? NEAR : 0x01234567;
    return 0x70000000u + isn + (uint32_t)(minute % COOKIE_ROUND) * step + size;
}

/* __cookie_v4_check. */
static inline int kernel_cookie_valid(const struct kernel *kernel, uint32_t isn, uint32_t cookie) {
    uint64_t minute = kernel->now / COOKIE_MINUTE, age;
    for (age = 0; age < COOKIE_AGES && age <= minute; age++)
        if (kernel->issued >> ((minute - age) % COOKIE_ROUND) & 1 &&
            cookie - kernel_cookie(kernel, isn, minute - age, 0) < COOKIE_SIZES)
            return 1;
    return 0;
}

static inline int kernel_makes_cookies(const struct kernel *kernel) { return kernel->model >= ISN_COOKIE; }

static inline int kernel_outstanding(const struct kernel *kernel) {
    return kernel->snd_una != kernel->iss + 1 + kernel->application.said + kernel->fin_sent ||
           (kernel->application.closes && !kernel->fin_sent);
}

/* tcp_write_xmit: what the peer's window lets through. */
static inline void kernel_push(struct kernel *kernel) {
    uint32_t place = kernel->snd_nxt - kernel->iss - 1, left;
    int32_t room = seq_diff(kernel->snd_una + kernel->snd_wnd, kernel->snd_nxt);
    uint8_t flags = FLAG_ACK | FLAG_PSH;
    if (kernel->state < KERNEL_ESTABLISHED || kernel->fin_sent)
        return;
    left = kernel->application.said - place;
    if ((int32_t)left > room)
        left = room > 0 ? (uint32_t)room : 0;
    if (kernel->application.closes && place + left == kernel->application.said && room > (int32_t)left)
        flags |= FLAG_FIN;
    if (!left && !(flags & FLAG_FIN))
        return;
    kernel_send(kernel, kernel->snd_nxt, kernel->rcv_nxt, flags, kernel->application.out + place, left);
    kernel->snd_nxt += left + !!(flags & FLAG_FIN);
    kernel->fin_sent = !!(flags & FLAG_FIN);
}

/* tcp_close: from here on nobody reads. */
static inline void kernel_close(struct kernel *kernel) {
    if (kernel->state == KERNEL_ESTABLISHED)
        kernel->state = KERNEL_FIN_WAIT1;
    else if (kernel->state == KERNEL_CLOSE_WAIT)
        kernel->state = KERNEL_LAST_ACK;
    kernel->since = kernel->now;
}

static inline void kernel_establish(struct kernel *kernel, const struct segment *segment) {
    kernel->state = KERNEL_ESTABLISHED;
    kernel->snd_una = kernel->snd_nxt = kernel->iss + 1;
    kernel->snd_wnd = segment->window;
    kernel->fin_sent = 0;
    kernel->early_length = 0;
    kernel->since = kernel->now;
    application_open(&kernel->application, kernel->denies_ehlo);
}

/* tcp_conn_request. `isn`: of a TIME-WAIT socket that made room, 0 without one. */
static inline void kernel_syn(struct kernel *kernel, const struct segment *segment, uint32_t isn) {
    kernel->timestamps = segment->timestamps;
    kernel->irs = segment->seq;
    kernel->rcv_nxt = segment->seq + 1;
    kernel->ts_recent = segment->tsval;
    kernel->snd_wnd = segment->window;
    if (!isn && kernel_makes_cookies(kernel)) {
        isn = kernel_cookie(kernel, segment->seq, kernel->now / COOKIE_MINUTE, COOKIE_SIZES - 1);
        kernel->issued |= 1ull << kernel->now / COOKIE_MINUTE % COOKIE_ROUND;
        kernel_send(kernel, isn, kernel->rcv_nxt, FLAG_SYN | FLAG_ACK, NULL, 0);
        return;
    }
    if (!isn && kernel->model == ISN_FRESH)
        isn = 0x50000000u + (uint32_t)kernel->connections * 0x01000193u;
    else if (!isn)
        isn = 0x50000000u + (uint32_t)(kernel->now / 64 + kernel->connections * 0x10000);
    kernel->connections++;
    kernel->iss = isn;
    kernel->snd_una = isn;
    kernel->snd_nxt = isn + 1;
    kernel->state = KERNEL_SYN_RECV;
    kernel->since = kernel->now;
    kernel_send(kernel, isn, kernel->rcv_nxt, FLAG_SYN | FLAG_ACK, NULL, 0);
}

static inline int kernel_old(const struct kernel *kernel, const struct segment *segment) {
    return kernel->timestamps && segment->timestamps && seq_diff(segment->tsval, kernel->ts_recent) < 0;
}

static inline uint32_t kernel_end(const struct segment *segment) {
    return segment->seq + segment->length + !!(segment->flags & FLAG_FIN) + !!(segment->flags & FLAG_SYN);
}

/* tcp_sequence. */
static inline int kernel_in_window(const struct kernel *kernel, const struct segment *segment) {
    return seq_diff(kernel_end(segment), kernel->rcv_nxt) >= 0 &&
           seq_diff(segment->seq, kernel->rcv_nxt + KERNEL_WINDOW) <= 0;
}

static inline void kernel_read(struct kernel *kernel, const uint8_t *bytes, uint32_t length) {
    while (length--) {
        if (kernel->state == KERNEL_ESTABLISHED)
            application_read(&kernel->application, *bytes);
        bytes++;
        kernel->rcv_nxt++;
    }
}

/* tcp_data_queue. */
static inline void kernel_data(struct kernel *kernel, const struct segment *segment) {
    int32_t old = seq_diff(kernel->rcv_nxt, segment->seq);
    uint32_t end = segment->seq + segment->length;
    if (old < 0) {
        if (!kernel->early_length && segment->length && segment->length <= KERNEL_EARLY) {
            kernel->early_seq = segment->seq;
            kernel->early_length = segment->length;
            memcpy(kernel->early, segment->payload, segment->length);
        }
        return;
    }
    if (segment->length > old)
        kernel_read(kernel, segment->payload + old, segment->length - (uint32_t)old);
    if (kernel->early_length && seq_diff(kernel->early_seq, kernel->rcv_nxt) <= 0) {
        old = seq_diff(kernel->rcv_nxt, kernel->early_seq);
        if (kernel->early_length > old)
            kernel_read(kernel, kernel->early + old, kernel->early_length - (uint32_t)old);
        kernel->early_length = 0;
    }
    if (segment->flags & FLAG_FIN && end == kernel->rcv_nxt) {
        kernel->rcv_nxt++;
        if (kernel->state == KERNEL_ESTABLISHED) {
            kernel->state = KERNEL_CLOSE_WAIT;
            kernel->application.closes = 1;
        } else if (kernel->state == KERNEL_FIN_WAIT1) {
            kernel->state = KERNEL_CLOSING;
        }
    }
}

/* tcp_timewait_state_process. */
static inline void kernel_waits(struct kernel *kernel, const struct segment *segment) {
    int old = kernel_old(kernel, segment), in = kernel_in_window(kernel, segment);
    uint8_t flags = segment->flags;
    uint32_t end = kernel_end(segment);
    if (kernel->state == KERNEL_FIN_WAIT2) {
        if (old || !in) {
            if (!(flags & FLAG_RST))
                kernel_acknowledge(kernel);
        } else if (flags & FLAG_RST) {
            kernel_forget(kernel);
        } else if (flags & FLAG_SYN && seq_diff(segment->seq, kernel->rcv_nxt) >= 0) {
            kernel_forget(kernel);
            kernel_refuse(kernel, segment);
        } else if (!(flags & FLAG_ACK) || seq_diff(end, kernel->rcv_nxt) <= 0 || end == segment->seq) {
            /* nothing new */
        } else if (!(flags & FLAG_FIN) || end != kernel->rcv_nxt + 1) {
            kernel_forget(kernel);
            kernel_refuse(kernel, segment);
        } else {
            kernel->rcv_nxt = end;
            kernel->state = KERNEL_TIME_WAIT;
            kernel->since = kernel->now;
            kernel_acknowledge(kernel);
        }
        return;
    }
    if (!old && segment->seq == kernel->rcv_nxt && (segment->seq == end || flags & FLAG_RST)) {
        if (flags & FLAG_RST)      /* tcp_rfc1337 = 0 */
            kernel_forget(kernel);
        else
            kernel->since = kernel->now;
        return;
    }
    if (flags & FLAG_SYN && !(flags & (FLAG_RST | FLAG_ACK)) && !old &&
        (seq_diff(segment->seq, kernel->rcv_nxt) > 0 ||
         (kernel->timestamps && segment->timestamps && seq_diff(segment->tsval, kernel->ts_recent) > 0))) {
        uint32_t isn = kernel->snd_nxt + 65535 + 2;
        kernel_forget(kernel);
        if (segment->option == OPTION_NONE)        /* the listener looks at it now */
            kernel_syn(kernel, segment, isn ? isn : 1);
        return;
    }
    if (!(flags & FLAG_RST))
        kernel_acknowledge(kernel);
}

static inline void kernel_listens(struct kernel *kernel, const struct segment *segment) {
    uint8_t flags = segment->flags;
    if (flags & FLAG_RST)
        return;
    if (flags & FLAG_ACK) {
        /* cookie_v4_check: an ACK is enough, whatever went before. */
        if (!(flags & FLAG_SYN) && kernel_makes_cookies(kernel) &&
            kernel_cookie_valid(kernel, segment->seq - 1, segment->ack - 1)) {
            kernel->irs = segment->seq - 1;
            kernel->rcv_nxt = segment->seq;
            kernel->iss = segment->ack - 1;
            kernel->timestamps = segment->timestamps;
            kernel->ts_recent = segment->tsval;
            kernel_establish(kernel, segment);
            kernel_data(kernel, segment);
        } else {
            kernel_refuse(kernel, segment);
        }
    } else if (flags & FLAG_SYN && !(flags & FLAG_FIN)) {
        kernel_syn(kernel, segment, 0);
    }
}

/* tcp_check_req. */
static inline void kernel_requested(struct kernel *kernel, const struct segment *segment) {
    uint8_t flags = segment->flags;
    if (flags & FLAG_SYN && !(flags & (FLAG_ACK | FLAG_RST)) && segment->seq == kernel->irs) {
        if (!kernel_old(kernel, segment))
            kernel_send(kernel, kernel->iss, kernel->rcv_nxt, FLAG_SYN | FLAG_ACK, NULL, 0);
        return;
    }
    if (flags & FLAG_ACK && !(flags & FLAG_RST) && segment->ack != kernel->iss + 1) {
        kernel_refuse(kernel, segment);            /* the request stays */
        return;
    }
    if (kernel_old(kernel, segment) || !kernel_in_window(kernel, segment)) {
        if (!(flags & FLAG_RST))
            kernel_send(kernel, kernel->iss + 1, kernel->rcv_nxt, FLAG_ACK, NULL, 0);
        return;
    }
    if (flags & (FLAG_RST | FLAG_SYN)) {
        kernel_refuse(kernel, segment);
        kernel->state = KERNEL_LISTEN;
        return;
    }
    if (!(flags & FLAG_ACK))
        return;
    kernel_establish(kernel, segment);
    kernel_data(kernel, segment);
}

/* tcp_validate_incoming, then tcp_ack and tcp_data_queue; whether the application may have to say something. */
static inline void kernel_connected(struct kernel *kernel, const struct segment *segment) {
    uint8_t flags = segment->flags;
    uint32_t before = kernel->rcv_nxt, last = segment->seq + segment->length;
    int closed = kernel->state == KERNEL_FIN_WAIT1 || kernel->state == KERNEL_LAST_ACK || kernel->state == KERNEL_CLOSING;
    int behind_fin = kernel->state == KERNEL_LAST_ACK || kernel->state == KERNEL_CLOSING;
    if (kernel_old(kernel, segment) && !(flags & FLAG_RST)) {
        kernel_acknowledge(kernel);
        return;
    }
    /* RFC 7323 3.2 has it dropped; Linux takes it. */
    if (kernel->strict && kernel->timestamps && !segment->timestamps && !(flags & FLAG_RST))
        return;
    if (flags & FLAG_RST) {
        if (segment->seq == kernel->rcv_nxt || (behind_fin && segment->seq == kernel->rcv_nxt - 1) ||
            (kernel->early_length && segment->seq == kernel->early_seq + kernel->early_length))
            kernel_forget(kernel);
        else if (kernel_in_window(kernel, segment))
            kernel_acknowledge(kernel);
        return;
    }
    if (!kernel_in_window(kernel, segment) || flags & FLAG_SYN) {
        kernel_acknowledge(kernel);                /* RFC 5961 4: a challenge */
        return;
    }
    if (!(flags & FLAG_ACK) || seq_diff(segment->ack, kernel->snd_nxt) > 0 ||
        seq_diff(kernel->snd_una, segment->ack) > KERNEL_WINDOW)
        return;
    if (seq_diff(segment->ack, kernel->snd_una) >= 0) {
        if (segment->ack != kernel->snd_una)
            kernel->since = kernel->now;
        kernel->snd_una = segment->ack;
        kernel->snd_wnd = segment->window;
    }
    if (kernel->fin_sent && kernel->snd_una == kernel->snd_nxt) {
        if (kernel->state == KERNEL_LAST_ACK) {
            kernel_forget(kernel);
            return;
        }
        if (kernel->state == KERNEL_FIN_WAIT1 || kernel->state == KERNEL_CLOSING) {
            kernel->state = kernel->state == KERNEL_CLOSING ? KERNEL_TIME_WAIT : KERNEL_FIN_WAIT2;
            kernel->since = kernel->now;
        }
    }
    if (closed && segment->length && seq_diff(last, kernel->rcv_nxt) > 0) {
        kernel_forget(kernel);                     /* tcp_rcv_state_process: nobody reads any more */
        kernel_refuse(kernel, segment);
        return;
    }
    if (kernel->state == KERNEL_FIN_WAIT2) {
        kernel_waits(kernel, segment);
        return;
    }
    kernel_data(kernel, segment);
    if (kernel->rcv_nxt != before)
        kernel_acknowledge(kernel);
    else if (segment->length || flags & FLAG_FIN)
        kernel_acknowledge(kernel);
}

/* A segment has arrived. */
static inline void kernel_receive(struct kernel *kernel, const struct segment *segment) {
    int idle = kernel->state >= KERNEL_ESTABLISHED && !kernel_outstanding(kernel);
    if (kernel->state == KERNEL_FIN_WAIT2 || kernel->state == KERNEL_TIME_WAIT) {
        kernel_waits(kernel, segment);             /* before any key is looked for */
        return;
    }
    if (segment->option != OPTION_NONE)            /* tcp_inbound_hash: nobody agreed on a key */
        return;
    if (kernel->state == KERNEL_LISTEN)
        kernel_listens(kernel, segment);
    else if (kernel->state == KERNEL_SYN_RECV)
        kernel_requested(kernel, segment);
    else
        kernel_connected(kernel, segment);
    if (kernel->state >= KERNEL_ESTABLISHED && kernel->state < KERNEL_FIN_WAIT2) {
        if (kernel->application.closes && (kernel->state == KERNEL_ESTABLISHED || kernel->state == KERNEL_CLOSE_WAIT))
            kernel_close(kernel);
        if (idle && kernel_outstanding(kernel))
            kernel->since = kernel->now;           /* the timer begins */
        kernel_push(kernel);
    }
}

static inline void kernel_hang_up(struct kernel *kernel) {
    if (kernel->state != KERNEL_ESTABLISHED)
        return;
    application_hang_up(&kernel->application);
    kernel_close(kernel);
    kernel_push(kernel);
}

/* tcp_send_active_reset: closed with bytes nobody read. tcp_acceptable_seq: not behind a window that was drawn in. */
static inline void kernel_abort(struct kernel *kernel) {
    uint32_t edge = kernel->snd_una + kernel->snd_wnd;
    if (kernel->state != KERNEL_ESTABLISHED)
        return;
    kernel_send(kernel, seq_diff(edge, kernel->snd_nxt) < 0 ? edge : kernel->snd_nxt, kernel->rcv_nxt,
                FLAG_RST | FLAG_ACK, NULL, 0);
    kernel_forget(kernel);
}

/* A timer: what has not been acknowledged is said again. */
static inline void kernel_repeat(struct kernel *kernel) {
    uint32_t place, left;
    if (kernel->state == KERNEL_SYN_RECV) {
        kernel_send(kernel, kernel->iss, kernel->rcv_nxt, FLAG_SYN | FLAG_ACK, NULL, 0);
        return;
    }
    if (kernel->state < KERNEL_ESTABLISHED || kernel->state == KERNEL_FIN_WAIT2 || kernel->state == KERNEL_TIME_WAIT)
        return;
    place = kernel->snd_una - kernel->iss - 1;
    if (kernel->snd_una != kernel->snd_nxt) {
        left = kernel->snd_nxt - kernel->snd_una - kernel->fin_sent;
        kernel_send(kernel, kernel->snd_una, kernel->rcv_nxt,
                    (uint8_t)(FLAG_ACK | FLAG_PSH | (kernel->fin_sent ? FLAG_FIN : 0)),
                    kernel->application.out + place, left);
    } else if (kernel_outstanding(kernel)) {
        kernel_send(kernel, kernel->snd_una - 1, kernel->rcv_nxt, FLAG_ACK, NULL, 0);      /* a window probe */
    }
}

/* Time has gone by: what Linux forgets, and in silence. */
static inline void kernel_wait(struct kernel *kernel, uint64_t nanoseconds) {
    uint64_t waited;
    kernel->now += nanoseconds;
    if (kernel->model == ISN_CLOCK && nanoseconds > 200 * SECONDS)
        kernel->connections = 0;   /* who waits for the numbers to come back waits to the moment */
    waited = kernel->now - kernel->since;
    switch (kernel->state) {
    case KERNEL_SYN_RECV:          /* tcp_synack_retries = 5 */
        if (waited >= 63 * SECONDS)
            kernel->state = KERNEL_LISTEN;
        break;
    case KERNEL_FIN_WAIT2:         /* tcp_fin_timeout */
    case KERNEL_TIME_WAIT:
        if (waited >= 60 * SECONDS)
            kernel_forget(kernel);
        break;
    case KERNEL_ESTABLISHED:       /* tcp_retries2 = 15 */
    case KERNEL_CLOSE_WAIT:
        if (kernel_outstanding(kernel) && waited >= 924 * SECONDS)
            kernel_forget(kernel);
        break;
    case KERNEL_FIN_WAIT1:         /* tcp_orphan_retries: 8, from 200 ms on, doubled */
    case KERNEL_LAST_ACK:
    case KERNEL_CLOSING:
        if (waited >= 102 * SECONDS)
            kernel_forget(kernel);
        break;
    default:
        break;
    }
    kernel_repeat(kernel);
}

#endif
