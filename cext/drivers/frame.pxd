# Frames: where the IP packet of a captured frame begins, and the link header of a new one.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef extern from "checksum.h" nogil:
    uint16_t nm_get16(const uint8_t *p)
    void nm_put16(uint8_t *p, uint16_t v)
    uint16_t nm_fold(uint64_t sum)
    uint64_t nm_pseudo_sum(const uint8_t *source, const uint8_t *destination, size_t size, uint8_t protocol,
                           uint32_t length)
    uint32_t nm_tcp_offset(const uint8_t *packet, uint32_t size)

cdef enum:  # LinkType, as libpcap numbers them
    LINK_NULL = 0              # four octets of address family, in the capturing machine's order
    LINK_ETHERNET = 1
    LINK_RAW_12 = 12           # RAW: the frame is the IP packet; its number differs by system
    LINK_RAW_14 = 14
    LINK_RAW = 101
    LINK_LOOP = 108            # as NULL, in network order
    LINK_SLL = 113             # Linux "any" device, version 1
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_SLL2 = 276

cdef enum:
    MOST_LINK_HEADER = 32      # octets of a link header that is understood

# A frame of the capture, and what is known of it.
cdef struct Frame:
    const uint8_t *data
    uint32_t captured          # octets at `data`
    uint32_t length            # octets of the frame on the wire, >= captured
    uint32_t at                # where its IP packet begins
    uint32_t ip_length         # octets of the IP packet as its header has it, at most captured - at; 0: not parsed

# Sets `at` and `ip_length`; False: no IP packet, or a link type that is not understood.
cdef bint frame_parse(Frame *frame, int link) noexcept nogil
# Whether the IP packet's TCP checksum is one that Linux left to the network card.
cdef bint frame_checksum_partial(const Frame *frame) noexcept nogil
# Writes the link header of a new packet at `out`; returns its octets. `frame` lends the addresses
# where it belongs to the packet's connection (either direction), else they are zero.
cdef uint32_t frame_header(uint8_t *out, int link, const Frame *frame, const uint8_t *ip) noexcept nogil
