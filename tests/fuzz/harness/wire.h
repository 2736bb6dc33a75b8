/* The harness's own opinion of the wire: TCP over IPv4 and IPv6, built, completed and checked.
 *
 * It shares no line with the core, so that a wrong sum there is not taken for right here. It
 * does not know connections. Octets in, octets out; nothing is allocated. */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WIRE_ASIDE = 96 };          /* bytes that an ACK's numbers may lie nearer to each other: MOST_LESS of cext/cookie.pyx */
enum { WIRE_SMTP = 25 };           /* the port that is inspected under every setting */
enum { WIRE_FIN = 1, WIRE_SYN = 2, WIRE_RST = 4, WIRE_PSH = 8, WIRE_ACK = 16, WIRE_URG = 32 };

/* One connection as it stands in headers: [0] the client, [1] the server. */
struct wire_ends {
    uint8_t family;
    uint8_t address[2][16];
    uint16_t port[2];
};

static inline uint32_t wire_get(const uint8_t *p, int octets) {
    uint32_t value = 0;
    while (octets--)
        value = value << 8 | *p++;
    return value;
}

static inline void wire_put(uint8_t *p, uint32_t value, int octets) {
    while (octets--) {
        p[octets] = (uint8_t)value;
        value >>= 8;
    }
}

/* RFC 1071, folded; 0xffff over octets that hold their own right checksum. */
static inline uint32_t wire_sum(const uint8_t *p, uint32_t size, uint32_t sum) {
    uint32_t i;
    for (i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    if (size & 1)
        sum += (uint32_t)p[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Octets of the IP packet by its own header, or 0. */
static inline uint32_t wire_length(const uint8_t *packet, uint32_t size) {
    if (size >= 20 && packet[0] >> 4 == 4)
        return wire_get(packet + 2, 2);
    if (size >= 40 && packet[0] >> 4 == 6)
        return 40 + wire_get(packet + 4, 2);
    return 0;
}

/* Where the TCP header begins; 0: not whole, not TCP, or a fragment. */
static inline uint32_t wire_tcp(const uint8_t *packet, uint32_t size) {
    uint32_t at = 0;
    uint8_t next = 0;
    if (size >= 20 && packet[0] >> 4 == 4) {
        at = (packet[0] & 15) * 4u;
        next = at < 20 || wire_get(packet + 6, 2) & 0x3fff ? 0 : packet[9];
    } else if (size >= 40 && packet[0] >> 4 == 6) {
        at = 40;
        next = packet[6];
        while ((next == 0 || next == 43 || next == 51 || next == 60) && at + 8 <= size) {
            uint32_t units = packet[at + 1];
            uint8_t kind = next;
            next = packet[at];
            at += kind == 51 ? (units + 2) * 4 : (units + 1) * 8;
        }
    }
    return next == 6 && at + 20 <= size ? at : 0;
}

static inline uint32_t wire_tcp_sum(const uint8_t *packet, uint32_t size, uint32_t at) {
    uint32_t addresses = packet[0] >> 4 == 4 ? 8 : 32;
    uint32_t sum = wire_sum(packet + (addresses == 8 ? 12 : 8), addresses, 6 + (size - at));
    return wire_sum(packet + at, size - at, sum);
}

/* Writes right checksums into a TCP packet of `size` octets; leaves anything else alone. */
static inline void wire_complete(uint8_t *packet, uint32_t size) {
    uint32_t at = wire_tcp(packet, size);
    if (packet[0] >> 4 == 4 && size >= 20 && (packet[0] & 15) >= 5 && (packet[0] & 15) * 4u <= size) {
        wire_put(packet + 10, 0, 2);
        wire_put(packet + 10, ~wire_sum(packet, (packet[0] & 15) * 4u, 0), 2);
    }
    if (at) {
        wire_put(packet + at + 16, 0, 2);
        wire_put(packet + at + 16, ~wire_tcp_sum(packet, size, at), 2);
    }
}

/* A whole packet at `out` (at least 60 octets and the payload); returns its octets. */
static inline uint32_t wire_build(uint8_t *out, const struct wire_ends *ends, int to_server, uint32_t seq, uint32_t ack,
                                  uint8_t flags, uint16_t window, uint16_t urgent, const uint8_t *payload,
                                  uint32_t length) {
    uint32_t size = ends->family == 4 ? 4 : 16, at = ends->family == 4 ? 20 : 40;
    memset(out, 0, at + 20);
    if (ends->family == 4) {
        out[0] = 0x45;
        wire_put(out + 2, 40 + length, 2);
        wire_put(out + 6, 0x4000, 2);
        out[8] = 64;
        out[9] = 6;
    } else {
        out[0] = 0x60;
        wire_put(out + 4, 20 + length, 2);
        out[6] = 6;
        out[7] = 64;
    }
    memcpy(out + at - 2 * size, ends->address[!to_server], size);
    memcpy(out + at - size, ends->address[!!to_server], size);
    wire_put(out + at, ends->port[!to_server], 2);
    wire_put(out + at + 2, ends->port[!!to_server], 2);
    wire_put(out + at + 4, seq, 4);
    wire_put(out + at + 8, ack, 4);
    out[at + 12] = 5 << 4;
    out[at + 13] = flags;
    wire_put(out + at + 14, window, 2);
    wire_put(out + at + 18, urgent, 2);
    if (length)
        memcpy(out + at + 20, payload, length);
    wire_complete(out, at + 20 + length);
    return at + 20 + length;
}

/* What is wrong with a packet that the core made or changed, or NULL (invariant 3). */
static inline const char *wire_fault(const uint8_t *packet, uint32_t size) {
    uint32_t at = wire_tcp(packet, size);
    if (!at)
        return "no whole TCP packet";
    if (wire_length(packet, size) != size)
        return "its IP length is not its length";
    if ((packet[at + 12] >> 4) < 5 || at + (packet[at + 12] >> 4) * 4u > size)
        return "its TCP header is not in it";
    if (packet[0] >> 4 == 4 && wire_sum(packet, (packet[0] & 15) * 4u, 0) != 0xffff)
        return "its IPv4 checksum is wrong";
    if (wire_tcp_sum(packet, size, at) != 0xffff)
        return "its TCP checksum is wrong";
    return NULL;
}

/* Whether `after` may stand for `before`: the same connection, no octet more, no header that moved, the same place and
 * acknowledgement, but for what hides a SYN cookie of the client's: an ACK with nothing else may lie a little ahead, any
 * acknowledge a little less, never both; a SYN may become a bare ACK (invariant 3). NULL, or what is wrong. */
static inline const char *wire_changed_more(const uint8_t *before, uint32_t size, const uint8_t *after, uint32_t left) {
    uint32_t at = wire_tcp(before, size);
    uint32_t addresses = before[0] >> 4 == 4 ? 8 : 32, from = addresses == 8 ? 12 : 8, ahead, less;
    if (!at || wire_tcp(after, left) != at)
        return "its TCP header moved";
    if (left > wire_length(before, size))
        return "it is longer than before";
    if (memcmp(before + from, after + from, addresses) || memcmp(before + at, after + at, 4))
        return "its addresses or ports differ";
    if (before[at + 12] != after[at + 12])
        return "its header length differs";
    if ((before[at + 13] & (WIRE_SYN | WIRE_ACK)) == WIRE_SYN && after[at + 13] == WIRE_ACK)
        return wire_get(before + at + 2, 2) == WIRE_SMTP && left == at + (after[at + 12] >> 4) * 4u
                   ? NULL : "a question to the server has bytes in it, or is one to the client";
    ahead = wire_get(after + at + 4, 4) - wire_get(before + at + 4, 4);
    less = wire_get(before + at + 8, 4) - wire_get(after + at + 8, 4);
    if (ahead && (ahead > WIRE_ASIDE || less || before[at + 13] & (WIRE_FIN | WIRE_SYN | WIRE_RST) ||
                  at + (before[at + 12] >> 4) * 4u != wire_length(before, size)))
        return "its sequence number differs";
    if ((ahead || less) && wire_get(before + at + 2, 2) != WIRE_SMTP)
        return "its numbers differ, and it is the server's";
    if (less && (less > WIRE_ASIDE || before[at + 13] & (WIRE_SYN | WIRE_RST)))
        return "its acknowledgement differs";
    return NULL;
}

/* A line about a packet, for who reads a replay. */
static inline void wire_show(const char *what, long number, const uint8_t *packet, uint32_t size) {
    static const char letters[] = "FSRPAU";
    uint32_t at = wire_tcp(packet, size), i;
    printf("%s %ld:", what, number);
    if (!at) {
        printf(" no whole TCP packet, %u octets\n", size);
        return;
    }
    printf(" port %u to %u, seq %u, ack %u, ", wire_get(packet + at, 2), wire_get(packet + at + 2, 2),
           wire_get(packet + at + 4, 4), wire_get(packet + at + 8, 4));
    for (i = 0; i < 6; i++)
        if (packet[at + 13] >> i & 1)
            putchar(letters[i]);
    printf(" \"");
    for (i = at + (packet[at + 12] >> 4) * 4u; i < size && i < at + 100; i++) {
        if (packet[i] >= ' ' && packet[i] < 127)
            putchar(packet[i]);
        else
            printf("\\x%02x", packet[i]);
    }
    printf(i < size ? "\"... (%u)\n" : "\" (%u)\n", size - at - (packet[at + 12] >> 4) * 4u);
}

#endif
