# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Packets: parsing, checksums, trimming and building of IPv4 and IPv6 TCP packets.

Promises: after ``PARSED`` every pointer of the view lies inside the captured bytes, and reading a field cannot fail; a
changed packet leaves with correct lengths and checksums (invariant 3). Does not know flows or SMTP.
"""

from libc.string cimport memcpy, memset

cdef enum:
    PROTOCOL_TCP = 6
    IPV6_HOP_BY_HOP = 0
    IPV6_ROUTING = 43
    IPV6_FRAGMENT = 44
    IPV6_AUTHENTICATION = 51
    IPV6_DESTINATION = 60
    IPV4_NOP = 1               # the IPv4 option type No Operation (RFC 791 3.1)


cdef inline int ipv6_transport(const uint8_t *ip, uint32_t length, uint32_t *at) noexcept nogil:
    # Walks the IPv6 extension headers (RFC 8200 4): the protocol found after them, or -1 where the packet ends within
    # them.
    cdef int kind = ip[6]
    cdef uint32_t offset = 40
    while kind in (IPV6_HOP_BY_HOP, IPV6_ROUTING, IPV6_DESTINATION, IPV6_AUTHENTICATION):
        if offset + 8 > length:
            return -1
        if kind == IPV6_AUTHENTICATION:            # AH: length in units of 4 bytes, less 2 (RFC 4302 2.2)
            kind = ip[offset]
            offset += (<uint32_t> ip[offset + 1] + 2) * 4
        else:
            kind = ip[offset]
            offset += (<uint32_t> ip[offset + 1] + 1) * 8
    at[0] = offset
    return kind


cdef inline void read_ports(Packet *packet, uint32_t offset) noexcept nogil:
    packet.tcp = packet.ip + offset
    packet.source_port = nm_get16(packet.tcp)
    packet.destination_port = nm_get16(packet.tcp + 2)


cdef inline ParseResult parse_ipv4(Packet *packet, uint32_t have, uint32_t *offset, uint32_t *length) noexcept nogil:
    """Finds where the TCP segment begins and where the IPv4 packet ends; PARSED, or what else the packet is."""
    cdef uint8_t *ip = packet.ip
    packet.family = 4
    packet.source = ip + 12
    packet.destination = ip + 16
    offset[0] = (ip[0] & 15) * 4
    packet.extended = offset[0] > 20
    length[0] = nm_get16(ip + 2)
    if length[0] == 0 and packet.queued.length > 0xffff:
        length[0] = packet.queued.length  # length field 0: Linux BIG TCP; no queue hands over all of such a packet
    if offset[0] < 20 or length[0] < offset[0] or length[0] > packet.queued.length:
        return MALFORMED
    if nm_get16(ip + 6) & 0x3fff:
        if nm_get16(ip + 6) & 0x1fff == 0 and ip[9] == PROTOCOL_TCP and have >= offset[0] + 4:
            read_ports(packet, offset[0])
        return FRAGMENT
    return PARSED if ip[9] == PROTOCOL_TCP else NOT_TCP


cdef inline ParseResult parse_ipv6(Packet *packet, uint32_t have, uint32_t *offset, uint32_t *length) noexcept nogil:
    """Finds where the TCP segment begins and where the IPv6 packet ends; PARSED, or what else the packet is."""
    cdef uint8_t *ip = packet.ip
    cdef int protocol
    if have < 40:
        return TRUNCATED if packet.queued.length >= 40 and packet.queued.length > have else MALFORMED
    packet.family = 6
    packet.source = ip + 8
    packet.destination = ip + 24
    length[0] = 40 + nm_get16(ip + 4)
    if length[0] == 40 and packet.queued.length > 0xffff + 40:
        length[0] = packet.queued.length           # length field 0: a jumbogram (RFC 2675), or Linux's BIG TCP
    if length[0] > packet.queued.length:
        return MALFORMED
    protocol = ipv6_transport(ip, length[0] if length[0] < have else have, offset)
    packet.extended = ip[6] != PROTOCOL_TCP
    if protocol < 0:
        return MALFORMED if have >= length[0] else TRUNCATED
    if protocol == IPV6_FRAGMENT:
        if have >= offset[0] + 12 and nm_get16(ip + offset[0] + 2) < 8 and ip[offset[0]] == PROTOCOL_TCP:
            read_ports(packet, offset[0] + 8)
        return FRAGMENT
    return PARSED if protocol == PROTOCOL_TCP else NOT_TCP


cdef ParseResult packet_parse(Packet *packet, QueuedPacket *queued) noexcept nogil:
    """Fills ``packet`` from ``queued``. Whatever the result, ``source`` is NULL if the addresses cannot be read, and
    the ports are valid if ``tcp`` is not NULL."""
    cdef ParseResult result = MALFORMED
    cdef uint32_t offset, length, header
    cdef uint32_t have = queued.captured
    packet.queued = queued
    packet.ip = queued.data
    packet.tcp = packet.source = packet.destination = NULL
    packet.family = 0
    packet.changed = 0
    if have < 20:
        return TRUNCATED if queued.length >= 20 and queued.length > have else MALFORMED
    if packet.ip[0] >> 4 == 4:
        result = parse_ipv4(packet, have, &offset, &length)
    elif packet.ip[0] >> 4 == 6:
        result = parse_ipv6(packet, have, &offset, &length)
    if result != PARSED:
        return result
    if length < offset + 20:
        return MALFORMED
    if have < offset + 20:
        return TRUNCATED
    packet.length = length
    read_ports(packet, offset)
    header = (packet.tcp[12] >> 4) * 4
    packet.segment_length = length - offset
    if header < 20 or header > packet.segment_length:
        return MALFORMED
    packet.seq = nm_get32(packet.tcp + 4)
    packet.ack = nm_get32(packet.tcp + 8)
    packet.flags = packet.tcp[13]
    packet.window = nm_get16(packet.tcp + 14)
    packet.payload = packet.tcp + header
    packet.payload_length = packet.segment_length - header
    # A payload above MOST_PAYLOAD is longer than a length field can say: no queue hands it over whole, and no buffer
    # here has room for it.
    return PARSED if have >= length and packet.payload_length <= MOST_PAYLOAD else TRUNCATED


cdef inline uint64_t pseudo_sum(Packet *packet) noexcept nogil:
    return nm_pseudo_sum(packet.source, packet.destination, 4 if packet.family == 4 else 16,
                         PROTOCOL_TCP, packet.segment_length)


cdef bint packet_checksum_ok(Packet *packet) noexcept nogil:
    """Whether the TCP checksum is right (RFC 9293 3.1); the whole segment must be captured."""
    return nm_fold(nm_sum(packet.tcp, packet.segment_length, pseudo_sum(packet))) == 0xffff


cdef void packet_fix_checksums(Packet *packet) noexcept nogil:
    """Writes complete IPv4 and TCP checksums: the kernel sends a replaced packet on as it is."""
    cdef uint16_t folded
    memset(packet.tcp + 16, 0, 2)
    folded = ~nm_fold(nm_sum(packet.tcp, packet.segment_length, pseudo_sum(packet)))
    memcpy(packet.tcp + 16, &folded, 2)
    if packet.family == 4:
        memset(packet.ip + 10, 0, 2)
        folded = ~nm_fold(nm_sum(packet.ip, (packet.ip[0] & 15) * 4, 0))
        memcpy(packet.ip + 10, &folded, 2)


cdef void packet_trim(Packet *packet, uint32_t payload_length) noexcept nogil:
    """Cuts the payload off after its first ``payload_length`` bytes; FIN is cleared, as it comes after what is cut."""
    cdef uint32_t cut = packet.payload_length - payload_length
    packet.length -= cut
    packet.segment_length -= cut
    packet.payload_length = payload_length
    packet.flags &= ~TCP_FIN
    packet.tcp[13] = packet.flags
    if packet.family == 4:
        nm_put16(packet.ip + 2, <uint16_t> packet.length)
    else:
        nm_put16(packet.ip + 4, <uint16_t> (packet.length - 40))


cdef void packet_blank_ip_options(Packet *packet) noexcept nogil:
    memset(packet.ip + 20, IPV4_NOP, (packet.ip[0] & 15) * 4 - 20)
    packet.changed = 1


cdef uint32_t packet_build(uint8_t *at, const Ends *ends, uint32_t seq, uint32_t ack, uint8_t flags) noexcept nogil:
    """Writes a TCP packet without payload at ``at`` and returns its length in bytes."""
    cdef Packet packet
    cdef uint8_t family = ends.family
    cdef uint32_t header = 20 if family == 4 else 40
    cdef uint32_t size = 4 if family == 4 else 16
    memset(at, 0, header + 20)
    packet.family = family
    packet.ip = at
    packet.tcp = at + header
    packet.segment_length = 20
    packet.source = at + (12 if family == 4 else 8)
    packet.destination = packet.source + size
    memcpy(packet.source, ends.source, size)
    memcpy(packet.destination, ends.destination, size)
    if family == 4:
        at[0] = 0x45
        nm_put16(at + 2, <uint16_t> (header + 20))
        at[6] = 0x40                               # don't fragment; so an identification of 0 is right (RFC 6864 4.1)
        at[8] = 64
        at[9] = PROTOCOL_TCP
    else:
        at[0] = 0x60
        nm_put16(at + 4, 20)
        at[6] = PROTOCOL_TCP
        at[7] = 64
    nm_put16(packet.tcp, ends.source_port)
    nm_put16(packet.tcp + 2, ends.destination_port)
    nm_put32(packet.tcp + 4, seq)
    nm_put32(packet.tcp + 8, ack)
    packet.tcp[12] = 5 << 4
    packet.tcp[13] = flags
    packet_fix_checksums(&packet)
    return header + 20
