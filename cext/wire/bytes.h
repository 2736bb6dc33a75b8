/* Byte order, sequence numbers, the Internet checksum and a keyed hash: inline functions that Cython cannot express. */
#ifndef NFMAILGUARD_BYTES_H
#define NFMAILGUARD_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define nm_prefetch(p) __builtin_prefetch(p)

static inline uint16_t nm_get16(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }

static inline uint32_t nm_get32(const uint8_t *p) {
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static inline void nm_put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }

static inline void nm_put32(uint8_t *p, uint32_t v) {
    nm_put16(p, (uint16_t)(v >> 16));
    nm_put16(p + 2, (uint16_t)v);
}

/* Difference of two sequence numbers, modulo 2^32 (RFC 9293 3.4); negative when a is before b. */
static inline int32_t nm_seq_diff(uint32_t a, uint32_t b) { return (int32_t)(a - b); }

/* One's complement sum (RFC 1071) of `length` bytes in native byte order, added to `sum`. */
static inline uint64_t nm_sum(const uint8_t *p, size_t length, uint64_t sum) {
    while (length >= 32) {
        uint32_t w[8];
        memcpy(w, p, 32);
        sum += (uint64_t)w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7];
        p += 32;
        length -= 32;
    }
    while (length >= 2) {
        uint16_t w;
        memcpy(&w, p, 2);
        sum += w;
        p += 2;
        length -= 2;
    }
    if (length) {
        uint16_t w = 0;
        memcpy(&w, p, 1);
        sum += w;
    }
    return sum;
}

/* A checksum folded to 16 bits, still in native byte order: to be stored with memcpy. */
static inline uint16_t nm_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

/* Checksum of TCP's pseudo-header (RFC 9293 3.1, RFC 8200 8.1); `size`: bytes of an address, 4 or 16. */
static inline uint64_t nm_pseudo_sum(const uint8_t *source, const uint8_t *destination, size_t size,
                                     uint8_t protocol, uint32_t length) {
    uint8_t tail[8] = {0};
    uint64_t sum = nm_sum(source, size, 0);
    sum = nm_sum(destination, size, sum);
    nm_put32(tail, length);
    tail[7] = protocol;
    return nm_sum(tail, 8, sum);
}

/* SipHash-2-4 (Aumasson and Bernstein 2012), a keyed hash: peers cannot choose flows that share a hash bucket. */
static inline uint64_t nm_rotate(uint64_t v, int bits) { return (v << bits) | (v >> (64 - bits)); }

static inline void nm_sip_round(uint64_t v[4]) {
    v[0] += v[1]; v[1] = nm_rotate(v[1], 13); v[1] ^= v[0]; v[0] = nm_rotate(v[0], 32);
    v[2] += v[3]; v[3] = nm_rotate(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = nm_rotate(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = nm_rotate(v[1], 17); v[1] ^= v[2]; v[2] = nm_rotate(v[2], 32);
}

/* The SipHash of `length` bytes, a multiple of 8. */
static inline uint64_t nm_siphash(const uint64_t key[2], const uint8_t *p, size_t length) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    uint64_t word = 0, last = (uint64_t)length << 56;
    size_t i;
    for (i = 0; i < length; i += 8) {
        memcpy(&word, p + i, 8);
        v[3] ^= word; nm_sip_round(v); nm_sip_round(v); v[0] ^= word;
    }
    v[3] ^= last; nm_sip_round(v); nm_sip_round(v); v[0] ^= last;
    v[2] ^= 0xff;
    for (i = 0; i < 4; i++) nm_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
