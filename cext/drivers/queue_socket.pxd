# The netlink socket of a queue, its buffers, and the clock of whoever reads it.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.drivers.system cimport mnl_socket

# A socket of our own, or `bound`, which is bound to a queue already and is closed with it. Raises OSError.
cdef mnl_socket *open_socket(int bound) except NULL
# Asks for `wanted` octets to receive; how many there are, and in `sending` how many a send may have.
cdef uint32_t widen_buffers(mnl_socket *socket, uint32_t wanted, uint32_t *sending) except 0
# What the wall clock of now is ahead of the clock that never steps, in nanoseconds.
cdef uint64_t wall_ahead() noexcept nogil
