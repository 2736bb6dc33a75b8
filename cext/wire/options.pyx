# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TCP options: which of a segment's options its receiver gets to see.

Promises: one pass over at most 40 bytes, every option read within its checked length. A receiver that knows an option
which the handshake did not agree on may drop the segment unread (MD5, RFC 2385; AO, RFC 5925), so such options do not
pass. Nor do timestamps: one that is old, or missing, makes some receivers drop a segment (RFC 7323 3.2, 5), and mail
needs none. Does not know flows.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from nfmailguard.cext.wire.packet cimport nm_get16, nm_put16, packet_note_change

cdef enum OptionKind:              # TCP option numbers (IANA, TCP Option Kind Numbers)
    KIND_END = 0
    KIND_NOP = 1
    KIND_SEGMENT_SIZE = 2
    KIND_SCALE = 3
    KIND_SACK_PERMITTED = 4
    KIND_SACK = 5
    KIND_MD5 = 19
    KIND_AO = 29
    KIND_MULTIPATH = 30

cdef enum:
    MOST_SEGMENT = 65300           # bytes: a larger MSS is lowered, as no queue hands over packets above 65,531 bytes


cdef inline uint8_t bit_of(const uint8_t *option) noexcept nogil:
    """The OptionBit of an option; 0 if it is of another kind, or its length is wrong for its kind."""
    if option[0] == KIND_SACK and option[1] >= 10 and (option[1] - 2) % 8 == 0:
        return OPTION_SACK
    if option[0] == KIND_SEGMENT_SIZE and option[1] == 4:
        return OPTION_SEGMENT_SIZE
    if option[0] == KIND_SCALE and option[1] == 3:
        return OPTION_SCALE
    if option[0] == KIND_SACK_PERMITTED and option[1] == 2:
        return OPTION_SACK_PERMITTED
    return 0


cdef void blank(Packet *packet, uint8_t *at, uint32_t length, bint write) noexcept nogil:
    if write:
        memset(at, KIND_NOP, length)
        packet_note_change(packet)


cdef void read_each(Packet *packet, uint8_t allowed, bint write) noexcept nogil:
    cdef uint8_t *at = packet.tcp + 20
    cdef uint32_t left, length
    cdef uint8_t bit
    while at < packet.payload and at[0] != KIND_END:
        if at[0] == KIND_NOP:
            at += 1
            continue
        left = <uint32_t> (packet.payload - at)
        if left < 2 or at[1] < 2 or at[1] > left:
            # An option of impossible length: some receivers stop here, others read on at some later byte.
            blank(packet, at, left, write)
            return
        length = at[1]
        packet.options.refused |= at[0] == KIND_MD5 or at[0] == KIND_AO
        packet.options.multipath |= at[0] == KIND_MULTIPATH
        bit = bit_of(at)
        if not bit & allowed or bit & packet.options.present:
            blank(packet, at, length, write)
        else:
            packet.options.present |= bit
            if bit == OPTION_SEGMENT_SIZE and write and nm_get16(at + 2) > MOST_SEGMENT:
                nm_put16(at + 2, MOST_SEGMENT)
                packet_note_change(packet)
            if bit == OPTION_SCALE:
                packet.options.scale = at[2] if at[2] < MOST_SCALE else MOST_SCALE
        at += length


cdef void options_read(Packet *packet, uint8_t allowed, bint write) noexcept nogil:
    memset(&packet.options, 0, sizeof(packet.options))
    if packet.payload == packet.tcp + 20:
        return
    read_each(packet, allowed, write)
