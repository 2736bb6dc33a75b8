# Findings: the context in which bytes are decided, and how a finding is reported and turned into an action.
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_DROP_CONNECTION, ACTION_LOG, ACTION_PASS, COMMAND_TOO_MANY_JUNK, NOT_AGAIN, UNTOLD,
    VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies
from nfmailguard.cext.policy.tally cimport tally_repeat, tally_repeats, tally_repeats_next, tally_untold
from nfmailguard.cext.record cimport Identity, Record, Ring, record_reserve
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.smtp.line cimport LinePool
from nfmailguard.cext.smtp.session cimport Session, add_junk, clear_junk, note_found, note_hypothetical

# What the engine passes to the SMTP code for one call; `edits`, `verdict` and `not_smtp` are its results.
cdef struct Context:
    Grammar *grammar
    CompiledPolicy *policy
    Ring *ring
    LinePool *line_pool
    Identity *identity
    Session *session
    uint64_t *finding_counts
    uint64_t *repeated         # engine counter: findings that were counted but not logged
    uint64_t *omitted          # engine counter: command and reply records left out in flows with too many junk commands
    uint64_t now
    const uint8_t *data        # the `length` bytes to decide
    uint8_t *original          # buffer for a copy of `data` as received, filled before its first byte is changed
    uint32_t length
    uint32_t number            # the finding's number where no flow has a tally; TALLY_NONE: the flow's tally gives it
    uint32_t edits             # bytes changed; in monitor mode, bytes that would have been changed
    uint8_t verdict            # ACTION_PASS, or the action that ends the flow (ACTION_LOG: only its inspection)
    uint8_t not_smtp
    uint8_t untold             # UNTOLD once the flow exceeds its junk-command limit: its commands are no longer logged
    uint8_t already_forwarded  # the bytes were forwarded before they were decided, so none of them can be made to wait

# The bytes that an event shows for a finding: as received, and as forwarded.
cdef struct Shown:
    const uint8_t *before
    const uint8_t *after
    uint32_t before_length
    uint32_t after_length

cdef inline Shown shown(const uint8_t *before, uint32_t before_length, const uint8_t *after,
                        uint32_t after_length) noexcept nogil:
    cdef Shown bytes
    bytes.before = before
    bytes.before_length = before_length
    bytes.after = after
    bytes.after_length = after_length
    return bytes

# Reserves a record in the ring buffer (as record_reserve) and notes which generation of rules it refers to.
cdef inline Record *reserve_record(Context *context, uint8_t kind) noexcept nogil:
    cdef Record *record = record_reserve(context.ring, kind, context.identity, context.now)
    if record != NULL:
        record.generation = context.policy.generation
    return record

# No memory is left to follow this dialogue: reports stream.memory_limit; its action is put in context.verdict.
cdef void out_of_memory(Context *context, bint to_server, uint64_t offset) noexcept nogil

# Counts a junk command (one that was answered but led to no recipient, chunk or message); above the policy's limit, the
# flow is reported.
cdef inline void note_junk(Context *context, uint64_t offset) noexcept nogil:
    if not context.untold:
        if add_junk(context.session) > context.policy.junk_commands:
            context.untold = UNTOLD
            report(context, COMMAND_TOO_MANY_JUNK, False, VERB_UNKNOWN, offset)

# Reports a finding, with the bytes that its event shows, and returns the action to carry out: ACTION_PASS where the
# policy is not applied (monitor, --dry-run). An action that ends the flow is also stored in context.verdict.
cdef uint8_t report_shown(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                          Shown bytes) noexcept nogil

# Reports a finding whose event shows no bytes.
cdef inline uint8_t report(Context *context, uint8_t finding, bint to_server, uint8_t verb,
                           uint64_t offset) noexcept nogil:
    return report_shown(context, finding, to_server, verb, offset, shown(NULL, 0, NULL, 0))

# At a flow's end: logs how many findings of a kind there were, for each kind of which some were not logged.
cdef void report_repeated(Context *context) noexcept nogil

# The action to carry out for a finding: ACTION_PASS where the policy is not applied. An action that ends the flow is
# also stored in context.verdict.
cdef inline uint8_t carried_out(Context *context, uint8_t action) noexcept nogil:
    if not applies(context.policy):
        # Enforce would have changed the dialogue here: later findings of this flow are marked hypothetical.
        note_hypothetical(context.session, action != ACTION_LOG)
        return ACTION_PASS
    if action >= ACTION_DROP_CONNECTION:
        context.verdict = action
    return action

# A quick form of `report` for a finding that repeats and need not be logged, so that the caller need not prepare what
# its event would show. Returns NOT_AGAIN, and counts nothing, if the finding has to be logged.
cdef inline uint8_t again(Context *context, uint8_t finding, bint to_server) noexcept nogil:
    cdef uint8_t action = context.policy.action[finding]
    if action == ACTION_PASS:
        return ACTION_PASS
    if not tally_repeats(&context.session.tally, finding, context.policy.findings_told):
        return NOT_AGAIN
    context.finding_counts[finding] += 1
    context.repeated[0] += 1
    if to_server:
        note_found(context.session, finding)
    return carried_out(context, action)

# Whether `number` more findings of a kind would neither be logged nor drop or end anything: `repeat` may count them.
cdef inline bint quiet(Context *context, uint8_t finding, uint32_t number) noexcept nogil:
    cdef uint8_t action = context.policy.action[finding]
    if number == 1:
        return action == ACTION_PASS or (action < ACTION_DROP and tally_repeats_next(
            &context.session.tally, finding, context.policy.findings_told))
    return action == ACTION_PASS or (action < ACTION_DROP and tally_untold(
        &context.session.tally, finding, context.policy.findings_told) >= number)

cdef inline void repeat(Context *context, uint8_t finding, uint32_t number, bint to_server) noexcept nogil:
    if context.policy.action[finding] == ACTION_PASS:
        return
    tally_repeat(&context.session.tally, finding, number)
    context.finding_counts[finding] += number
    context.repeated[0] += number
    if to_server:
        note_found(context.session, finding)
    carried_out(context, context.policy.action[finding])

# Called before a byte is changed: keeps the original bytes, and counts one changed byte.
cdef inline void note_change(Context *context) noexcept nogil:
    keep_original(context)
    context.edits += 1

# Called before several bytes are changed: keeps the original bytes; note_changes then says how many were changed.
cdef inline void keep_original(Context *context) noexcept nogil:
    if context.edits == 0 and context.length:
        memcpy(context.original, context.data, context.length)

cdef inline void note_changes(Context *context, uint32_t number) noexcept nogil:
    context.edits += number

# Sets the count of changed bytes back to `edits`: the changes since then were made to bytes that are not forwarded.
cdef inline void forget_changes(Context *context, uint32_t edits) noexcept nogil:
    context.edits = edits

# Ends the flow, or its inspection, whatever action any finding has.
cdef inline void decide_flow(Context *context, uint8_t verdict) noexcept nogil:
    context.verdict = verdict

# Counts command and reply records that are left out.
cdef inline void omit_records(Context *context, uint64_t number) noexcept nogil:
    context.omitted[0] += number

# A message was accepted: the count of junk commands begins anew, and commands are logged again.
cdef inline void forget_junk(Context *context) noexcept nogil:
    clear_junk(context.session)
    context.untold = 0

cdef inline void note_not_smtp(Context *context) noexcept nogil:
    context.not_smtp = 1
