/* SHA-1 of one block (FIPS 180-4), for Community IDs: by the processor's SHA instructions where it has them (callers
 * check once), else in plain C, with the same result. Not to be used for secrets. */
#ifndef NM_SHA1_H
#define NM_SHA1_H

#include <stdint.h>
#include <string.h>

static inline uint32_t nm_sha1_rotate(uint32_t v, int bits) { return (v << bits) | (v >> (32 - bits)); }

static inline uint32_t nm_sha1_word(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void nm_sha1_plain(const uint8_t block[64], uint32_t state[5]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f, k, next;
    int i;
    for (i = 0; i < 16; i++) w[i] = nm_sha1_word(block + 4 * i);
    for (; i < 80; i++) w[i] = nm_sha1_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (i = 0; i < 80; i++) {
        if (i < 20) { f = d ^ (b & (c ^ d)); k = 0x5a827999; }
        else if (i < 40) { f = b ^ c ^ d; k = 0x6ed9eba1; }
        else if (i < 60) { f = (b & c) | (d & (b | c)); k = 0x8f1bbcdc; }
        else { f = b ^ c ^ d; k = 0xca62c1d6; }
        next = nm_sha1_rotate(a, 5) + f + e + k + w[i];
        e = d; d = c; c = nm_sha1_rotate(b, 30); b = a; a = next;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

/* Four rounds of SHA-1: `w` holds the message's words four by four, the first of the four in the highest lane. */
#define NM_SHA1_STEP(i, k)                                                                                             \
    do {                                                                                                               \
        if ((i) >= 4)                                                                                                  \
            w[(i) & 3] = _mm_sha1msg2_epu32(                                                                           \
                _mm_xor_si128(_mm_sha1msg1_epu32(w[(i) & 3], w[((i) + 1) & 3]), w[((i) + 2) & 3]), w[((i) + 3) & 3]);  \
        e = (i) ? _mm_sha1nexte_epu32(before, w[(i) & 3]) : _mm_add_epi32(e, w[0]);                                    \
        before = abcd;                                                                                                 \
        abcd = _mm_sha1rnds4_epu32(abcd, e, k);                                                                        \
    } while (0)

__attribute__((target("sha,ssse3,sse4.1"))) static void nm_sha1_native(const uint8_t block[64], uint32_t state[5]) {
    const __m128i turned = _mm_set_epi64x(0x0001020304050607LL, 0x08090a0b0c0d0e0fLL);
    __m128i w[4], abcd, e, before, abcd_at_first, e_at_first;
    int i;
    for (i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), turned);
    abcd_at_first = abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1b);
    e_at_first = e = _mm_set_epi32((int)state[4], 0, 0, 0);
    before = abcd;
    NM_SHA1_STEP(0, 0); NM_SHA1_STEP(1, 0); NM_SHA1_STEP(2, 0); NM_SHA1_STEP(3, 0); NM_SHA1_STEP(4, 0);
    NM_SHA1_STEP(5, 1); NM_SHA1_STEP(6, 1); NM_SHA1_STEP(7, 1); NM_SHA1_STEP(8, 1); NM_SHA1_STEP(9, 1);
    NM_SHA1_STEP(10, 2); NM_SHA1_STEP(11, 2); NM_SHA1_STEP(12, 2); NM_SHA1_STEP(13, 2); NM_SHA1_STEP(14, 2);
    NM_SHA1_STEP(15, 3); NM_SHA1_STEP(16, 3); NM_SHA1_STEP(17, 3); NM_SHA1_STEP(18, 3); NM_SHA1_STEP(19, 3);
    e = _mm_sha1nexte_epu32(before, e_at_first);
    abcd = _mm_add_epi32(abcd, abcd_at_first);
    _mm_storeu_si128((__m128i *)state, _mm_shuffle_epi32(abcd, 0x1b));
    state[4] = (uint32_t)_mm_extract_epi32(e, 3);
}

static inline int nm_sha1_has_native(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}
#else
static inline int nm_sha1_has_native(void) { return 0; }
static void nm_sha1_native(const uint8_t block[64], uint32_t state[5]) { nm_sha1_plain(block, state); }
#endif

/* The SHA-1 digest of at most 55 bytes of data; `native`: the result of nm_sha1_has_native. */
static inline void nm_sha1(const uint8_t *data, size_t length, uint8_t digest[20], int native) {
    uint8_t block[64] = {0};
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    int i;
    memcpy(block, data, length);
    block[length] = 0x80;
    block[62] = (uint8_t)(length >> 5);
    block[63] = (uint8_t)(length << 3);
    if (native) nm_sha1_native(block, state);
    else nm_sha1_plain(block, state);
    for (i = 0; i < 5; i++) {
        digest[4 * i] = (uint8_t)(state[i] >> 24);
        digest[4 * i + 1] = (uint8_t)(state[i] >> 16);
        digest[4 * i + 2] = (uint8_t)(state[i] >> 8);
        digest[4 * i + 3] = (uint8_t)state[i];
    }
}

#endif
