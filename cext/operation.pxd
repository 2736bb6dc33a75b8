# Operations: what the core tells a driver to do, in order.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef enum:  # OperationKind
    OP_ACCEPT = 0              # the queued packet `id` goes on as it came
    OP_REPLACE = 1             # it goes on with `data`, complete and with right checksums
    OP_DROP = 2
    OP_EMIT = 3                # a new packet; `id` is 0

cdef struct Operation:
    uint8_t *data              # REPLACE, EMIT: the IP packet; the core's, valid until the next call
    uint64_t id
    uint32_t length            # octets at `data`
    uint8_t kind
    uint8_t to_server          # EMIT: the direction it goes
    uint8_t offloadable        # ACCEPT: nothing of this connection needs to be looked at any more

cdef struct Operations:
    Operation *items
    uint32_t count
    uint32_t capacity

# Room for `more` operations; -1 without memory. Whoever appends has reserved before.
cdef int operations_reserve(Operations *out, uint32_t more) noexcept nogil
cdef void operations_free(Operations *out) noexcept nogil

cdef inline void operations_clear(Operations *out) noexcept nogil:
    out.count = 0

cdef inline Operation *operation_append(Operations *out, uint8_t kind, uint64_t id, uint8_t *data,
                                        uint32_t length) noexcept nogil:
    cdef Operation *operation = &out.items[out.count]
    out.count += 1
    operation.kind = kind
    operation.id = id
    operation.data = data
    operation.length = length
    operation.to_server = 0
    operation.offloadable = 0
    return operation
