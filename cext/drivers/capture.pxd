# The capture driver's loop: one capture file in, at most one out, one core.
cimport cython
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdio cimport FILE
from posix.types cimport suseconds_t, time_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.drivers.frame cimport Frame
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.operation cimport Operation, Operations

cdef extern from "<pcap/pcap.h>" nogil:
    enum:
        PCAP_ERRBUF_SIZE
        PCAP_ERROR_BREAK
        PCAP_TSTAMP_PRECISION_MICRO
        PCAP_TSTAMP_PRECISION_NANO
    ctypedef struct pcap_t:
        pass
    ctypedef struct pcap_dumper_t:
        pass
    cdef struct timeval:
        time_t tv_sec
        suseconds_t tv_usec    # nanoseconds where they were asked for
    cdef struct pcap_pkthdr:
        timeval ts
        uint32_t caplen
        uint32_t len
    pcap_t *pcap_fopen_offline_with_tstamp_precision(FILE *file, unsigned int precision, char *error)
    int pcap_next_ex(pcap_t *source, pcap_pkthdr **header, const uint8_t **data)
    int pcap_datalink(pcap_t *source)
    char *pcap_geterr(pcap_t *source)
    void pcap_close(pcap_t *source)
    pcap_dumper_t *pcap_dump_fopen(pcap_t *source, FILE *file)
    void pcap_dump_close(pcap_dumper_t *dumper)

# Before each packet of a capture file stands its time, in the file's precision, and both lengths.
cdef struct RecordHeader:
    uint32_t seconds
    uint32_t fraction
    uint32_t captured
    uint32_t length

# A frame kept until its packet's operation comes; the octets follow.
cdef struct Held:
    Held *next
    uint64_t id
    Frame frame
    uint8_t data[0]

cdef enum:
    HELD_BUCKETS = 1024

cdef struct Counters:
    uint64_t packets           # frames read
    uint64_t bytes             # of those, on the wire
    uint64_t not_ip            # written as they came: no IP packet, or a link type not understood
    uint64_t truncated         # cut by the capture's snap length
    uint64_t checksum_partial  # captured before the network card filled in the checksum
    uint64_t clock_back        # older than a packet before them
    uint64_t accepted
    uint64_t replaced
    uint64_t dropped
    uint64_t emitted
    uint64_t held              # now
    uint64_t expired           # calls of core_expire
    uint64_t written           # frames in the output
    uint64_t internal_errors   # operations for packets that are not there, or no memory to hold one


@cython.final
cdef class CaptureLoop:
    cdef Engine engine
    cdef Core *core            # NULL: accept everything
    cdef pcap_t *source
    cdef pcap_dumper_t *dumper  # NULL: nothing is written
    cdef FILE *target          # the dumper's
    cdef char *buffers         # of both files
    cdef int link
    cdef uint32_t units        # of the fraction of a second, in a second
    cdef int stopped
    cdef int ended             # the input's end is reached
    cdef readonly int write_error   # errno that ended the writing
    cdef readonly str read_error    # libpcap's words on what ended the reading before the file's end
    cdef Operations operations
    cdef Counters count
    cdef uint64_t now          # the latest the core was given
    cdef RecordHeader header   # the packet at work, as it stands in the file
    cdef Frame frame
    cdef uint64_t id           # of the packet at work
    cdef bint answered
    cdef uint8_t *arena        # its IP packet, for the core to edit
    cdef uint32_t arena_size
    cdef Held *held[HELD_BUCKETS]

    cdef int loop(self, uint64_t most, bint leave_room) noexcept nogil
    cdef void take(self) noexcept nogil
    cdef void inspect(self, uint64_t now) noexcept nogil
    cdef void expire_until(self, uint64_t now) noexcept nogil
    cdef void carry_out(self) noexcept nogil
    cdef void apply(self, const Operation *operation) noexcept nogil
    cdef void hold(self) noexcept nogil
    cdef Held *take_held(self, uint64_t id) noexcept nogil
    cdef void stamp(self, RecordHeader *header) noexcept nogil
    cdef void write_frame(self, RecordHeader *header, const Frame *frame, const Operation *operation) noexcept nogil
    cdef void write_new(self, const Operation *operation) noexcept nogil
    cdef void write_bytes(self, const void *data, size_t size) noexcept nogil
    cdef bint finish_core(self, bint leave_room) noexcept nogil
