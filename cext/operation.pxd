# Operations: what the core tells a driver to do, in order.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

# Kinds of operations.
cdef enum:
    OP_ACCEPT = 0              # the queued packet `id` passes unchanged
    OP_REPLACE = 1             # packet `id` passes as `data`, a complete packet with correct checksums
    OP_DROP = 2
    OP_EMIT = 3                # `data` is a new packet to be sent; `id` is 0

cdef struct Operation:
    uint8_t *data              # REPLACE, EMIT: the IP packet, in the core's memory, valid until the next call
    uint64_t id
    uint32_t length            # bytes of the packet at `data`
    uint8_t kind
    uint8_t to_server          # EMIT: 1: the packet goes to the server, 0: to the client
    uint8_t offloadable        # ACCEPT: 1: no packet of this connection needs inspection any more

cdef struct Operations:
    Operation *items
    uint32_t count
    uint32_t capacity

# Makes room for `more` operations; -1: out of memory. To be called before operations are appended.
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
