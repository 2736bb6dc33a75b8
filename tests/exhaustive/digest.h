/* A 128-bit digest of whatever is put into it, for telling states apart. Not for adversaries. */
#ifndef EXHAUSTIVE_DIGEST_H
#define EXHAUSTIVE_DIGEST_H

#include <stdint.h>
#include <string.h>

struct digest {
    uint64_t a, b;
};

static inline uint64_t digest_mix(uint64_t x, uint64_t y) {
    unsigned __int128 product = (unsigned __int128)x * y;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline void digest_open(struct digest *digest) {
    digest->a = 0x9e3779b97f4a7c15ull;
    digest->b = 0xc2b2ae3d27d4eb4full;
}

static inline void digest_number(struct digest *digest, uint64_t number) {
    digest->a = digest_mix(digest->a ^ number, 0xa0761d6478bd642full) + 0x8ebc6af09c88c6e3ull;
    digest->b = digest_mix(digest->b + number, 0xe7037ed1a0b428dbull) ^ (digest->b << 1);
}

static inline void digest_bytes(struct digest *digest, const void *bytes, uint64_t length) {
    const uint8_t *at = (const uint8_t *)bytes;
    uint64_t word;
    digest_number(digest, length);
    for (; length >= 8; length -= 8, at += 8) {
        memcpy(&word, at, 8);
        digest_number(digest, word);
    }
    if (length) {
        word = 0;
        memcpy(&word, at, length);
        digest_number(digest, word);
    }
}

/* A set of digests: open addressing, grown by who owns it. */
struct digest_set {
    struct digest *places;
    uint64_t capacity, count;      /* capacity: a power of two; a place of zeros is free */
};

/* Whether it is new there; it is afterwards in any case. */
static inline int digest_add(struct digest_set *set, struct digest digest) {
    uint64_t at = digest.a & (set->capacity - 1);
    while (set->places[at].a || set->places[at].b) {
        if (set->places[at].a == digest.a && set->places[at].b == digest.b)
            return 0;
        at = (at + 1) & (set->capacity - 1);
    }
    set->places[at] = digest;
    set->count++;
    return 1;
}

#endif
