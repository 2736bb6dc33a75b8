/* Completes a TCP checksum that the kernel left to the network card (CHECKSUM_PARTIAL). */
#ifndef NFMAILGUARD_CHECKSUM_H
#define NFMAILGUARD_CHECKSUM_H

#include "bytes.h"

/* The offset of the TCP header in a whole IP packet, or 0: the packet is not TCP, is cut short, or is a fragment. */
static inline uint32_t nm_tcp_offset(const uint8_t *packet, uint32_t size) {
    uint32_t at;
    uint8_t next;
    if (size >= 20 && packet[0] >> 4 == 4) {
        at = (uint32_t)(packet[0] & 15) * 4;
        if (at < 20 || (nm_get16(packet + 6) & 0x3fff))
            return 0;
        next = packet[9];
    } else if (size >= 40 && packet[0] >> 4 == 6) {
        at = 40;
        next = packet[6];
        /* Hop-by-hop, routing and destination options headers have the same layout (RFC 8200 4.1). */
        while ((next == 0 || next == 43 || next == 60) && size - at >= 8) {
            uint32_t length = ((uint32_t)packet[at + 1] + 1) * 8;
            if (length > size - at)
                return 0;
            next = packet[at];
            at += length;
        }
    } else {
        return 0;
    }
    return next == 6 && at <= size && size - at >= 20 ? at : 0;
}

/* Does what the kernel's skb_checksum_help() does: the checksum field already holds the sum of the pseudo-header,
 * and the segment's sum is added. Starting from the field, not from the addresses, stays right under a routing
 * header and for super-packets. Returns 0 if the packet is not a whole TCP packet. */
static inline int nm_complete_checksum(uint8_t *packet, uint32_t size) {
    uint32_t at = nm_tcp_offset(packet, size);
    uint16_t sum;
    if (!at)
        return 0;
    sum = (uint16_t)~nm_fold(nm_sum(packet + at, size - at, 0));
    memcpy(packet + at + 16, &sum, 2);
    return 1;
}

#endif
