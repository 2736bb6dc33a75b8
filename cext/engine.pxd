# The core's face: queued packets in, operations out. Drivers cimport from here only.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.operation cimport (
    OP_ACCEPT,
    OP_DROP,
    OP_EMIT,
    OP_REPLACE,
    Operation,
    Operations,
    operations_free,
    operations_reserve,
)
from nfmailguard.cext.packet cimport PACKET_CHECKSUM_PARTIAL, PACKET_GSO, QueuedPacket

# Every call appends to `out`, which the caller empties (count = 0) beforehand. `now` is in
# nanoseconds of one clock that never goes back. An id that gets no operation is held.
cdef void core_process(Core *core, QueuedPacket *packet, uint64_t now, Operations *out) noexcept nogil
cdef void core_expire(Core *core, uint64_t now, Operations *out) noexcept nogil
# When core_expire has work again, in nanoseconds; UINT64_MAX: never, as things stand.
cdef uint64_t core_next_deadline(Core *core) noexcept nogil
# Ends every flow and answers every held id with a drop.
cdef void core_finish(Core *core, uint64_t now, Operations *out) noexcept nogil

cdef class Engine:
    cdef Core *core
    cdef Operations out        # for calls from Python
    cdef bytearray buffer      # the packet of the running call from Python
    cdef list operations(self)
