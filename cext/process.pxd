# The core's interface for drivers: queued packets in, operations out.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport QueuedPacket

# Every call appends to `out`, which the caller has emptied (count = 0). `now` is in nanoseconds
# of a clock that never goes back. A packet whose id gets no operation is held.
cdef void core_process(Core *core, QueuedPacket *packet, uint64_t now, Operations *out) noexcept nogil
cdef void core_expire(Core *core, uint64_t now, Operations *out) noexcept nogil
# Called before the packets of a batch, and now and then when there are none: takes up new rules.
cdef void core_begin_batch(Core *core, uint64_t now) noexcept nogil
# Cache prefetching for a batch: core_prefetch_bucket some packets ahead, then core_prefetch_flow nearer to the packet's
# turn, so that its flow is in the cache. With few flows it is not worth the work, and both do nothing.
cdef void core_prefetch_bucket(Core *core, QueuedPacket *packet) noexcept nogil
cdef void core_prefetch_flow(Core *core, QueuedPacket *packet) noexcept nogil
# Begins a call to the core, which appends operations to `out`.
cdef void begin_call(Core *core, uint64_t now, Operations *out) noexcept nogil
# When core_expire next has work, in nanoseconds; UINT64_MAX: never, unless a packet comes.
cdef uint64_t core_next_deadline(Core *core) noexcept nogil
# Frees the held packets that were answered in the last call, once the driver no longer needs their operations.
cdef void core_settle(Core *core) noexcept nogil
# Ends every flow and answers every held packet with a drop. With `leave_room` it stops when half of the ring of
# records is full; returns whether flows are left.
cdef bint core_finish(Core *core, uint64_t now, Operations *out, bint leave_room) noexcept nogil

cdef inline bint core_records_wait(const Core *core) noexcept nogil:
    # Whether half of the ring of records is full.
    return core.ring.head - core.ring.tail >= core.ring.size // 2
