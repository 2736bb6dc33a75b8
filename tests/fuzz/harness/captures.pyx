# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Target ``captures``: octets as a capture file, read, inspected and written by the capture driver.

The first octet chooses the setting and the precision of times; the rest is the file. Files
stay in memory. Asserts that the driver's counters add up, that the output is a capture with as
many frames as were counted, that nothing of it is left in the core, and, where no ruling
applies, that the output's frames are the input's, as libpcap reads them. Does not know
link layers, nor what the core decides.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport _IOFBF, FILE, fclose, ftell, setvbuf
from libc.string cimport memcmp, memcpy

from nfmailguard.cext.drivers.capture cimport (
    PCAP_ERRBUF_SIZE, PCAP_TSTAMP_PRECISION_MICRO, PCAP_TSTAMP_PRECISION_NANO, CaptureLoop, Counters, RecordHeader,
    pcap_close, pcap_datalink, pcap_dump_fopen, pcap_fopen_offline_with_tstamp_precision, pcap_next_ex, pcap_pkthdr,
    pcap_t,
)
from nfmailguard.cext.engine cimport Engine
from tests.fuzz.harness.fuzzer cimport violation

cdef extern from "<stdio.h>" nogil:
    FILE *fmemopen(void *buffer, size_t size, const char *mode)

cdef enum:
    FILE_HEADER = 24
    MOST_OUTPUT = 1 << 21
    MOST_FRAMES = 512
    STDIO_BUFFER = 1 << 14

cdef list settings = []                    # (Engine or None, whether it changes)
cdef uint8_t output[MOST_OUTPUT]
cdef char source_buffer[STDIO_BUFFER]
cdef char target_buffer[STDIO_BUFFER]


def add_setting(engine, bint changes):
    """One more setting; ``engine`` None accepts everything without a core."""
    settings.append((engine, changes))


def clear_settings():
    """Forgets every setting and its engine."""
    settings.clear()


cdef void check_counters(const Counters *count, bint core, bint changes) noexcept nogil:
    if count.packets != count.not_ip + count.accepted + count.replaced + count.dropped:
        violation("1 a frame", "without an answer", <long> count.packets, <long> count.held)
    if count.written != count.not_ip + count.accepted + count.replaced + count.emitted:
        violation("1 a frame", "let through and not written", <long> count.written, <long> count.packets)
    if count.held or count.internal_errors:
        violation("1 a frame", "held after the end, or answered without being held", <long> count.held,
                  <long> count.internal_errors)
    if not changes and (count.replaced or count.dropped or count.emitted):
        violation("5 monitor", "frames did not pass as they came", <long> count.replaced, <long> count.dropped)


cdef void check_left(Engine engine) noexcept:
    if engine.core.flows.count or engine.core.counters.held_now:
        violation("6 flows", "are left after the end", engine.core.flows.count, <long> engine.core.counters.held_now)
    engine.expire(0)                               # what was lent until the next call comes back
    if engine.core.pool.used:
        violation("6 memory", "is left after the end", <long> engine.core.pool.used, 0)


cdef void check_output(const uint8_t *data, size_t size, long length, bint nanoseconds, uint64_t written,
                       bint same) noexcept nogil:
    """Reads the output, and beside it the input where both must have the same frames."""
    cdef char error[PCAP_ERRBUF_SIZE]
    cdef long at = FILE_HEADER
    cdef pcap_t *source = NULL
    cdef pcap_pkthdr *expected
    cdef const uint8_t *octets
    cdef const uint8_t *frame
    cdef RecordHeader header
    cdef FILE *file
    if same:
        file = fmemopen(<void *> data, size, "rb")
        source = pcap_fopen_offline_with_tstamp_precision(
            file, PCAP_TSTAMP_PRECISION_NANO if nanoseconds else PCAP_TSTAMP_PRECISION_MICRO, error)
        if source == NULL:
            violation("5 a capture", "opened once and not twice", 0, 0)
            fclose(file)
            return
    while at + <long> sizeof(RecordHeader) <= length and written:
        memcpy(&header, output + at, sizeof(header))
        frame = output + at + sizeof(header)
        at += sizeof(header) + header.captured
        written -= 1
        if not same:
            continue
        if pcap_next_ex(source, &expected, &octets) != 1 or at > length:
            violation("5 a frame", "came from nowhere", at, length)
            break
        if (header.captured != expected.caplen or header.length != expected.len
                or header.seconds != <uint32_t> expected.ts.tv_sec
                or header.fraction != <uint32_t> expected.ts.tv_usec
                or memcmp(frame, octets, header.captured) != 0):
            violation("5 a frame", "was not written as it came", at, header.captured)
            break
    if source != NULL:
        pcap_close(source)
    if written or at != length:
        violation("8 the output", "does not hold the frames that were counted", <long> written, at - length)


cdef int run(const uint8_t *data, size_t size) noexcept with gil:
    if size < 2:
        return 0
    try:
        replay_capture(data, size)
    except Exception as error:
        words = f"{type(error).__name__}: {error}".encode()
        violation("7 the driver raised", words, 0, 0)
    return 0


cdef int open_in_memory(CaptureLoop loop, const uint8_t *data, size_t size, bint nanoseconds) noexcept:
    """What ``open_input`` and ``open_output`` do, without files and their large buffers; -1: no capture."""
    cdef char error[PCAP_ERRBUF_SIZE]
    cdef FILE *file = fmemopen(<void *> data, size, "rb")
    setvbuf(file, source_buffer, _IOFBF, STDIO_BUFFER)
    loop.source = pcap_fopen_offline_with_tstamp_precision(
        file, PCAP_TSTAMP_PRECISION_NANO if nanoseconds else PCAP_TSTAMP_PRECISION_MICRO, error)
    if loop.source == NULL:
        fclose(file)
        return -1
    loop.link = pcap_datalink(loop.source)
    loop.units = 1000000000 if nanoseconds else 1000000
    loop.target = fmemopen(output, MOST_OUTPUT, "wb")
    setvbuf(loop.target, target_buffer, _IOFBF, STDIO_BUFFER)
    loop.dumper = pcap_dump_fopen(loop.source, loop.target)
    if loop.dumper == NULL:
        fclose(loop.target)
        loop.target = NULL
        return -1
    return 0


cdef int replay_capture(const uint8_t *data, size_t size) except -1:
    cdef bint changes
    cdef bint nanoseconds = data[0] & 1
    cdef CaptureLoop loop
    engine, changes = settings[(data[0] >> 1) % len(settings)]
    data += 1
    size -= 1
    loop = CaptureLoop(engine)
    if open_in_memory(loop, data, size, nanoseconds) < 0:
        loop.close()                               # no capture
        return 0
    if engine is not None:
        (<Engine> engine).core.ring.head = (<Engine> engine).core.ring.tail = 0
    loop.step(MOST_FRAMES)
    loop.finish()
    check_counters(&loop.count, engine is not None, changes)
    if engine is not None:
        check_left(engine)
    check_output(data, size, ftell(loop.target), nanoseconds, loop.count.written, not changes)
    loop.close()
    return 0


TARGET = <size_t> &run
