# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tap: records packets that came in and packets that left, as two pcap files of raw IP with nanoseconds.

Promises: incoming packets are written in queue order, outgoing ones in the order they leave,
both with the `now` given to the core and with the checksum a network card would have filled in;
so a replay of the first file gives the second. A packet accepted late is written as it came:
its bytes are kept until the core answers. A full disk never holds up or drops a packet: the
file ends, and the missing packets are counted. Does not know queues.
"""

import os

from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close, write

from nfmailguard.cext.operation cimport OP_ACCEPT, OP_EMIT, OP_REPLACE
from nfmailguard.cext.wire.packet cimport PACKET_CHECKSUM_PARTIAL

cdef extern from "checksum.h" nogil:
    int nm_complete_checksum(uint8_t *packet, uint32_t size)

cdef enum:
    # draft-ietf-opsawg-pcap: this magic number says that times have nanoseconds.
    PCAP_MAGIC = 0xa1b23c4d
    LINKTYPE_RAW = 101         # link type RAW: each record is an IPv4 or IPv6 packet without link header
    SNAP_LENGTH = 262144
    FILE_BUFFER = 1 << 20

cdef struct FileHeader:
    uint32_t magic
    uint16_t major             # pcap file format version 2.4
    uint16_t minor
    uint32_t zone
    uint32_t accuracy
    uint32_t snap_length
    uint32_t link_type

cdef struct PacketHeader:
    uint32_t seconds
    uint32_t nanoseconds
    uint32_t captured
    uint32_t length


cdef void flush(TapFile *file) noexcept nogil:
    cdef uint32_t at = 0
    cdef ssize_t written
    while at < file.used and not file.error:
        written = write(file.fd, file.buffer + at, file.used - at)
        if written > 0:
            at += <uint32_t> written
        elif errno != EINTR:
            file.error = errno
    if file.error:
        file.lost += file.buffered
    else:
        file.written += file.buffered
    file.used = 0
    file.buffered = 0


cdef void put(TapFile *file, const uint8_t *data, uint32_t captured, uint32_t length, uint64_t now,
              bint partial) noexcept nogil:
    cdef PacketHeader header
    if file.fd < 0:
        return
    if captured > SNAP_LENGTH:
        captured = SNAP_LENGTH
    if sizeof(header) + captured > FILE_BUFFER - file.used:
        flush(file)
    if file.error:
        file.lost += 1
        return
    header.seconds = <uint32_t> (now // 1000000000)
    header.nanoseconds = <uint32_t> (now % 1000000000)
    header.captured = captured
    header.length = length
    memcpy(file.buffer + file.used, &header, sizeof(header))
    file.used += sizeof(header)
    memcpy(file.buffer + file.used, data, captured)
    if partial and captured == length:
        nm_complete_checksum(file.buffer + file.used, captured)
    file.used += captured
    file.buffered += 1


cdef void tap_incoming(TapState *tap, const QueuedPacket *packet, uint64_t now) noexcept nogil:
    cdef bint partial = packet.flags & PACKET_CHECKSUM_PARTIAL
    cdef Copy *copy
    put(&tap.incoming, packet.data, packet.captured, packet.length, now, partial)
    if tap.outgoing.fd < 0:
        return
    copy = <Copy *> malloc(sizeof(Copy) + packet.captured)
    if copy == NULL:
        tap.outgoing.error = ENOMEM
        return
    copy.id = packet.id
    copy.captured = packet.captured
    copy.length = packet.length
    memcpy(copy.data, packet.data, packet.captured)
    if partial and packet.captured == packet.length:
        nm_complete_checksum(copy.data, packet.captured)
    copy.next = tap.copies[packet.id % TAP_BUCKETS]
    tap.copies[packet.id % TAP_BUCKETS] = copy


cdef Copy *take_copy(TapState *tap, uint64_t id) noexcept nogil:
    cdef Copy **link = &tap.copies[id % TAP_BUCKETS]
    cdef Copy *copy = link[0]
    while copy != NULL and copy.id != id:
        link = &copy.next
        copy = link[0]
    if copy != NULL:
        link[0] = copy.next
    return copy


cdef void tap_operation(TapState *tap, const Operation *operation, uint8_t kind, uint64_t now) noexcept nogil:
    cdef Copy *copy
    if tap.outgoing.fd < 0:
        return
    if kind == OP_EMIT or kind == OP_REPLACE:
        put(&tap.outgoing, operation.data, operation.length, operation.length, now, False)
    if kind == OP_EMIT:
        return
    copy = take_copy(tap, operation.id)
    if copy == NULL:
        tap.outgoing.lost += kind == OP_ACCEPT
        return
    if kind == OP_ACCEPT:
        put(&tap.outgoing, copy.data, copy.captured, copy.length, now, False)
    free(copy)


cdef class TapWriter:
    """The tap's two files; ``out_path`` None: no outgoing file. Raises ``OSError`` where a file cannot be made."""

    def __cinit__(self, in_path, out_path):
        self.state.incoming.fd = self.state.outgoing.fd = -1
        open_file(&self.state.incoming, in_path)
        if out_path is not None:
            open_file(&self.state.outgoing, out_path)

    def __dealloc__(self):
        cdef Copy *copy
        cdef int bucket
        for bucket in range(TAP_BUCKETS):
            copy = self.state.copies[bucket]
            while copy != NULL:
                self.state.copies[bucket] = copy.next
                free(copy)
                copy = self.state.copies[bucket]
        close_file(&self.state.incoming)
        close_file(&self.state.outgoing)
        free(self.state.incoming.buffer)
        free(self.state.outgoing.buffer)

    def incoming(self, const uint8_t[::1] data not None, uint64_t now, uint64_t id, uint32_t length=0,
                 uint32_t flags=0):
        """Records a queued packet before the core sees it; ``length``: its real length, where ``data`` is cut."""
        cdef QueuedPacket packet
        cdef uint8_t nothing = 0
        memset(&packet, 0, sizeof(packet))
        packet.captured = <uint32_t> data.shape[0]
        packet.data = <uint8_t *> &data[0] if packet.captured else &nothing
        packet.length = length if length > packet.captured else packet.captured
        packet.id = id
        packet.flags = flags
        tap_incoming(&self.state, &packet, now)

    def operation(self, uint8_t kind, uint64_t id, bytes data, uint64_t now):
        """Records an operation of the core; called in the order in which operations are carried out."""
        cdef Operation operation
        memset(&operation, 0, sizeof(operation))
        operation.kind = kind
        operation.id = id
        if data is not None:
            operation.data = data
            operation.length = len(data)
        elif kind == OP_REPLACE or kind == OP_EMIT:
            raise ValueError("this operation needs data")
        tap_operation(&self.state, &operation, kind, now)

    def counters(self):
        return {
            "tap_incoming": self.state.incoming.written + self.state.incoming.buffered,
            "tap_outgoing": self.state.outgoing.written + self.state.outgoing.buffered,
            "tap_lost": self.state.incoming.lost + self.state.outgoing.lost,
        }

    def close(self):
        """Writes the buffered packets and closes; returns the first error's errno, or 0. A second call does nothing."""
        close_file(&self.state.incoming)
        close_file(&self.state.outgoing)
        return self.state.incoming.error or self.state.outgoing.error


cdef int open_file(TapFile *file, path) except -1:
    cdef FileHeader header
    file.buffer = <uint8_t *> malloc(FILE_BUFFER)
    if file.buffer == NULL:
        raise MemoryError
    # Only the owner may read the files: mail is private. Writing never blocks, not even on a pipe without a reader.
    file.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    header.magic = PCAP_MAGIC
    header.major = 2
    header.minor = 4
    header.zone = header.accuracy = 0
    header.snap_length = SNAP_LENGTH
    header.link_type = LINKTYPE_RAW
    memcpy(file.buffer, &header, sizeof(header))
    file.used = sizeof(header)
    return 0


cdef void close_file(TapFile *file) noexcept nogil:
    if file.fd >= 0:
        flush(file)
        if close(file.fd) and not file.error:
            file.error = errno
        file.fd = -1
