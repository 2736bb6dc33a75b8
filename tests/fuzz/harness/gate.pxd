# One core between a sender and a receiver, every answer checked.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.core cimport Core

cdef enum:
    MOST_SETTINGS = 24
    MOST_PROFILES = 4
    MOST_PACKETS = 256         # in one execution; more are not sent
    MOST_BYTES = 1 << 18      # of them together

cdef enum:
    SECOND = 1000000000

# What leaves towards one side: an accepted packet as it came, or what replaced it. `tag` is the sender's.
ctypedef void (*Deliver)(uint32_t tag, bint to_server, const uint8_t *packet, uint32_t length) noexcept nogil

# A packet about to be queued. `length`: octets on the wire, of which `captured` are here.
cdef struct Sent:
    const uint8_t *data
    uint32_t captured
    uint32_t length
    uint32_t flags             # PacketFlag
    uint32_t in_interface
    uint32_t out_interface
    uint32_t tag
    uint8_t to_server          # which side the sender means it for

# Begins an execution under a setting (modulo their number).
cdef void gate_open(uint32_t setting, Deliver deliver) noexcept nogil
# Whether the setting may change packets: enforce. Otherwise each must pass as it came, at once.
cdef bint gate_changes() noexcept nogil
# Which rules the setting plays by: a number the setting was opened with.
cdef uint32_t gate_profile() noexcept nogil
# Whether the setting lets no flow go on uninspected.
cdef bint gate_inspects_all() noexcept nogil
# 0, or -1 when the execution has sent as many as it may.
cdef int gate_send(const Sent *sent) noexcept nogil
# Time goes on, in nanoseconds; what it brings about is carried out.
cdef void gate_wait(uint64_t nanoseconds) noexcept nogil
# To the core's next deadline, if there is one.
cdef void gate_expire() noexcept nogil
# Flows the core has let pass uninspected in this execution.
cdef uint64_t gate_passed() noexcept nogil
# Ends the execution: nothing may be left of it in the core.
cdef void gate_close() noexcept nogil
