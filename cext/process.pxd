# The core's face: queued packets in, operations out.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport QueuedPacket

# Every call appends to `out`, which the caller empties (count = 0) beforehand. `now` is in
# nanoseconds of one clock that never goes back. An id that gets no operation is held.
cdef void core_process(Core *core, QueuedPacket *packet, uint64_t now, Operations *out) noexcept nogil
cdef void core_expire(Core *core, uint64_t now, Operations *out) noexcept nogil
# Before the packets of a batch, and where there are none once in a while: new rules are taken up here.
cdef void core_begin_batch(Core *core, uint64_t now) noexcept nogil
# Before packets that stand together are processed: each is foreseen some places ahead of its turn, and then
# approached, so that its flow is at hand. With few flows it is not worth the work, and neither does anything.
cdef void core_prefetch_bucket(Core *core, QueuedPacket *packet) noexcept nogil
cdef void core_prefetch_flow(Core *core, QueuedPacket *packet) noexcept nogil
# A call begins that appends to `out`.
cdef void begin_call(Core *core, uint64_t now, Operations *out) noexcept nogil
# When core_expire has work again, in nanoseconds; UINT64_MAX: never, as things stand.
cdef uint64_t core_next_deadline(Core *core) noexcept nogil
# Frees the packets that were answered in the last call, whose operations nobody reads any more.
cdef void core_settle(Core *core) noexcept nogil
# Ends every flow and answers every held id with a drop. With `leave_room` only until half of the records
# ring is full; whether flows are left.
cdef bint core_finish(Core *core, uint64_t now, Operations *out, bint leave_room) noexcept nogil

cdef inline bint core_records_wait(const Core *core) noexcept nogil:
    # Half of the ring is full.
    return core.ring.head - core.ring.tail >= core.ring.size // 2
