# The capture driver's loop: reads one capture file, writes at most one, drives one core.
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
        suseconds_t tv_usec    # nanoseconds if the capture file was opened for them, else microseconds
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

# A pcap file's header before each frame: its time (`fraction` in the file's precision), its captured and wire length.
cdef struct RecordHeader:
    uint32_t seconds
    uint32_t fraction
    uint32_t captured
    uint32_t length

# A frame kept until the core answers its packet; the frame's bytes follow this header.
cdef struct Held:
    Held *next
    uint64_t id
    Frame frame
    uint8_t data[0]

cdef enum:
    HELD_BUCKETS = 1024

cdef struct Counters:
    uint64_t packets           # frames read from the capture file
    uint64_t bytes             # bytes of the frames read, as they were on the wire
    uint64_t not_ip            # frames written unchanged: they hold no IP packet, or the link type is not understood
    uint64_t truncated         # frames cut by the capture's snap length
    uint64_t checksum_partial  # packets captured before the network card filled in their TCP checksum
    uint64_t clock_back        # frames whose time is earlier than that of a frame before them
    uint64_t accepted
    uint64_t replaced
    uint64_t dropped
    uint64_t emitted
    uint64_t held              # packets held at the moment: the core has not answered them yet
    uint64_t expired           # times the core's timers were run because one was due
    uint64_t written           # frames written to the output file
    uint64_t internal_errors   # answers for unknown packets, and packets not kept for want of memory


@cython.final
cdef class CaptureLoop:
    cdef Engine engine
    cdef Core *core            # the core that decides packets; NULL: every packet is accepted
    cdef pcap_t *source
    cdef pcap_dumper_t *dumper  # libpcap's writer of the output file; NULL: no output file
    cdef FILE *target          # the output file; closed with `dumper`
    cdef char *buffers         # stdio buffers of both files, the input's first
    cdef int link
    cdef uint32_t units        # the unit of fractions of a second in the capture: 1000000 or 1000000000 per second
    cdef int stopped
    cdef int ended             # 1: the input file has been read to its end
    cdef readonly int write_error   # errno of the failed write that ended the run; 0: none
    cdef readonly str read_error    # libpcap's message where reading failed before the file's end
    cdef Operations operations
    cdef Counters count
    cdef uint64_t now          # the latest time given to the core, in nanoseconds
    cdef RecordHeader header   # time and lengths of the frame being processed, as read from the file
    cdef Frame frame
    cdef uint64_t id           # number of the packet being processed
    cdef bint answered
    cdef uint8_t *arena        # copy of the packet being processed, which the core may edit
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
