# Findings: the context of a decision, and what the policy says of a finding.
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

# What the engine lends for one call; `edits` and `verdict` are the answer.
cdef struct Context:
    Grammar *grammar
    CompiledPolicy *policy
    Ring *ring
    LinePool *line_pool
    Identity *identity
    Session *session
    uint64_t *finding_counts
    uint64_t *repeated         # counts the findings that are not told
    uint64_t *omitted          # counts the records that are not made any more, for so many of them
    uint64_t now
    const uint8_t *data        # the `length` octets to decide
    uint8_t *original          # room for them as they came; filled when the first is changed
    uint32_t length
    uint32_t number            # of the finding to be reported, where no flow has a tally; or TALLY_NONE
    uint32_t edits             # octets changed, or that would have been
    uint8_t verdict            # ACTION_PASS, or the action that ends the flow
    uint8_t not_smtp
    uint8_t untold             # UNTOLD where it is more than the policy's limit, as then of any command
    uint8_t already_forwarded  # the octets have left already: not one is decided that should have waited

# What an event shows of a finding: bytes as they came, and as they leave.
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

# As record_reserve, with the generation whose rules are meant.
cdef inline Record *reserve_record(Context *context, uint8_t kind) noexcept nogil:
    cdef Record *record = record_reserve(context.ring, kind, context.identity, context.now)
    if record != NULL:
        record.generation = context.policy.generation
    return record

# No memory for what has to be remembered of a dialogue: the policy's word is in context.verdict.
cdef void out_of_memory(Context *context, bint to_server, uint64_t offset) noexcept nogil

# A command has been answered, and led to nothing.
cdef inline void note_junk(Context *context, uint64_t offset) noexcept nogil:
    if not context.untold:
        if add_junk(context.session) > context.policy.junk_commands:
            context.untold = UNTOLD
            report(context, COMMAND_TOO_MANY_JUNK, False, VERB_UNKNOWN, offset)

# Reports a finding and returns the action to carry out: ACTION_PASS when not applied. An action
# that ends the flow also stands in context.verdict.
cdef uint8_t report_shown(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                          Shown bytes) noexcept nogil

# The same, with no bytes to show.
cdef inline uint8_t report(Context *context, uint8_t finding, bint to_server, uint8_t verb,
                           uint64_t offset) noexcept nogil:
    return report_shown(context, finding, to_server, verb, offset, shown(NULL, 0, NULL, 0))

# At a flow's end: of each kind of which there were more than has been told, how many.
cdef void report_repeated(Context *context) noexcept nogil

# What becomes of a finding's octets: ACTION_PASS when not applied. One that ends the flow is the verdict.
cdef inline uint8_t carried_out(Context *context, uint8_t action) noexcept nogil:
    if not applies(context.policy):
        # What enforce would have done sends the dialogue another way from here on.
        note_hypothetical(context.session, action != ACTION_LOG)
        return ACTION_PASS
    if action >= ACTION_DROP_CONNECTION:
        context.verdict = action
    return action

# As `report`, for a finding that repeats and is not told: nobody need make up what it would say. Any
# other it leaves alone, and is NOT_AGAIN.
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

# Whether so many more findings of a kind are told nobody and end nothing: `repeat` may count them.
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

# Before an octet is changed.
cdef inline void note_change(Context *context) noexcept nogil:
    keep_original(context)
    context.edits += 1

# Before any of many is; how many were is told then.
cdef inline void keep_original(Context *context) noexcept nogil:
    if context.edits == 0 and context.length:
        memcpy(context.original, context.data, context.length)

cdef inline void note_changes(Context *context, uint32_t number) noexcept nogil:
    context.edits += number

# What has been changed since there were so many was not what is to leave.
cdef inline void forget_changes(Context *context, uint32_t edits) noexcept nogil:
    context.edits = edits

# The flow ends, or is not looked at any more, whatever a finding's action is.
cdef inline void decide_flow(Context *context, uint8_t verdict) noexcept nogil:
    context.verdict = verdict

# So many records are not made any more.
cdef inline void omit_records(Context *context, uint64_t number) noexcept nogil:
    context.omitted[0] += number

# A message was accepted: what led to nothing before it does not count.
cdef inline void forget_junk(Context *context) noexcept nogil:
    clear_junk(context.session)
    context.untold = 0

cdef inline void note_not_smtp(Context *context) noexcept nogil:
    context.not_smtp = 1
