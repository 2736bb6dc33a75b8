# NFQUEUE's netlink messages: a datagram to a QueuedPacket, an operation to a verdict.
from libc.stdint cimport uint16_t, uint32_t, uint8_t

from nfmailguard.cext.wire.packet cimport QueuedPacket

cdef enum:
    MESSAGE_ROOM = 1024        # octets of a packet message besides the packet; what we ask for needs about 150
    MOST_REPLACED = 65531      # a netlink attribute's length is 16 bits, its own header included
    VERDICT_ROOM = 48          # octets of a verdict besides its payload, mark and padding included

cdef enum MessageKind:
    MESSAGE_PACKET = 0
    MESSAGE_ERROR = 1          # `error`: 0 is an acknowledgement, else an errno
    MESSAGE_OTHER = 2          # not ours; passed over
    MESSAGE_BAD = 3            # cannot be read; no packet id, so no verdict is possible

cdef struct Message:
    QueuedPacket packet        # `data` points into the datagram
    int error
    uint32_t mark              # of the packet
    uint16_t queue
    uint8_t kind

# Verdicts on their way: single NFQNL_MSG_VERDICT messages, one behind the other, for one send.
cdef struct Verdicts:
    uint8_t *data
    uint32_t used
    uint32_t size
    uint32_t count             # messages in `data`
    uint16_t queue

cdef enum VerdictPut:
    VERDICT_PUT = 0
    VERDICT_FULL = 1           # send what is there, then try again
    VERDICT_TOO_LONG = 2       # no netlink message, or not this buffer, can hold it

# Reads the first message of `size` octets; returns the octets it took, never 0 and never more than `size`.
cdef uint32_t message_parse(uint8_t *data, uint32_t size, Message *out) noexcept nogil
# `data` NULL: the packet goes on, or not, as it came; a payload is copied. `mark` NULL: it keeps its own.
cdef int verdict_put(Verdicts *out, uint32_t id, uint32_t verdict, const uint8_t *data, uint32_t length,
                     const uint32_t *mark) noexcept nogil
# Drops every packet up to `id` that has no verdict, in one message: of a queue of which nothing is held.
cdef int verdict_put_older(Verdicts *out, uint32_t id) noexcept nogil
