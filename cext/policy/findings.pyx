# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Findings: counted, reported to the ring buffer of records, and answered with the policy's action.

Promises: a finding's action comes from the policy and from nowhere else; nothing is carried out where the policy is not
applied (invariant 5). Does not know lines, packets or flows.
"""

from nfmailguard.cext.policy.numbers cimport STREAM_MEMORY_LIMIT
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.policy.tally cimport (
    TALLY_KINDS, TALLY_NONE, TALLY_UNTOLD, is_told, last_told, tally_add, tally_count,
)
from nfmailguard.cext.record cimport RECORD_FINDING, RECORD_REPEATED, Record, record_text, ring_push
from nfmailguard.cext.smtp.session cimport HYPOTHETICAL


cdef void tell(Context *context, uint8_t finding, uint32_t number, bint to_server, uint8_t verb, uint64_t offset,
               Shown bytes) noexcept nogil:
    cdef Record *record = reserve_record(context, RECORD_FINDING)
    if record == NULL:
        return
    record.to_server = to_server
    record.state = context.session.state
    record.verb = verb
    record.finding = finding
    record.action = context.policy.action[finding]
    record.hypothetical = context.session.marks & HYPOTHETICAL != 0
    record.applied = applies(context.policy)
    record.a = offset
    record.b = number
    record_text(record, bytes.before, bytes.before_length, False)
    record_text(record, bytes.after, bytes.after_length, True)
    ring_push(context.ring)


cdef uint8_t report_shown(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                          Shown bytes) noexcept nogil:
    cdef uint8_t action = context.policy.action[finding]
    cdef uint32_t number = context.number
    if action == ACTION_PASS:
        return ACTION_PASS
    context.finding_counts[finding] += 1
    if to_server:
        note_found(context.session, finding)
    if number == TALLY_NONE:
        number = tally_add(&context.session.tally, context.line_pool.pool, finding)
        if is_told(number, context.policy.findings_told):
            tell(context, finding, number, to_server, verb, offset, bytes)
        else:
            context.repeated[0] += 1
    elif number == TALLY_UNTOLD:
        context.repeated[0] += 1
    else:
        tell(context, finding, number, to_server, verb, offset, bytes)
    return carried_out(context, action)


cdef void report_repeated(Context *context) noexcept nogil:
    cdef Record *record
    cdef uint32_t count
    cdef uint8_t finding
    for finding in range(1, TALLY_KINDS):
        count = tally_count(&context.session.tally, finding)
        if count == last_told(count, context.policy.findings_told):
            continue
        record = reserve_record(context, RECORD_REPEATED)
        if record == NULL:
            continue
        record.to_server = 1
        record.state = context.session.state
        record.finding = finding
        record.action = context.policy.action[finding]
        record.hypothetical = context.session.marks & HYPOTHETICAL != 0
        record.applied = applies(context.policy)
        record.b = count
        ring_push(context.ring)


cdef void out_of_memory(Context *context, bint to_server, uint64_t offset) noexcept nogil:
    # ACTION_LOG as a verdict stops the inspection of the flow; the flow itself goes on.
    cdef uint8_t action = report(context, STREAM_MEMORY_LIMIT, to_server, 0, offset)
    context.verdict = action if action > ACTION_LOG else ACTION_LOG
