# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Mail as a load for measurements: client and server of SMTP dialogues on plain sockets, without the GIL.

Promises: a client waits for every reply and accepts only positive ones; a server takes a
message as ended where RFC 5321 4.1.1.4 says so. Every failure raises ``OSError``.
Does not know what is on the path between the two.
"""

import os

from libc.errno cimport EPROTO, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr:
        pass
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SOCK_CLOEXEC
        SOCK_STREAM
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *to, unsigned int size)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef enum:
    BUFFER = 1 << 18
    RECORD = 64
    FAMILY_AT = 0                      # offset of the address family, in host byte order, in a packed sockaddr


cdef inline uint64_t monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef int send_all(int fd, const char *data, size_t size) noexcept nogil:
    cdef ssize_t sent
    while size:
        sent = send(fd, data, size, MSG_NOSIGNAL)
        if sent <= 0:
            return -1
        data += sent
        size -= <size_t> sent
    return 0


cdef int read_reply(int fd, char *buffer) noexcept nogil:
    """Reads a reply up to a line's end; -1 if the connection ends or it begins with no 2, 3 or * (a masked banner)."""
    cdef ssize_t got = 0, more
    while got == 0 or buffer[got - 1] != c"\n":
        more = recv(fd, buffer + got, BUFFER - got, 0)
        if more <= 0:
            return -1
        got += more
    if buffer[0] == c"2" or buffer[0] == c"3" or buffer[0] == c"*":
        return 0
    (&errno)[0] = EPROTO
    return -1


cdef inline int command(int fd, const char *line, size_t size, char *buffer) noexcept nogil:
    return -1 if send_all(fd, line, size) < 0 else read_reply(fd, buffer)


cdef int open_session(const char *address, uint32_t size, char *buffer) noexcept nogil:
    """Returns a connected socket after the reply to HELO, or -1."""
    cdef unsigned short family
    cdef int fd, yes = 1
    memcpy(&family, address + FAMILY_AT, 2)
    fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(int))
    if connect(fd, <const sockaddr *> address, size) == 0 and read_reply(fd, buffer) == 0 and (
            command(fd, b"HELO client.example.net\r\n", 25, buffer) == 0):
        return fd
    close(fd)
    return -1


cdef int send_mail(int fd, const char *text, size_t size, char *buffer) noexcept nogil:
    if (command(fd, b"MAIL FROM:<a@example.net>\r\n", 27, buffer) < 0
            or command(fd, b"RCPT TO:<b@example.com>\r\n", 25, buffer) < 0
            or command(fd, b"DATA\r\n", 6, buffer) < 0 or send_all(fd, text, size) < 0):
        return -1
    return command(fd, b".\r\n", 3, buffer)


def send_messages(bytes address, bytes text, uint32_t count):
    """Sends ``count`` messages, each over its own connection; ``address`` is a packed sockaddr.

    ``text`` ends with CRLF and has no line that begins with a dot. Raises OSError.
    """
    cdef const char *to = address
    cdef const char *data = text
    cdef uint32_t length = <uint32_t> len(address), _
    cdef size_t size = len(text)
    cdef char *buffer = <char *> malloc(BUFFER)
    cdef int fd = 0, failed = 0
    with nogil:
        for _ in range(count):
            fd = open_session(to, length, buffer)
            if fd < 0 or send_mail(fd, data, size, buffer) < 0 or command(fd, b"QUIT\r\n", 6, buffer) < 0:
                failed = errno if errno else EPROTO
            if fd >= 0:
                close(fd)
            if failed:
                break
    free(buffer)
    if failed:
        raise OSError(failed, os.strerror(failed))


cdef int record_trip(int fd, const char *record, char *buffer) noexcept nogil:
    """Sends bytes that look like a TLS record and reads them back."""
    cdef ssize_t got, have = 0
    if send_all(fd, record, RECORD) < 0:
        return -1
    while have < RECORD:
        got = recv(fd, buffer, BUFFER, 0)
        if got <= 0:
            return -1
        have += got
    return 0


def round_trips(bytes address, uint32_t count, bint opaque=False):
    """Measures the nanoseconds from each of ``count`` NOOPs to its reply, over one connection. Raises OSError.

    ``opaque``: in place of NOOPs, after STARTTLS, bytes that look like TLS and are sent back by the server.
    """
    cdef const char *to = address
    cdef uint32_t length = <uint32_t> len(address), i
    cdef char *buffer = <char *> malloc(BUFFER)
    cdef uint64_t *times = <uint64_t *> malloc(count * sizeof(uint64_t))
    cdef uint64_t begun
    cdef int fd, done, failed = 0
    cdef char record[RECORD]
    cdef list out
    memset(record, 0, RECORD)
    record[0] = 0x16                           # TLS content type handshake (RFC 8446 5.1)
    with nogil:
        fd = open_session(to, length, buffer)
        if fd < 0 or (opaque and command(fd, b"STARTTLS\r\n", 10, buffer) < 0):
            failed = errno if errno else EPROTO
        for i in range(0 if failed else count):
            begun = monotonic()
            done = record_trip(fd, record, buffer) if opaque else command(fd, b"NOOP\r\n", 6, buffer)
            if done < 0:
                failed = errno if errno else EPROTO
                break
            times[i] = monotonic() - begun
        if fd >= 0:
            if not opaque:
                command(fd, b"QUIT\r\n", 6, buffer)
            close(fd)
    out = [] if failed else [times[i] for i in range(count)]
    free(times)
    free(buffer)
    if failed:
        raise OSError(failed, os.strerror(failed))
    return out


cdef int serve_message(int fd, char *buffer) noexcept nogil:
    """Reads a message up to its end; the client must send nothing after it."""
    cdef char tail[5]
    cdef ssize_t got
    cdef int i
    memset(tail, 0, 5)
    memcpy(tail + 3, b"\r\n", 2)
    while True:
        got = recv(fd, buffer, BUFFER, 0)
        if got <= 0:
            return -1
        if got >= 5:
            memcpy(tail, buffer + got - 5, 5)
        else:
            for i in range(5 - <int> got):
                tail[i] = tail[i + got]
            memcpy(tail + 5 - got, buffer, got)
        if memcmp(tail, b"\r\n.\r\n", 5) == 0:
            return 0


def serve(int fd):
    """Serves SMTP on a connection, accepting everything, until QUIT or the client closes. Does not close ``fd``."""
    cdef char *buffer = <char *> malloc(BUFFER)
    cdef ssize_t got, have = 0
    cdef char *end
    cdef bint more
    cdef int yes = 1
    with nogil:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(int))
        more = send_all(fd, b"220 mail2.example.com ESMTP\r\n", 29) == 0
        while more:
            got = recv(fd, buffer + have, BUFFER - have, 0)
            if got <= 0:
                break
            have += got
            end = <char *> memchr(buffer, c"\n", have)
            while more and end != NULL:
                if memcmp(buffer, b"DATA", 4) == 0:
                    have = 0
                    more = (send_all(fd, b"354 go\r\n", 8) == 0 and serve_message(fd, buffer) == 0
                            and send_all(fd, b"250 queued\r\n", 12) == 0)
                    break
                if memcmp(buffer, b"STARTTLS", 8) == 0:
                    more = send_all(fd, b"220 go\r\n", 8) == 0
                    while more:                # after STARTTLS all bytes are sent back unchanged
                        got = recv(fd, buffer, BUFFER, 0)
                        more = got > 0 and send_all(fd, buffer, <size_t> got) == 0
                    break
                if memcmp(buffer, b"QUIT", 4) == 0:
                    send_all(fd, b"221 bye\r\n", 9)
                    more = False
                    break
                more = send_all(fd, b"250 ok\r\n", 8) == 0
                have -= end + 1 - buffer
                memmove(buffer, end + 1, have)
                end = <char *> memchr(buffer, c"\n", have)
    free(buffer)


def flood(int fd, list packets, double seconds):
    """Sends the packets again and again through a connected raw socket; returns the number of packets sent or tried."""
    cdef uint32_t count = <uint32_t> len(packets), i = 0
    cdef uint64_t sent = 0, until = monotonic() + <uint64_t> (seconds * 1e9)
    cdef const char **data = <const char **> malloc(count * sizeof(char *))
    cdef size_t *sizes = <size_t *> malloc(count * sizeof(size_t))
    for i in range(count):
        data[i] = <bytes> packets[i]
        sizes[i] = len(<bytes> packets[i])
    i = 0
    with nogil:
        while sent % 64 or monotonic() < until:
            send(fd, data[i], sizes[i], MSG_NOSIGNAL)
            sent += 1
            i = i + 1 if i + 1 < count else 0
    free(data)
    free(sizes)
    return sent
