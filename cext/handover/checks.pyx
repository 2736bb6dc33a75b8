# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Checks of a state image: whether its fields have values that the core could have written.

Promises: after these checks no index, length, shift or pointer of the core leaves its bounds. They do not show that
the state was ever real: an image that lets everything pass is accepted, and whoever hands it over is trusted that
far. Does not know how an image is read.
"""

from nfmailguard.cext.flow.table cimport FLOW_RESET, FLOW_STATES
from nfmailguard.cext.memory.pool cimport PAGE_BYTES
from nfmailguard.cext.policy.numbers cimport DATA_DOTS, UNTOLD
from nfmailguard.cext.policy.tally cimport TALLY_KINDS
from nfmailguard.cext.record cimport END_FINISHED
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, PHASE_SASL, PHASE_START, PHASE_VERB
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE
from nfmailguard.cext.smtp.outstanding cimport Exchange, ring_of, ring_size
from nfmailguard.cext.smtp.runs cimport MASK_NOOP
from nfmailguard.cext.smtp.session cimport ASKED_DOUBT, Session
from nfmailguard.cext.tcp.stream cimport MOST_EDITS
from nfmailguard.cext.wire.options cimport MOST_SCALE
from nfmailguard.cext.wire.packet cimport MOST_PAYLOAD, nm_seq_diff

cdef enum:
    MOST_STATES = 16           # number of states that Grammar.next_state has room for
    FIRST_PAGES = 4            # pages of a new ring of pages
    # Most bytes a segment can be ahead of the next one expected: no window is larger (RFC 7323 2.3).
    FARTHEST = 1 << 30
    TALLY_BITS = 21            # bits of the tally's word for one kind of finding: see policy.tally
    TALLY_COUNT_BITS = 15
    TALLY_FEW = 3


cdef inline bint is_power_of_two(uint32_t number) noexcept nogil:
    return number != 0 and number & (number - 1) == 0


cdef bint ring_fits(uint32_t capacity, uint64_t length, uint32_t offset) noexcept nogil:
    cdef uint64_t pages = (offset + length + PAGE_BYTES - 1) // PAGE_BYTES if length else 0
    if offset >= PAGE_BYTES or length > FARTHEST or (length == 0 and (capacity or offset)):
        return False
    if capacity == 0:
        return pages <= 1
    return is_power_of_two(capacity) and FIRST_PAGES <= capacity and pages <= capacity <= FARTHEST // PAGE_BYTES


cdef bint stream_fits(const Stream *stream, uint32_t ring) noexcept nogil:
    cdef uint32_t unacked = stream.unacked.length
    return (ring_fits(ring, unacked, stream.unacked.offset) and stream.unacked.ringed == (ring != 0)
            and (unacked == 0 or unacked == stream.next_seq - stream.last_ack) and stream.scale <= MOST_SCALE)


cdef bint word_fits(uint64_t word, uint8_t findings) noexcept nogil:
    # Checks a tally whose counts are in the word itself.
    cdef int i
    cdef uint32_t one
    if word and not word & 1:
        return False                               # the tally's word is even, so it would be taken for an address
    for i in range(TALLY_FEW):
        one = <uint32_t> (word >> (1 + TALLY_BITS * i)) & ((1 << TALLY_BITS) - 1)
        if one >> TALLY_COUNT_BITS >= findings:
            return False
    return True


cdef bint tally_fits(const uint32_t *counts, uint8_t findings) noexcept nogil:
    cdef uint32_t kind
    for kind in range(findings, TALLY_KINDS):
        if counts[kind]:
            return False
    return True


cdef bint flow_fits(const Flow *flow, const FlowParts *parts, uint8_t states, uint8_t findings) noexcept nogil:
    cdef const Session *session = &flow.session
    cdef int i
    for i in range(2):
        if not stream_fits(&flow.stream[i], parts.ring[i]) or parts.edits[i] > MOST_EDITS:
            return False
    return ((flow.identity.family == 4 or flow.identity.family == 6) and flow.state < FLOW_STATES
            and flow.mode <= FLOW_RESET and flow.end <= END_FINISHED
            and session.state < states and session.state < MOST_STATES and session.asked <= ASKED_DOUBT
            and word_fits(session.tally.word, findings)
            and (parts.tally == 0 or (parts.tally == 1 and session.tally.word == 0)))


cdef bint dialogue_fits(const Dialogue *dialogue, const DialogueParts *parts, const Grammar *grammar) noexcept nogil:
    cdef const Exchange *exchange = &dialogue.exchange
    cdef bint within = dialogue.command.phase == PHASE_VERB or dialogue.command.phase == PHASE_ARGUMENT
    cdef uint32_t few = sizeof(exchange.few)
    cdef uint32_t room = exchange.capacity if parts.more else few
    # A dialogue keeps its command line while the verb or argument is read; between two lines none is kept.
    if within and not parts.command or dialogue.command.phase == PHASE_START and parts.command:
        return False
    if (dialogue.reply.column != 0) != parts.reply:
        return False
    if parts.more > 1 or (parts.more and exchange.capacity <= few) or (not parts.more and exchange.capacity):
        return False
    return (exchange.count <= room and exchange.first < room and exchange.waiting <= exchange.count
            and dialogue.command.phase <= PHASE_SASL and exchange.input <= INPUT_OPAQUE
            and dialogue.command.mode <= MASK_NOOP and dialogue.text.state <= DATA_DOTS
            and dialogue.command.verb < grammar.verb_count)


cdef bint outstanding_fit(const Dialogue *dialogue, const Grammar *grammar) noexcept nogil:
    cdef const Exchange *exchange = &dialogue.exchange
    cdef uint32_t i, size = ring_size(exchange)
    for i in range(exchange.count):
        if ring_of(exchange)[(exchange.first + i) % size] & ~UNTOLD >= grammar.verb_count:
            return False
    return True


cdef bint edit_fits(const Stream *stream, const Edit *before, const Edit *edit) noexcept nogil:
    if edit.length == 0 or edit.length > MOST_PAYLOAD:
        return False
    if before != NULL and nm_seq_diff(edit.seq, before.seq + before.length) < 0:
        return False
    # No edit (record of changed bytes) is wholly acknowledged; only the last may lie after the bytes that are kept.
    return 0 < nm_seq_diff(edit.seq + edit.length, stream.last_ack) <= FARTHEST + 2 * MOST_PAYLOAD


cdef bint buffered_fits(const Stream *stream, const OutOfOrder *before, uint32_t seq, uint32_t length) noexcept nogil:
    if length == 0 or length > FARTHEST:
        return False
    if before != NULL and nm_seq_diff(seq, before.seq + before.data.length) < 0:
        return False
    return -FARTHEST <= nm_seq_diff(seq, stream.next_seq) <= FARTHEST
