# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Target ``packets``: octets as IP packets, under any setting.

The first octet chooses the setting. Each packet is: an octet of options, the octets their
options ask for, two octets of length, the packet. Most packets get right IP lengths and
checksums, for without them nothing deep is reached; the options leave them as they came.
Asserts what ``gate`` asserts.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from tests.fuzz.harness.gate cimport SECOND, Sent, gate_close, gate_expire, gate_open, gate_send, gate_wait
from nfmailguard.cext.wire.packet cimport PACKET_CHECKSUM_PARTIAL, PACKET_GSO

cdef extern from "wire.h" nogil:
    void wire_complete(uint8_t *packet, uint32_t size) noexcept
    void wire_put(uint8_t *p, uint32_t value, int data) noexcept
    uint32_t wire_tcp(const uint8_t *packet, uint32_t size) noexcept

cdef enum Option:
    OPTION_PARTIAL = 1         # the kernel has left the checksum to the network card
    OPTION_GSO = 2
    OPTION_CUT = 4             # with an octet: that many octets at the end are not captured
    OPTION_AS_IT_CAME = 8      # no right lengths and checksums
    OPTION_INTERFACE = 16      # with an octet: the interfaces it comes in on and leaves by
    OPTION_TIME = 32           # with an octet: 50 ms each go by before it
    OPTION_EXPIRE = 64         # and then, time to the core's next deadline
    OPTION_PADDED = 128        # two octets behind the IP packet

cdef enum:
    MOST_PACKET = 2048

cdef uint8_t packet[MOST_PACKET + 2]


cdef void nobody(uint32_t tag, bint to_server, const uint8_t *data, uint32_t length) noexcept nogil:
    pass


cdef void make_right(uint32_t size) noexcept nogil:
    """IP length, TCP data offset and checksums, as far as the octets are an IP packet's."""
    cdef uint32_t at
    if size >= 20 and packet[0] >> 4 == 4:
        wire_put(packet + 2, size, 2)
    elif size >= 40 and packet[0] >> 4 == 6:
        wire_put(packet + 4, size - 40, 2)
    at = wire_tcp(packet, size)
    if at and ((packet[at + 12] >> 4) < 5 or at + (packet[at + 12] >> 4) * 4 > size):
        packet[at + 12] = 5 << 4
    wire_complete(packet, size)


cdef int run(const uint8_t *data, size_t size) noexcept nogil:
    cdef size_t at = 1
    cdef uint8_t options
    cdef uint32_t length, cut
    cdef Sent sent
    if size < 4:
        return 0
    gate_open(data[0], nobody)
    while at + 6 <= size:                          # all that the options can ask for
        memset(&sent, 0, sizeof(sent))
        options = data[at]
        at += 1
        cut = 0
        if options & OPTION_CUT:
            cut = data[at]
            at += 1
        if options & OPTION_INTERFACE:
            sent.in_interface = data[at] & 3
            sent.out_interface = data[at] >> 2 & 3
            at += 1
        if options & OPTION_TIME:
            gate_wait(<uint32_t> data[at] * (SECOND // 20))
            at += 1
        if options & OPTION_EXPIRE:
            gate_expire()
        length = data[at] | <uint32_t> data[at + 1] << 8
        at += 2
        if length > size - at:
            length = <uint32_t> (size - at)
        if length > MOST_PACKET:
            length = MOST_PACKET
        memcpy(packet, data + at, length)
        at += length
        if not options & OPTION_AS_IT_CAME:
            make_right(length)
        if options & OPTION_PADDED:
            packet[length] = packet[length + 1] = 0
            length += 2
        if options & OPTION_PARTIAL:
            sent.flags |= PACKET_CHECKSUM_PARTIAL
        if options & OPTION_GSO:
            sent.flags |= PACKET_GSO
        sent.data = packet
        sent.length = length
        sent.captured = length - cut if cut < length else 0
        if gate_send(&sent) < 0:
            break
    gate_close()
    return 0


TARGET = <size_t> &run
