# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""NFQUEUE's netlink messages: packets read from datagrams, verdicts written for the kernel.

Promises: nothing outside the datagram is read, whatever its lengths say; a message
that names a packet id always becomes a packet, even if it is cut off, so that it gets its one
verdict; a verdict is written completely or not at all. A batch verdict, which would also answer
packets being held, is written only for a queue whose former reader is gone. Does not know sockets.
"""

from libc.errno cimport EPROTO
from libc.string cimport memcpy, memset

from nfmailguard.cext.drivers.system cimport (
    NFNL_SUBSYS_QUEUE, NFQA_CAP_LEN, NFQA_IFINDEX_INDEV, NFQA_IFINDEX_OUTDEV, NFQA_MARK, NFQA_PACKET_HDR,
    NFQA_PAYLOAD, NFQA_SKB_CSUMNOTREADY, NFQA_SKB_GSO, NFQA_SKB_INFO, NFQA_VERDICT_HDR, NFQNL_MSG_PACKET,
    NFQNL_MSG_VERDICT, NFQNL_MSG_VERDICT_BATCH, NF_ACCEPT, NF_DROP, NLA_TYPE_MASK, NLMSG_ERROR, NLM_F_REQUEST, nlattr,
    nlmsghdr,
)
from nfmailguard.cext.wire.packet cimport PACKET_CHECKSUM_PARTIAL, PACKET_GSO

cdef extern from "bytes.h" nogil:
    uint16_t nm_get16(const uint8_t *p)
    uint32_t nm_get32(const uint8_t *p)
    void nm_put16(uint8_t *p, uint16_t v)
    void nm_put32(uint8_t *p, uint32_t v)

cdef enum:
    HEADER = 16                # size of struct nlmsghdr
    FAMILY_HEADER = 4          # size of struct nfgenmsg: family, version, queue number in network order
    ATTRIBUTE = 4              # size of struct nlattr
    PACKET_HEADER = 7          # size of struct nfqnl_msg_packet_hdr, which is packed: id, protocol, hook
    VERDICT = HEADER + FAMILY_HEADER + ATTRIBUTE + 8


cdef inline uint32_t aligned(uint32_t length) noexcept nogil:
    return (length + 3) & ~<uint32_t> 3


cdef uint32_t message_parse(uint8_t *data, uint32_t size, Message *out) noexcept nogil:
    cdef nlmsghdr header
    cdef uint32_t end, taken
    memset(out, 0, sizeof(Message))
    out.kind = MESSAGE_BAD
    if size < HEADER:
        return size
    memcpy(&header, data, HEADER)
    if header.nlmsg_len < HEADER:
        return size
    # A datagram cut off by a short buffer still has the packet id at its front, so what is there is parsed.
    end = header.nlmsg_len if header.nlmsg_len < size else size
    taken = aligned(end) if aligned(end) < size else size
    if header.nlmsg_type == NLMSG_ERROR:
        if end >= HEADER + sizeof(int):
            memcpy(&out.error, data + HEADER, sizeof(int))
            out.error = -out.error
            out.kind = MESSAGE_ERROR
    elif header.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET):
        out.kind = MESSAGE_OTHER
    elif end >= HEADER + FAMILY_HEADER:
        out.queue = nm_get16(data + HEADER + 2)
        read_attributes(data + HEADER + FAMILY_HEADER, end - HEADER - FAMILY_HEADER, out)
    return taken


cdef void read_attributes(uint8_t *data, uint32_t size, Message *out) noexcept nogil:
    cdef nlattr attribute
    cdef uint32_t length, there, value = 0, cut = 0
    cdef uint8_t *body
    out.packet.data = data
    while size > ATTRIBUTE:
        memcpy(&attribute, data, ATTRIBUTE)
        if attribute.nla_len < ATTRIBUTE:
            return
        length = attribute.nla_len - ATTRIBUTE
        body = data + ATTRIBUTE
        there = length if length < size - ATTRIBUTE else size - ATTRIBUTE
        value = nm_get32(body) if there >= 4 else 0
        attribute.nla_type &= NLA_TYPE_MASK
        if attribute.nla_type == NFQA_PAYLOAD:
            out.packet.data = body
            out.packet.captured = there
            out.packet.length = length if length > cut else cut
        elif there < length:
            return
        elif attribute.nla_type == NFQA_PACKET_HDR and length >= PACKET_HEADER:
            out.packet.id = value
            out.kind = MESSAGE_PACKET
        elif attribute.nla_type == NFQA_IFINDEX_INDEV:
            out.packet.in_interface = value
        elif attribute.nla_type == NFQA_IFINDEX_OUTDEV:
            out.packet.out_interface = value
        elif attribute.nla_type == NFQA_MARK:
            out.mark = value
        elif attribute.nla_type == NFQA_CAP_LEN:
            # NFQA_CAP_LEN is sent only when the kernel cut the packet; its value is the packet's real length.
            cut = value
            if cut > out.packet.length:
                out.packet.length = cut
        elif attribute.nla_type == NFQA_SKB_INFO:
            if value & NFQA_SKB_CSUMNOTREADY:
                out.packet.flags |= PACKET_CHECKSUM_PARTIAL
            if value & NFQA_SKB_GSO:
                out.packet.flags |= PACKET_GSO
        length = aligned(attribute.nla_len)
        if length >= size:
            return
        data += length
        size -= length


cdef int verdict_put(Verdicts *out, uint32_t id, uint32_t verdict, const uint8_t *data, uint32_t length,
                     const uint32_t *mark) noexcept nogil:
    cdef nlmsghdr header
    cdef nlattr attribute
    cdef uint32_t need = VERDICT
    cdef uint8_t *at
    if mark != NULL:
        need += ATTRIBUTE + 4
    if data != NULL:
        need += ATTRIBUTE + length
        if length > MOST_REPLACED:
            return VERDICT_TOO_LONG
    if aligned(need) > out.size:
        return VERDICT_TOO_LONG
    if aligned(need) > out.size - out.used:
        return VERDICT_FULL
    at = out.data + out.used
    header.nlmsg_len = need
    header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT
    header.nlmsg_flags = NLM_F_REQUEST
    memset(at, 0, VERDICT)
    # the netlink header's sequence number and port stay 0: no reply is requested
    memcpy(at, &header, 8)
    nm_put16(at + HEADER + 2, out.queue)
    attribute.nla_len = ATTRIBUTE + 8
    attribute.nla_type = NFQA_VERDICT_HDR
    memcpy(at + HEADER + FAMILY_HEADER, &attribute, ATTRIBUTE)
    nm_put32(at + VERDICT - 8, verdict)
    nm_put32(at + VERDICT - 4, id)
    at += VERDICT
    if mark != NULL:
        attribute.nla_len = ATTRIBUTE + 4
        attribute.nla_type = NFQA_MARK
        memcpy(at, &attribute, ATTRIBUTE)
        nm_put32(at + ATTRIBUTE, mark[0])
        at += ATTRIBUTE + 4
    if data != NULL:
        attribute.nla_len = <uint16_t> (ATTRIBUTE + length)
        attribute.nla_type = NFQA_PAYLOAD
        memcpy(at, &attribute, ATTRIBUTE)
        memcpy(at + ATTRIBUTE, data, length)
        memset(at + ATTRIBUTE + length, 0, aligned(need) - need)
    out.used += aligned(need)
    out.count += 1
    return VERDICT_PUT


cdef int verdict_put_older(Verdicts *out, uint32_t id) noexcept nogil:
    cdef uint8_t *at = out.data + out.used
    cdef int result = verdict_put(out, id, NF_DROP, NULL, 0, NULL)
    cdef nlmsghdr header
    if result == VERDICT_PUT:
        memcpy(&header, at, sizeof(header))
        header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH
        memcpy(at, &header, 8)
    return result


def parse_messages(data):
    """For tests: parses one datagram as the driver's loop does, into tuples.

    ``("packet", id, queue, in_interface, out_interface, flags, length, payload, mark)``,
    ``("error", errno)``, ``("other",)`` or ``("bad",)``.
    """
    cdef bytearray datagram = bytearray(data)
    cdef uint8_t *at = datagram
    cdef uint32_t size = len(datagram), taken
    cdef Message message
    cdef list out = []
    while size:
        taken = message_parse(at, size, &message)
        if message.kind == MESSAGE_PACKET:
            out.append(("packet", message.packet.id, message.queue, message.packet.in_interface,
                        message.packet.out_interface, message.packet.flags, message.packet.length,
                        (<const char *> message.packet.data)[:message.packet.captured], message.mark))
        elif message.kind == MESSAGE_ERROR:
            out.append(("error", message.error))
        else:
            out.append(("other",) if message.kind == MESSAGE_OTHER else ("bad",))
        at += taken
        size -= taken
    return out


def emit_older(uint16_t queue, uint32_t id):
    """For tests: the message that drops every packet of a queue up to ``id``."""
    cdef bytearray buffer = bytearray(VERDICT_ROOM)
    cdef Verdicts verdicts
    verdicts.data = buffer
    verdicts.used = verdicts.count = 0
    verdicts.size = len(buffer)
    verdicts.queue = queue
    verdict_put_older(&verdicts, id)
    return bytes(buffer[:verdicts.used])


def emit_verdict(uint16_t queue, uint32_t id, bint accept, bytes payload=None, mark=None):
    """For tests: the verdict message that the driver's loop would send; ``OSError`` where none can hold ``payload``."""
    cdef bytearray buffer = bytearray(VERDICT_ROOM + MOST_REPLACED)
    cdef Verdicts verdicts
    cdef const uint8_t *data = NULL
    cdef uint32_t value = mark or 0
    verdicts.data = buffer
    verdicts.used = verdicts.count = 0
    verdicts.size = len(buffer)
    verdicts.queue = queue
    if payload is not None:
        data = payload
    if verdict_put(&verdicts, id, NF_ACCEPT if accept else NF_DROP, data, len(payload or b""),
                   NULL if mark is None else &value) != VERDICT_PUT:
        raise OSError(EPROTO, "no netlink message holds this payload")
    return bytes(buffer[:verdicts.used])
