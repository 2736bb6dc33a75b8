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

cdef enum:  # PacketFlag: bits of QueuedPacket.flags
    PACKET_CHECKSUM_PARTIAL = 1    # the kernel has not filled in the TCP checksum yet
    PACKET_GSO = 2                 # a super-packet (GSO) that the kernel cuts into segments after the verdict

# A packet as a driver hands it over; the memory of its bytes belongs to the driver.
cdef struct QueuedPacket:
    uint8_t *data              # the packet, from its IP header on; the core edits it in place
    uint64_t id                # the driver's number for the packet, which the verdict gives back
    uint32_t captured          # bytes of the packet that are available at `data`
    uint32_t length            # bytes of the whole packet as it was on the wire, at least `captured`
    uint32_t in_interface      # index of the interface the packet came in on; 0: none
    uint32_t out_interface
    uint32_t flags             # flags of the packet, as PacketFlag bits
    uint32_t place             # bucket of the flow table, plus 1, from core_prefetch_bucket; 0: not looked up yet
    uint32_t connection        # number of the packet's conntrack entry, if addresses are translated; 0: not known

cdef enum:  # TcpFlag: bits of the TCP header's flags
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_ACK = 0x10
    TCP_URG = 0x20

cdef enum ParseResult:
    PARSED = 0
    NOT_TCP = 1                # a protocol other than TCP: passes uninspected
    FRAGMENT = 2               # an IP fragment: only its addresses are certain to be readable
    MALFORMED = 3              # lengths in the headers contradict each other: no TCP would accept the packet
    TRUNCATED = 4              # whole on the wire, but the driver handed over only its beginning

# What a segment's TCP options say; options_read fills it in.
cdef struct Options:
    uint8_t present            # TCP options that the segment has, as OptionBit bits
    uint8_t scale              # shift count of the window scale option, if `present` has OPTION_SCALE
    uint8_t refused            # the segment has an option (MD5, AO) for which a receiver without its key drops it
    uint8_t multipath

# A view of a packet: every pointer points into QueuedPacket.data, checked by packet_parse; a view owns no memory.
cdef struct Packet:
    QueuedPacket *queued
    uint8_t *ip
    uint8_t *tcp
    uint8_t *payload
    uint32_t length            # length of the packet in bytes, from `ip` on
    uint32_t segment_length    # length of the TCP segment in bytes: header and payload
    uint32_t payload_length    # length of the TCP payload in bytes
    uint32_t seq
    uint32_t ack
    uint16_t source_port
    uint16_t destination_port
    uint16_t window
    uint8_t flags              # flags of the TCP header, as TcpFlag bits
    uint8_t family             # IP version of the packet: 4 or 6
    uint8_t extended           # the packet has IPv4 options or IPv6 extension headers
    uint8_t changed            # header bytes have been overwritten: the checksums have to be computed again
    Options options
    uint8_t *source            # the packet's source address, 4 or 16 bytes
    uint8_t *destination

cdef enum:
    MOST_PAYLOAD = 65535       # the largest TCP payload, in bytes, that is accepted
    PACKET_BUILD_SIZE = 60     # the most bytes that packet_build writes

# The addresses and ports of a packet to be built.
cdef struct Ends:
    const uint8_t *source      # source address of the packet to be built, 4 or 16 bytes
    const uint8_t *destination
    uint16_t source_port
    uint16_t destination_port
    uint8_t family             # IP version of the packet to be built: 4 or 6

cdef ParseResult packet_parse(Packet *packet, QueuedPacket *queued) noexcept nogil
cdef bint packet_checksum_ok(Packet *packet) noexcept nogil
cdef void packet_fix_checksums(Packet *packet) noexcept nogil
cdef void packet_trim(Packet *packet, uint32_t payload_length) noexcept nogil
# Overwrites the packet's IPv4 options with NOPs (RFC 791 3.1).
cdef void packet_blank_ip_options(Packet *packet) noexcept nogil
# Notes that bytes of the packet's header have been overwritten: its checksums have to be computed again.
cdef inline void packet_note_change(Packet *packet) noexcept nogil:
    packet.changed = 1

cdef inline void packet_set_window(Packet *packet, uint16_t window) noexcept nogil:
    packet.window = window
    nm_put16(packet.tcp + 14, window)

# Clears the urgent flag and pointer: the urgent data becomes plain data (RFC 6093 3.1).
cdef inline void packet_clear_urgent(Packet *packet) noexcept nogil:
    packet.flags &= ~TCP_URG
    packet.tcp[13] = packet.flags
    nm_put16(packet.tcp + 18, 0)

cdef uint32_t packet_build(uint8_t *at, const Ends *ends, uint32_t seq, uint32_t ack, uint8_t flags) noexcept nogil
