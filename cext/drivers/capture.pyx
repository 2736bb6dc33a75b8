# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The capture driver's loop: it feeds the frames of a capture file to the core and writes what leaves to another file.

Promises: a frame whose packet is accepted at once is written unchanged, with its own
time; a packet that leaves later, or is new, gets the time it leaves at. The core's clock
is the capture's and never goes back. Memory is allocated for a frame only where its packet
is held. The file's bytes are copied once, for the core to edit. Does not know SMTP, nor
how to word an error: ``queues.capture`` does.
"""

import os

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EIO, errno
from libc.stdio cimport _IOFBF, fclose, fdopen, fflush, setvbuf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from nfmailguard.cext.drivers.frame cimport MOST_LINK_HEADER, frame_checksum_partial, frame_header, frame_parse
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_EMIT, OP_REPLACE, operations_clear, operations_free
from nfmailguard.cext.process cimport core_expire, core_finish, core_next_deadline, core_process, core_records_wait
from nfmailguard.cext.wire.packet cimport PACKET_CHECKSUM_PARTIAL, QueuedPacket

cdef extern from "<stdio.h>" nogil:
    size_t fwrite_unlocked(const void *data, size_t size, size_t count, FILE *file)

cdef enum:
    FILE_BUFFER = 1 << 18      # bytes: enough to make reads and writes cheap, few enough for the CPU cache
    SECOND = 1000000000


cdef class CaptureLoop:
    """The loop over one capture file; ``engine`` None accepts every packet without a core."""

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.core = NULL if engine is None else engine.core
        if self.core != NULL:
            # records may fill the whole ring: a capture waits for their reader
            self.core.ring.unshared = 1

    def __dealloc__(self):
        release(self)
        operations_free(&self.operations)

    def open_input(self, int fd, bint nanoseconds):
        """Takes over ``fd``, positioned at the capture's first byte. ValueError says why it is no readable capture.

        ``nanoseconds``: times are read and written in nanoseconds, else in microseconds.
        """
        cdef char error[PCAP_ERRBUF_SIZE]
        cdef FILE *file = fdopen(fd, "rb")
        cdef unsigned int precision = PCAP_TSTAMP_PRECISION_NANO if nanoseconds else PCAP_TSTAMP_PRECISION_MICRO
        error[0] = 0
        if file == NULL:
            close(fd)
            raise OSError(errno, os.strerror(errno))
        self.buffers = <char *> malloc(2 * FILE_BUFFER)
        if self.buffers == NULL:
            fclose(file)
            raise MemoryError
        setvbuf(file, self.buffers, _IOFBF, FILE_BUFFER)
        self.source = pcap_fopen_offline_with_tstamp_precision(file, precision, error)
        if self.source == NULL:
            fclose(file)
            raise ValueError((<bytes> error).decode(errors="replace"))
        self.link = pcap_datalink(self.source)
        self.units = SECOND if nanoseconds else 1000000

    def open_output(self, int fd):
        """Takes over ``fd`` and writes a pcap file with the input's link type and snap length to it."""
        if self.source == NULL:
            close(fd)
            raise RuntimeError("the input comes first")
        self.target = fdopen(fd, "wb")
        if self.target == NULL:
            close(fd)
            raise OSError(errno, os.strerror(errno))
        setvbuf(self.target, self.buffers + FILE_BUFFER, _IOFBF, FILE_BUFFER)
        self.dumper = pcap_dump_fopen(self.source, self.target)
        if self.dumper == NULL:
            fclose(self.target)
            self.target = NULL
            raise ValueError(pcap_geterr(self.source).decode(errors="replace"))

    def step(self, uint64_t most, bint leave_room=False):
        """Processes up to ``most`` frames, without the GIL; False when no more frames will come.

        With ``leave_room`` it returns sooner when half of the ring buffer of records is full.
        """
        cdef int got
        if self.source == NULL:
            raise RuntimeError("the capture is not open")
        with nogil:
            got = self.loop(most, leave_room)
        if got < 0 and self.read_error is None:
            self.read_error = pcap_geterr(self.source).decode(errors="replace")
        PyErr_CheckSignals()
        return not (self.ended or self.stopped or self.write_error)

    def finish(self, bint leave_room=False):
        """Ends the core's flows, writes the held packets it answers then, and flushes the output file.

        With ``leave_room`` it returns True when half of the records' ring buffer is full; call again once it is read.
        """
        cdef bint more
        with nogil:
            more = self.finish_core(leave_room)
        if more:
            return True
        if self.dumper != NULL and fflush(self.target) != 0 and not self.write_error:
            self.write_error = errno
        return False

    def stop(self):
        """Makes ``step`` return before the next frame; may be called from any thread or a signal handler."""
        self.stopped = 1

    def close(self):
        """Closes both files. Must not be called while ``step`` runs; a second call does nothing."""
        release(self)

    @property
    def link_type(self):
        """The input file's link type, as libpcap numbers them."""
        return self.link

    @property
    def clock(self):
        """The latest time given to the core, in nanoseconds."""
        return self.now

    def counters(self):
        return self.count

    cdef int loop(self, uint64_t most, bint leave_room) noexcept nogil:
        """Processes up to ``most`` frames; -1 where libpcap could read no further frame, else 0."""
        cdef pcap_pkthdr *header
        cdef int got = 1
        while most and not self.stopped and not self.write_error:
            if leave_room and self.core != NULL and core_records_wait(self.core):
                break
            got = pcap_next_ex(self.source, &header, &self.frame.data)
            if got != 1:
                self.ended = 1
                return 0 if got == PCAP_ERROR_BREAK else -1
            self.header.seconds = <uint32_t> header.ts.tv_sec
            self.header.fraction = <uint32_t> header.ts.tv_usec
            self.header.captured = self.frame.captured = header.caplen
            self.header.length = header.len
            self.frame.length = max(header.len, header.caplen)
            self.take()
            most -= 1
        return 0

    cdef void take(self) noexcept nogil:
        cdef uint64_t now = <uint64_t> self.header.seconds * SECOND
        now += <uint64_t> self.header.fraction * (SECOND // self.units)
        self.count.packets += 1
        self.count.bytes += self.frame.length
        self.count.truncated += self.frame.captured < self.frame.length
        if now < self.now:
            self.count.clock_back += 1
            now = self.now
        self.frame.ip_length = 0
        self.expire_until(now)
        self.now = now
        if not frame_parse(&self.frame, self.link):
            self.count.not_ip += 1
            self.write_frame(&self.header, &self.frame, NULL)
        elif self.core == NULL:
            self.count.accepted += 1
            self.write_frame(&self.header, &self.frame, NULL)
        else:
            self.inspect(now)

    cdef void inspect(self, uint64_t now) noexcept nogil:
        cdef QueuedPacket packet
        cdef uint32_t captured = self.frame.captured - self.frame.at
        memset(&packet, 0, sizeof(packet))
        if captured > self.arena_size:
            free(self.arena)
            self.arena_size = 2 * captured
            self.arena = <uint8_t *> malloc(self.arena_size)
            if self.arena == NULL:
                self.arena_size = 0
                self.count.internal_errors += 1
                self.count.dropped += 1
                return
        memcpy(self.arena, self.frame.data + self.frame.at, captured)
        self.id += 1
        packet.data = self.arena
        packet.id = self.id
        packet.captured = captured
        packet.length = self.frame.length - self.frame.at
        if frame_checksum_partial(&self.frame):
            self.count.checksum_partial += 1
            packet.flags = PACKET_CHECKSUM_PARTIAL
        self.answered = False
        operations_clear(&self.operations)
        core_process(self.core, &packet, now, &self.operations)
        self.carry_out()
        if not self.answered:
            self.hold()
        self.answered = True

    cdef void expire_until(self, uint64_t now) noexcept nogil:
        """Runs every timer of the core that is due by ``now``, each at its own time, as the live drivers do."""
        cdef uint64_t deadline
        if self.core == NULL:
            return
        self.answered = True
        deadline = core_next_deadline(self.core)
        while deadline <= now:
            self.now = max(deadline, self.now)
            self.count.expired += 1
            operations_clear(&self.operations)
            core_expire(self.core, self.now, &self.operations)
            self.carry_out()
            deadline = core_next_deadline(self.core)
            if deadline <= self.now:
                return                                 # the core's next deadline has not advanced: no endless loop

    cdef bint finish_core(self, bint leave_room) noexcept nogil:
        cdef bint more
        if self.core == NULL:
            return False
        self.frame.data = NULL
        self.frame.ip_length = 0
        self.answered = True
        operations_clear(&self.operations)
        more = core_finish(self.core, self.now, &self.operations, leave_room)
        self.carry_out()
        return more

    cdef void carry_out(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.operations.count):
            self.apply(&self.operations.items[i])

    cdef void apply(self, const Operation *operation) noexcept nogil:
        cdef Held *held = NULL
        cdef RecordHeader header
        if operation.kind == OP_EMIT:
            self.count.emitted += 1
            self.write_new(operation)
            return
        self.count.accepted += operation.kind == OP_ACCEPT
        self.count.replaced += operation.kind == OP_REPLACE
        self.count.dropped += operation.kind == OP_DROP
        if operation.id == self.id and not self.answered:
            self.answered = True
            if operation.kind != OP_DROP:
                header = self.header
                self.write_frame(&header, &self.frame, operation)
            return
        held = self.take_held(operation.id)
        if held == NULL:
            self.count.internal_errors += 1
            return
        if operation.kind != OP_DROP:
            self.stamp(&header)
            header.captured = held.frame.captured
            header.length = held.frame.length
            self.write_frame(&header, &held.frame, operation)
        free(held)

    cdef void hold(self) noexcept nogil:
        cdef Held *held = <Held *> malloc(sizeof(Held) + self.frame.captured)
        if held == NULL:
            self.count.internal_errors += 1
            return
        held.id = self.id
        held.frame = self.frame
        held.frame.data = held.data
        memcpy(held.data, self.frame.data, self.frame.captured)
        held.next = self.held[self.id % HELD_BUCKETS]
        self.held[self.id % HELD_BUCKETS] = held
        self.count.held += 1

    cdef Held *take_held(self, uint64_t id) noexcept nogil:
        cdef Held **link = &self.held[id % HELD_BUCKETS]
        cdef Held *held = link[0]
        while held != NULL and held.id != id:
            link = &held.next
            held = link[0]
        if held != NULL:
            link[0] = held.next
            self.count.held -= 1
        return held

    cdef void stamp(self, RecordHeader *header) noexcept nogil:
        """Sets a frame's time to the core's present time, at which the packet leaves."""
        header.seconds = <uint32_t> (self.now // SECOND)
        header.fraction = <uint32_t> (self.now % SECOND // (SECOND // self.units))

    cdef void write_frame(self, RecordHeader *header, const Frame *frame, const Operation *operation) noexcept nogil:
        """Writes a captured frame; ``operation`` may replace its IP packet: the bytes around the packet are kept."""
        cdef uint32_t behind
        if self.dumper == NULL or self.write_error:
            return
        if operation == NULL or operation.kind == OP_ACCEPT:
            self.write_bytes(header, sizeof(RecordHeader))
            self.write_bytes(frame.data, frame.captured)
        else:
            behind = frame.at + frame.ip_length
            header.length -= header.captured
            header.captured = frame.at + operation.length + frame.captured - behind
            header.length += header.captured
            self.write_bytes(header, sizeof(RecordHeader))
            self.write_bytes(frame.data, frame.at)
            self.write_bytes(operation.data, operation.length)
            self.write_bytes(frame.data + behind, frame.captured - behind)
        self.count.written += 1

    cdef void write_new(self, const Operation *operation) noexcept nogil:
        cdef RecordHeader header
        cdef uint8_t link_header[MOST_LINK_HEADER]
        cdef uint32_t at
        if self.dumper == NULL or self.write_error:
            return
        at = frame_header(link_header, self.link, &self.frame, operation.data)
        self.stamp(&header)
        header.captured = header.length = at + operation.length
        self.write_bytes(&header, sizeof(header))
        self.write_bytes(link_header, at)
        self.write_bytes(operation.data, operation.length)
        self.count.written += 1

    cdef void write_bytes(self, const void *data, size_t size) noexcept nogil:
        if size and not self.write_error and fwrite_unlocked(data, 1, size, self.target) != size:
            self.write_error = errno if errno else EIO


cdef void release(CaptureLoop self):
    cdef Held *held
    cdef int bucket
    for bucket in range(HELD_BUCKETS):
        while self.held[bucket] != NULL:
            held = self.held[bucket]
            self.held[bucket] = held.next
            free(held)
    if self.dumper != NULL:
        pcap_dump_close(self.dumper)                   # closes the output file as well
        self.dumper = NULL
        self.target = NULL
    if self.source != NULL:
        pcap_close(self.source)
        self.source = NULL
    self.frame.data = NULL
    free(self.buffers)
    self.buffers = NULL
    free(self.arena)
    self.arena = NULL
    self.arena_size = 0
