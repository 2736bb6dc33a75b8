/* Scans text and lines at memory speed: what is unusual about their bytes, where they end, how long they are. */
#ifndef NFMAILGUARD_SCAN_H
#define NFMAILGUARD_SCAN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The index of the first byte that is NUL, a LF not after a CR, or not a LF but after a CR; `length` when there is
 * none. `before` is the byte before the first one. The inner loop has no branch, so that compilers vectorise it. */
static inline size_t nm_odd_byte(const uint8_t *p, size_t length, uint8_t before) {
    size_t at = 0, i;
    while (at < length) {
        size_t block = length - at < 256 ? length - at : 256;
        uint8_t odd = p[at] == 0 || (p[at] == 10) != (before == 13);
        const uint8_t *q = p + at;
        for (i = 1; i < block; i++)
            odd |= (uint8_t)((q[i] == 0) | ((q[i] == 10) ^ (q[i - 1] == 13)));
        if (odd) {
            if (q[0] == 0 || (q[0] == 10) != (before == 13))
                return at;
            for (i = 1; i < block; i++)
                if (q[i] == 0 || (q[i] == 10) != (q[i - 1] == 13))
                    return at + i;
        }
        before = q[block - 1];
        at += block;
    }
    return length;
}

/* Whether the text is plain: no NUL, no bare LF, no bare CR (except at its very end), and no dot at the beginning of
 * a line. `before` is the byte before the first one. The loop has no branch, so that compilers vectorise it. */
static inline int nm_plain(const uint8_t *p, size_t length, uint8_t before) {
    size_t at, i;
    uint8_t odd;
    if (length == 0)
        return 1;
    if (p[0] == 0 || (p[0] == 10) != (before == 13) || (p[0] == 46 && (before == 10 || before == 13)))
        return 0;
    for (at = 1; at < length; at += 1024) {
        size_t stop = length - at < 1024 ? length : at + 1024;
        odd = 0;
        for (i = at; i < stop; i++)
            odd |= (uint8_t)((p[i] == 0) | ((p[i] == 10) ^ (p[i - 1] == 13)) | ((p[i] == 46) & (p[i - 1] == 10)));
        if (odd)
            return 0;
    }
    return 1;
}

/* Makes every NUL a space; returns how many there were. The inner loop has no branch, so that compilers vectorise
 * it. */
static inline size_t nm_blank_nuls(uint8_t *p, size_t length) {
    size_t at, count = 0;
    for (at = 0; at < length; at += 255) {
        size_t i, stop = length - at < 255 ? length : at + 255;
        uint8_t found = 0;
        for (i = at; i < stop; i++) {
            uint8_t nul = p[i] == 0;
            found = (uint8_t)(found + nul);
            p[i] = (uint8_t)(p[i] | nul << 5);
        }
        count += found;
    }
    return count;
}

#define NM_ONES 0x0101010101010101u

/* Sets bit 7 of each of the eight bytes that is zero. Exact for the lowest bit set only: in higher bytes, bit 7 may
 * also be set where the byte is not zero. */
static inline uint64_t nm_zeros(uint64_t word) { return (word - NM_ONES) & ~word & (NM_ONES << 7); }

static inline uint64_t nm_eight(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Searches look at 16 bytes at a time where the processor has SSE2 (every x86-64 has), else at 8. With NM_NO_VECTORS
 * defined they always look at 8, so that tests can cover both ways. */
#if defined(__SSE2__) && !defined(NM_NO_VECTORS)
#include <emmintrin.h>
#define NM_BLOCK 16
typedef __m128i nm_block;
static inline nm_block nm_load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
/* One bit for each of the 16 bytes: nm_equal sets it where the byte is `byte`, nm_at_most where it is at most
 * `byte`. */
static inline uint64_t nm_equal(nm_block block, uint8_t byte) {
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block, _mm_set1_epi8((char)byte)));
}
static inline uint64_t nm_at_most(nm_block block, uint8_t byte) {
    __m128i most = _mm_set1_epi8((char)byte);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(block, most), most));
}
static inline uint32_t nm_first(uint64_t found) { return (uint32_t)__builtin_ctzll(found); }
#else
#define NM_BLOCK 8
typedef uint64_t nm_block;
static inline nm_block nm_load(const uint8_t *p) { return nm_eight(p); }
/* Bit 7 of each byte that matches is set; after the first match it may be set for bytes that do not match, too. */
static inline uint64_t nm_equal(nm_block block, uint8_t byte) { return nm_zeros(block ^ byte * NM_ONES); }
static inline uint64_t nm_at_most(nm_block block, uint8_t byte) {
    return (block - (byte + 1u) * NM_ONES) & ~block & (NM_ONES << 7);
}
static inline uint32_t nm_first(uint64_t found) { return (uint32_t)__builtin_ctzll(found) / 8; }
#endif

/* The index of the first CR, LF or, where `nul` is set, NUL; `length` when there is none. */
static inline uint32_t nm_line_stop(const uint8_t *p, uint32_t length, int nul) {
    uint32_t at = 0;
    for (; length - at >= NM_BLOCK; at += NM_BLOCK) {
        nm_block block = nm_load(p + at);
        uint64_t found = nm_equal(block, 13) | nm_equal(block, 10) | (nul ? nm_equal(block, 0) : 0);
        if (found)
            return at + nm_first(found);
    }
    while (at < length && p[at] != 13 && p[at] != 10 && (p[at] || !nul))
        at++;
    return at;
}

/* The index of the first byte that is a space or a control byte (NUL included); `length` when there is none. */
static inline uint32_t nm_word_end(const uint8_t *p, uint32_t length) {
    uint32_t at = 0;
    for (; length - at >= NM_BLOCK; at += NM_BLOCK) {
        uint64_t found = nm_at_most(nm_load(p + at), 32);
        if (found)
            return at + nm_first(found);
    }
    while (at < length && p[at] > 32)
        at++;
    return at;
}

/* The index of the first LF, or `length`; a LF among the first bytes is found without a call of memchr. */
static inline uint32_t nm_next_lf(const uint8_t *p, uint32_t length) {
    uint32_t at = 0;
    const uint8_t *end;
    for (; length - at >= NM_BLOCK && at < 4 * NM_BLOCK; at += NM_BLOCK) {
        uint64_t found = nm_equal(nm_load(p + at), 10);
        if (found)
            return at + nm_first(found);
    }
    end = length > at ? (const uint8_t *)memchr(p + at, 10, length - at) : NULL;
    return end ? (uint32_t)(end - p) : length;
}

/* A reply's code as three ASCII digits; 0: no code, or 354, 334 or 421, which mean more than an answer. */
static inline uint32_t nm_code(const uint8_t *p) {
    uint32_t code = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    if (((code + 0x464646) | (code - 0x303030) | code) & 0x808080)
        return 0;
    return code == 0x333534 || code == 0x333334 || code == 0x343231 ? 0 : code;
}

/* Whether the byte `one` or the byte `other` is in the text. */
static inline int nm_holds(const uint8_t *p, uint32_t length, uint8_t one, uint8_t other) {
    uint32_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word = nm_eight(p + at);
        if (nm_zeros(word ^ one * NM_ONES) | nm_zeros(word ^ other * NM_ONES))
            return 1;
    }
    for (; at < length; at++)
        if (p[at] == one || p[at] == other)
            return 1;
    return 0;
}

/* Whether any byte of the text differs from `octet`. */
static inline int nm_differs(const uint8_t *p, uint32_t length, uint8_t octet) {
    uint32_t i;
    uint8_t differs = 0;
    for (i = 0; i < length; i++)
        differs |= (uint8_t)(p[i] ^ octet);
    return differs != 0;
}

/* Clears the eighth bit of every byte; returns whether any was set. The loop has no branch, so that compilers
 * vectorise it. */
static inline int nm_clear_eighth(uint8_t *p, size_t length) {
    size_t i;
    uint8_t found = 0;
    for (i = 0; i < length; i++) {
        found |= p[i];
        p[i] &= 127;
    }
    return found >> 7;
}

/* Whether any byte has its eighth bit set. The loop has no branch, so that compilers vectorise it. */
static inline int nm_eighth(const uint8_t *p, size_t length) {
    size_t i;
    uint8_t found = 0;
    for (i = 0; i < length; i++)
        found |= p[i];
    return found >> 7;
}

/* nm_base64: how many bytes at the beginning of the text belong to base64's alphabet; nm_no_base64: 1 for a byte
 * that does not. The inner loop has no branch, so that compilers vectorise it. */
static inline uint8_t nm_no_base64(uint8_t c) {
    uint8_t letter = (uint8_t)((c | 32) - 'a') < 26, digit = (uint8_t)(c - '/') < 11, sign = c == '+', pad = c == '=';
    return (uint8_t)((letter | digit | sign | pad) ^ 1);
}

static inline uint32_t nm_base64(const uint8_t *p, uint32_t length) {
    uint32_t at = 0, i;
    for (; length - at >= 32; at += 32) {
        uint8_t odd = 0;
        for (i = 0; i < 32; i++)
            odd = (uint8_t)(odd | nm_no_base64(p[at + i]));
        if (odd)
            break;
    }
    while (at < length && !nm_no_base64(p[at]))
        at++;
    return at;
}

/* The index of the first set bit from bit `begin` on; `end` when none is set before it. */
static inline uint32_t nm_next_bit(const uint8_t *bits, uint32_t begin, uint32_t end) {
    while (begin < end) {
        uint32_t rest = (uint32_t)bits[begin >> 3] >> (begin & 7);
        if (rest) {
            begin += (uint32_t)__builtin_ctz(rest);
            return begin < end ? begin : end;
        }
        begin = (begin | 7) + 1;
    }
    return end;
}

/* The last LF among `length` bytes, or NULL. */
static inline const uint8_t *nm_last_lf(const uint8_t *p, size_t length) {
    return (const uint8_t *)memrchr(p, 10, length);
}

#endif
