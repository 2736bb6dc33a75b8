# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A queue's netlink socket, its buffer sizes, and the clock offset its reader uses.

Promises: a socket that cannot be opened, or taken over, is closed. Does not know netlink messages.
"""

import os

from libc.errno cimport errno
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close

from nfmailguard.cext.drivers.system cimport (
    NETLINK_CAP_ACK, NETLINK_NETFILTER, NETLINK_NO_ENOBUFS, SOCK_CLOEXEC, SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF,
    SO_SNDBUFFORCE, buffer_size, mnl_socket_bind, mnl_socket_close, mnl_socket_fdopen, mnl_socket_get_fd,
    mnl_socket_open2, mnl_socket_setsockopt, nanoseconds,
)

cdef enum:
    SEND_ROOM = 256 * 1024     # most bytes of verdicts in one send


cdef mnl_socket *open_socket(int bound) except NULL:
    cdef mnl_socket *socket = mnl_socket_fdopen(bound) if bound >= 0 else mnl_socket_open2(
        NETLINK_NETFILTER, SOCK_CLOEXEC)
    cdef int number = errno
    if socket == NULL and bound >= 0:
        close(bound)
    if socket != NULL and bound < 0 and mnl_socket_bind(socket, 0, 0) < 0:
        number = errno
        mnl_socket_close(socket)
        socket = NULL
    if socket == NULL:
        raise OSError(number, os.strerror(number))
    return socket


cdef uint32_t widen_buffers(mnl_socket *socket, uint32_t wanted, uint32_t *sending) except 0:
    """Asks for a receive buffer that a full queue cannot overflow.

    Where the kernel grants less, the queue's length is not reduced: with a buffer of 416 KiB and eight
    bulk flows, a queue limited to the buffer lost 1,100 packets in place of 300-900 and halved the rate,
    and single segments in place of super-packets lost 9,400-20,000 at a sixth of the rate.
    """
    cdef int no = 0, yes = 1, fd = mnl_socket_get_fd(socket)
    # Error replies do not copy the failed verdict (CAP_ACK); buffer overflows are reported (NO_ENOBUFS off).
    mnl_socket_setsockopt(socket, NETLINK_CAP_ACK, &yes, sizeof(int))
    mnl_socket_setsockopt(socket, NETLINK_NO_ENOBUFS, &no, sizeof(int))
    sending[0] = min(buffer_size(fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_ROOM * 2) - 64, <uint32_t> SEND_ROOM)
    return buffer_size(fd, SO_RCVBUFFORCE, SO_RCVBUF, wanted)


cdef uint64_t wall_ahead() noexcept nogil:
    cdef timespec wall, monotonic
    clock_gettime(CLOCK_REALTIME, &wall)
    clock_gettime(CLOCK_MONOTONIC, &monotonic)
    return nanoseconds(&wall) - nanoseconds(&monotonic)
