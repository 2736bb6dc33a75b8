# A queue's netlink socket, its buffer sizes, and the clock offset its reader uses.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.drivers.system cimport mnl_socket

# Opens a netlink socket, or takes over `bound` (-1: none), already bound to a queue; closed on failure. Raises OSError.
cdef mnl_socket *open_socket(int bound) except NULL
# Asks for a receive buffer of `wanted` bytes; returns the bytes granted, and in `sending` the most bytes per send.
cdef uint32_t widen_buffers(mnl_socket *socket, uint32_t wanted, uint32_t *sending) except 0
# Nanoseconds by which the wall clock is now ahead of the monotonic clock.
cdef uint64_t wall_ahead() noexcept nogil
