# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Raw sockets for packets of our own (RSTs), marked so that they enter no queue.

Promises: every packet leaves with the mark, or is counted as an error; sending never
waits and never raises. Does not know what the packets contain.
"""

import errno
import socket

from libc.string cimport memcpy, memset
from posix.unistd cimport close

from nfmailguard.cext.drivers.system cimport (
    AF_INET, AF_INET6, MSG_DONTWAIT, MSG_NOSIGNAL, sendto, sockaddr, sockaddr_in, sockaddr_in6,
)


cdef void raw_send(RawSockets *sockets, const uint8_t *packet, uint32_t length) noexcept nogil:
    cdef sockaddr_in to
    cdef sockaddr_in6 to6
    cdef ssize_t sent = -1
    if length >= 20 and packet[0] >> 4 == 4 and sockets.ipv4 >= 0:
        memset(&to, 0, sizeof(to))
        to.sin_family = AF_INET
        memcpy(&to.sin_addr, packet + 16, 4)
        sent = sendto(sockets.ipv4, packet, length, MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr *> &to, sizeof(to))
    elif length >= 40 and packet[0] >> 4 == 6 and sockets.ipv6 >= 0:
        memset(&to6, 0, sizeof(to6))
        to6.sin6_family = AF_INET6
        memcpy(&to6.sin6_addr, packet + 24, 16)
        sent = sendto(sockets.ipv6, packet, length, MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr *> &to6, sizeof(to6))
    if sent == <ssize_t> length:
        sockets.sent += 1
    else:
        sockets.errors += 1


cdef class RawSender:
    """An IPv4 and an IPv6 raw socket; an ``OSError`` when they are made says that CAP_NET_RAW is missing."""

    def __cinit__(self, int mark):
        self.sockets.ipv4 = self.sockets.ipv6 = -1
        try:
            self.sockets.ipv4 = raw_socket(socket.AF_INET, mark)
            try:
                self.sockets.ipv6 = raw_socket(socket.AF_INET6, mark)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 needs no IPv6 socket
                    raise
        except OSError:
            close_sockets(&self.sockets)
            raise

    def __dealloc__(self):
        close_sockets(&self.sockets)

    def send(self, const uint8_t[::1] packet not None):
        """Sends one complete IP packet; the kernel fills in the checksum of an IPv4 header."""
        if packet.shape[0]:
            raw_send(&self.sockets, &packet[0], <uint32_t> packet.shape[0])

    @property
    def sent(self):
        return self.sockets.sent

    @property
    def errors(self):
        return self.sockets.errors

    def close(self):
        close_sockets(&self.sockets)


cdef void close_sockets(RawSockets *sockets) noexcept nogil:
    if sockets.ipv4 >= 0:
        close(sockets.ipv4)
    if sockets.ipv6 >= 0:
        close(sockets.ipv6)
    sockets.ipv4 = sockets.ipv6 = -1


def raw_socket(family, mark):
    # IPPROTO_RAW: we supply the IP header, for IPv4 and IPv6; such a socket receives nothing.
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return raw.detach()
