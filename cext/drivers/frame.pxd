# Captured frames: where a frame's IP packet begins, and link headers for new packets.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef extern from "checksum.h" nogil:
    uint16_t nm_get16(const uint8_t *p)
    void nm_put16(uint8_t *p, uint16_t v)
    uint16_t nm_fold(uint64_t sum)
    uint64_t nm_pseudo_sum(const uint8_t *source, const uint8_t *destination, size_t size, uint8_t protocol,
                           uint32_t length)
    uint32_t nm_tcp_offset(const uint8_t *packet, uint32_t size)

# Link types, as libpcap numbers them.
cdef enum:
    LINK_NULL = 0              # a four-byte address family, in the capturing machine's byte order
    LINK_ETHERNET = 1
    LINK_RAW_12 = 12           # RAW: the frame is the IP packet, no link header; RAW's number differs by system
    LINK_RAW_14 = 14
    LINK_RAW = 101
    LINK_LOOP = 108            # like NULL, but in network byte order
    LINK_SLL = 113             # the Linux "any" device, version 1
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_SLL2 = 276

cdef enum:
    MOST_LINK_HEADER = 32      # bytes of the longest link header that is understood

# A captured frame and its IP packet's place in it.
cdef struct Frame:
    const uint8_t *data
    uint32_t captured          # bytes at `data`
    uint32_t length            # bytes of the frame on the wire, >= captured
    uint32_t at                # offset in `data` at which the IP packet begins
    uint32_t ip_length         # bytes of the IP packet by its own header, at most captured - at; 0: not parsed

# Finds the frame's IP packet: sets `at` and `ip_length`. False: no IP packet, or a link type that is not understood.
cdef bint frame_parse(Frame *frame, int link) noexcept nogil
# Whether the TCP checksum is unfinished: Linux left it to the network card, and the frame was captured before that.
cdef bint frame_checksum_partial(const Frame *frame) noexcept nogil
# Writes the link header of a new packet `ip` to `out`; returns its length in bytes. Link addresses are taken from
# `frame` where that is of the packet's connection (in either direction), else they are zero.
cdef uint32_t frame_header(uint8_t *out, int link, const Frame *frame, const uint8_t *ip) noexcept nogil
