/* Two receivers on one stream: TCPs that keep the first, or the last, of two copies of an octet.
 *
 * What both have put together in order must be the same octets, or one of them was told
 * something that was not decided (invariant 2). Knows sequence numbers; nothing is allocated. */
#ifndef FUZZ_RECEIVER_H
#define FUZZ_RECEIVER_H

#include <stdint.h>
#include <string.h>

enum { RECEIVER_WINDOW = 8192 };

struct receiver {
    uint32_t base;                 /* sequence number of octet 0 */
    uint32_t assembled;            /* octets in order; read from `first` */
    uint32_t top;                  /* no octet has come from here on */
    uint8_t have[RECEIVER_WINDOW];
    uint8_t first[RECEIVER_WINDOW];
    uint8_t last[RECEIVER_WINDOW];
};

static inline void receiver_open(struct receiver *receiver, uint32_t isn) {
    memset(receiver->have, 0, receiver->top);
    receiver->base = isn + 1;
    receiver->assembled = receiver->top = 0;
}

static inline uint32_t receiver_expects(const struct receiver *receiver) {
    return receiver->base + receiver->assembled;
}

/* A segment has arrived. The place of the first octet both have in order but not alike, or -1. */
static inline int32_t receiver_take(struct receiver *receiver, uint32_t seq, const uint8_t *payload, uint32_t length) {
    int64_t place = (int32_t)(seq - receiver->base);
    uint32_t i;
    for (i = 0; i < length; i++, place++) {
        if (place < (int64_t)receiver->assembled || place >= RECEIVER_WINDOW)
            continue;              /* read already, or beyond the window */
        if (!receiver->have[place]) {
            receiver->have[place] = 1;
            receiver->first[place] = payload[i];
        }
        receiver->last[place] = payload[i];
        if (place >= receiver->top)
            receiver->top = (uint32_t)place + 1;
    }
    while (receiver->assembled < receiver->top && receiver->have[receiver->assembled]) {
        if (receiver->first[receiver->assembled] != receiver->last[receiver->assembled])
            return (int32_t)receiver->assembled;
        receiver->assembled++;
    }
    return -1;
}

#endif
