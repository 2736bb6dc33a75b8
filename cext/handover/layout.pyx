# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Decides which state image fits which core.

Promises: a core whose structures or enumerations are declared in another way, or laid out in another way by its
compiler, has another number; any changed bit changes an image's checksum. FORMAT stands for the meaning of the fields.
"""

from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.core cimport Counters, FlowlessFindings
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.handover.parts cimport CoreState, DialogueParts, FlowParts, HeldPart
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.line cimport Line
from nfmailguard.cext.tcp.stream cimport Held

cdef extern from "bytes.h" nogil:
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *p, size_t length) noexcept

cdef extern from *:
    """
    #ifndef NM_DECLARATIONS
    #error "NM_DECLARATIONS is setup.py's digest of the core's structures"
    #endif
    """
    const char *NM_DECLARATIONS

#: A digest, in hexadecimal, of the structures' declarations that setup.py found.
DECLARATIONS = (<bytes> NM_DECLARATIONS).decode()


cdef uint64_t layout_of_core() noexcept nogil:
    cdef uint64_t[2] key
    cdef uint64_t[10] sizes
    cdef const char *declared = NM_DECLARATIONS
    cdef uint32_t length = 0
    while declared[length]:
        length += 1
    sizes[0] = sizeof(Flow)
    sizes[1] = sizeof(Dialogue)
    sizes[2] = sizeof(Line)
    sizes[3] = sizeof(Held)
    sizes[4] = sizeof(Counters)
    sizes[5] = sizeof(FlowlessFindings)
    sizes[6] = sizeof(CoreState)
    sizes[7] = sizeof(FlowParts) << 32 | sizeof(DialogueParts)
    sizes[8] = sizeof(HeldPart)
    sizes[9] = MOST_FINDINGS
    key[0] = key[1] = 0
    key[0] = nm_siphash(key, <const uint8_t *> declared, length & ~<uint32_t> 7)
    return nm_siphash(key, <const uint8_t *> sizes, sizeof(sizes))


cdef uint64_t checksum_of(const Header *header) noexcept nogil:
    cdef uint64_t[2] key
    key[0] = header.layout
    key[1] = header.length ^ header.format << 48
    return nm_siphash(key, <const uint8_t *> (header + 1), header.length - sizeof(Header))


def layout():
    """The number of this core's layout, as an image's header has it."""
    return layout_of_core()
