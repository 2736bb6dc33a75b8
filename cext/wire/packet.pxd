# Packets: a checked view of one IPv4 or IPv6 packet that carries TCP.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t

cdef extern from "bytes.h" nogil:
    uint16_t nm_get16(const uint8_t *p) noexcept
    uint32_t nm_get32(const uint8_t *p) noexcept
    void nm_put16(uint8_t *p, uint16_t v) noexcept
    void nm_put32(uint8_t *p, uint32_t v) noexcept
    int32_t nm_seq_diff(uint32_t a, uint32_t b) noexcept
    uint64_t nm_sum(const uint8_t *p, size_t length, uint64_t sum) noexcept
    uint16_t nm_fold(uint64_t sum) noexcept
    uint64_t nm_pseudo_sum(const uint8_t *source, const uint8_t *destination, size_t size,
                           uint8_t protocol, uint32_t length) noexcept

cdef enum:  # PacketFlag
    PACKET_CHECKSUM_PARTIAL = 1    # the kernel has not filled in the TCP checksum yet
    PACKET_GSO = 2                 # a super-packet that will be segmented behind us

# A packet as a driver hands it over; the octets stay the driver's.
cdef struct QueuedPacket:
    uint8_t *data              # the IP header; writable, the core edits in place
    uint64_t id                # whatever the driver wants back in the operation
    uint32_t captured          # octets at `data`
    uint32_t length            # octets of the packet, >= captured
    uint32_t in_interface      # interface index, 0 where there is none
    uint32_t out_interface
    uint32_t flags             # PacketFlag
    uint32_t place             # core_prefetch_bucket's; 0 from whoever hands it over
    uint32_t connection        # whose addresses are translated: which one conntrack takes it for; 0: not, or not told

cdef enum:  # TcpFlag
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_ACK = 0x10
    TCP_URG = 0x20

cdef enum ParseResult:
    PARSED = 0
    NOT_TCP = 1                # another protocol: none of our business
    FRAGMENT = 2               # a part of a packet: only addresses can be told
    MALFORMED = 3              # lengths that do not add up: no TCP would take it
    TRUNCATED = 4              # whole on the wire, cut on the way to us

# What a TCP header's options say; options_read fills it.
cdef struct Options:
    uint8_t present            # OptionBit
    uint8_t scale              # of windows, where present has OPTION_SCALE
    uint8_t refused            # an option that a receiver without its key drops the segment for
    uint8_t multipath

# A view: every pointer is into QueuedPacket.data, checked by packet_parse; owns nothing.
cdef struct Packet:
    QueuedPacket *queued
    uint8_t *ip
    uint8_t *tcp
    uint8_t *payload
    uint32_t length            # octets from `ip` on that belong to the packet
    uint32_t segment_length    # TCP header and payload, octets
    uint32_t payload_length    # octets
    uint32_t seq
    uint32_t ack
    uint16_t source_port
    uint16_t destination_port
    uint16_t window
    uint8_t flags              # TcpFlag
    uint8_t family             # 4 or 6
    uint8_t extended           # IPv4 options or IPv6 extension headers
    uint8_t changed            # bytes of the header have been overwritten: its checksums are not right any more
    Options options
    uint8_t *source            # 4 or 16 octets
    uint8_t *destination

cdef enum:
    MOST_PAYLOAD = 65535       # octets of a packet that is taken
    PACKET_BUILD_SIZE = 60     # octets packet_build writes at most

# Whose packet is built, and for whom.
cdef struct Ends:
    const uint8_t *source      # 4 or 16 octets
    const uint8_t *destination
    uint16_t source_port
    uint16_t destination_port
    uint8_t family             # 4 or 6

cdef ParseResult packet_parse(Packet *packet, QueuedPacket *queued) noexcept nogil
cdef bint packet_checksum_ok(Packet *packet) noexcept nogil
cdef void packet_fix_checksums(Packet *packet) noexcept nogil
cdef void packet_trim(Packet *packet, uint32_t payload_length) noexcept nogil
# Overwrites IPv4 options with NOPs (RFC 791 3.1).
cdef void packet_blank_ip_options(Packet *packet) noexcept nogil
# Bytes of its header have been overwritten.
cdef inline void packet_note_change(Packet *packet) noexcept nogil:
    packet.changed = 1

cdef inline void packet_set_window(Packet *packet, uint16_t window) noexcept nogil:
    packet.window = window
    nm_put16(packet.tcp + 14, window)

# Without urgent data (RFC 6093 3.1).
cdef inline void packet_clear_urgent(Packet *packet) noexcept nogil:
    packet.flags &= ~TCP_URG
    packet.tcp[13] = packet.flags
    nm_put16(packet.tcp + 18, 0)

cdef uint32_t packet_build(uint8_t *at, const Ends *ends, uint32_t seq, uint32_t ack, uint8_t flags) noexcept nogil
