# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The link layers of capture files: the IP packet of a frame, and the link header of a new packet.

Promises: a frame is left unchanged unless its IP packet is found for certain, and a new
packet gets the link header that a host on its side of the link would have sent. Knows Ethernet
with VLAN tags, RAW, IPV4, IPV6, NULL, LOOP and Linux's SLL and SLL2. Does not know files, TCP
connections or the core.
"""

from libc.string cimport memcmp, memcpy, memset

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86dd
    ETHERTYPE_VLAN = 0x8100    # EtherType of a VLAN tag (IEEE 802.1Q)
    ETHERTYPE_QINQ = 0x88a8    # EtherType of an outer VLAN tag (IEEE 802.1ad)
    ETHERTYPE_OLD_QINQ = 0x9100
    MOST_TAGS = 4
    SLL_HEADER = 16
    SLL2_HEADER = 20
    SLL_OUTGOING = 4           # SLL packet type: sent by the capturing machine
    PROTOCOL_TCP = 6


cdef inline uint32_t behind_tags(const Frame *frame, uint32_t at, uint32_t type_at, uint16_t *ethertype) noexcept nogil:
    # A VLAN tag is an EtherType that says so, two bytes of tag, and the EtherType that follows.
    cdef int _tag
    ethertype[0] = nm_get16(frame.data + type_at)
    for _tag in range(MOST_TAGS):
        if ethertype[0] != ETHERTYPE_VLAN and ethertype[0] != ETHERTYPE_QINQ and ethertype[0] != ETHERTYPE_OLD_QINQ:
            break
        if at + 4 > frame.captured:
            break
        ethertype[0] = nm_get16(frame.data + at + 2)
        at += 4
    return at


cdef inline int family_of_null(const uint8_t *header) noexcept nogil:
    # The address family 2 is IPv4 everywhere; IPv6 is 10 on Linux, 24, 28 or 30 on the BSDs. Either byte order is read.
    cdef uint8_t family = header[0] | header[3]
    if header[1] or header[2] or (header[0] and header[3]):
        return 0
    if family == 2:
        return 4
    return 6 if family == 10 or family == 24 or family == 28 or family == 30 else 0


cdef bint frame_parse(Frame *frame, int link) noexcept nogil:
    cdef uint16_t ethertype = 0
    cdef uint32_t at = 0
    cdef int family = 0
    cdef const uint8_t *ip
    if link == LINK_ETHERNET:
        if frame.captured < 14:
            return False
        at = behind_tags(frame, 14, 12, &ethertype)
    elif link == LINK_SLL:
        if frame.captured < SLL_HEADER:
            return False
        at = behind_tags(frame, SLL_HEADER, 14, &ethertype)
    elif link == LINK_SLL2:
        if frame.captured < SLL2_HEADER:
            return False
        at = behind_tags(frame, SLL2_HEADER, 0, &ethertype)
    elif link == LINK_NULL or link == LINK_LOOP:
        if frame.captured < 4:
            return False
        at = 4
        family = family_of_null(frame.data)
    elif link == LINK_RAW or link == LINK_RAW_12 or link == LINK_RAW_14 or link == LINK_IPV4 or link == LINK_IPV6:
        family = frame.data[0] >> 4 if frame.captured else 0
    if ethertype == ETHERTYPE_IPV4:
        family = 4
    elif ethertype == ETHERTYPE_IPV6:
        family = 6
    # No host takes a packet whose IP version contradicts the link header.
    if (family != 4 and family != 6) or at >= frame.captured or frame.data[at] >> 4 != family:
        return False
    ip = frame.data + at
    frame.at = at
    frame.ip_length = frame.captured - at
    if frame.ip_length >= 6:                       # the length fields of IPv4 and IPv6 lie in the first six bytes
        frame.ip_length = min(frame.ip_length, <uint32_t> nm_get16(ip + 2) if family == 4
                              else <uint32_t> nm_get16(ip + 4) + 40)
    return True


cdef bint frame_checksum_partial(const Frame *frame) noexcept nogil:
    """Whether a TCP checksum is only the pseudo header's sum, as in packets captured on the sending machine.

    Linux leaves that sum (skb_checksum_help's seed) for the network card to complete. On the wire one
    wrong checksum in 65,536 looks the same; it is then taken for an unfinished one, and so for right.
    """
    cdef const uint8_t *ip = frame.data + frame.at
    cdef uint32_t at = nm_tcp_offset(ip, frame.ip_length)
    cdef uint64_t sum
    cdef uint16_t folded
    if at == 0:
        return False
    if ip[0] >> 4 == 4:
        sum = nm_pseudo_sum(ip + 12, ip + 16, 4, PROTOCOL_TCP, frame.ip_length - at)
    else:
        sum = nm_pseudo_sum(ip + 8, ip + 24, 16, PROTOCOL_TCP, frame.ip_length - at)
    folded = nm_fold(sum)
    return memcmp(&folded, ip + at + 16, 2) == 0


cdef inline bint same_addresses(const uint8_t *ip, const uint8_t *other, bint turned) noexcept nogil:
    cdef uint32_t size = 4 if ip[0] >> 4 == 4 else 16
    cdef uint32_t source = 12 if size == 4 else 8
    if ip[0] >> 4 != other[0] >> 4:
        return False
    if turned:
        return (memcmp(ip + source, other + source + size, size) == 0
                and memcmp(ip + source + size, other + source, size) == 0)
    return memcmp(ip + source, other + source, 2 * size) == 0


cdef uint32_t frame_header(uint8_t *out, int link, const Frame *frame, const uint8_t *ip) noexcept nogil:
    cdef bint known = False, turned = False
    cdef bint version_4 = ip[0] >> 4 == 4
    cdef uint16_t ethertype = ETHERTYPE_IPV4 if version_4 else ETHERTYPE_IPV6
    if frame.ip_length >= <uint32_t> (20 if version_4 else 40) and frame.at <= MOST_LINK_HEADER:
        known = same_addresses(ip, frame.data + frame.at, False)
        turned = not known and same_addresses(ip, frame.data + frame.at, True)
    if known or turned:
        memcpy(out, frame.data, frame.at)
        if link == LINK_ETHERNET and turned:
            memcpy(out, frame.data + 6, 6)
            memcpy(out + 6, frame.data, 6)
        elif link == LINK_SLL:                     # sent by this machine, whose link address is not known
            nm_put16(out, SLL_OUTGOING)
            memset(out + 4, 0, 10)
        elif link == LINK_SLL2:
            out[10] = SLL_OUTGOING
            memset(out + 11, 0, 9)
        return frame.at
    memset(out, 0, MOST_LINK_HEADER)
    if link == LINK_ETHERNET:
        nm_put16(out + 12, ethertype)
        return 14
    if link == LINK_SLL:
        nm_put16(out, SLL_OUTGOING)
        nm_put16(out + 14, ethertype)
        return SLL_HEADER
    if link == LINK_SLL2:
        nm_put16(out, ethertype)
        out[10] = SLL_OUTGOING
        return SLL2_HEADER
    if link == LINK_NULL or link == LINK_LOOP:
        out[0 if link == LINK_NULL else 3] = 2 if version_4 else 10
        return 4
    return 0
