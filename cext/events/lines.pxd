# Turns records into event lines; the same as events/eve.py.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nfmailguard.cext.events.allowance cimport Allowance
from nfmailguard.cext.events.buffer cimport Buffer
from nfmailguard.cext.events.clock cimport Clock
from nfmailguard.cext.events.session cimport Sessions
from nfmailguard.cext.events.transactions cimport Meaning
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS, MOST_VERBS
from nfmailguard.cext.record cimport Record

cdef enum:
    LONGEST_NAME = 60          # bytes of the longest name of a finding
    MOST_NAMES = 16            # most names of actions, of states, and of ends of flows
    ALERTS = 2 * MOST_NAMES * MOST_FINDINGS
    RULES_NUMBERED = 16384     # most rules in all generations: MOST_GENERATIONS * MOST_RULES

# A piece of text that another object owns; it is not moved while it is in use.
cdef struct Word:
    const uint8_t *data
    uint32_t length

# The names behind the numbers in records, each as it is written into a line.
cdef struct Names:
    Word rule[RULES_NUMBERED]  # a rule's mode and profile, by generation * MOST_RULES + rule
    Word finding[MOST_FINDINGS]
    Word action[MOST_NAMES]
    Word state[MOST_NAMES]
    Word verb[MOST_VERBS]
    Word flow_state[MOST_NAMES]    # by FlowEnd: the text from "state" up to "alerted":
    Word ended[MOST_NAMES]         # by FlowEnd: the text after SMTP's state, up to the object's end
    Word alert[ALERTS]             # the alert object as text, by (finding * MOST_NAMES + action) * 2 + applied

# Outcomes by which mails are counted.
cdef enum:
    MAIL_ACCEPTED = 0
    MAIL_REFUSED
    MAIL_UNANSWERED
    OUTCOMES

# The state of one queue's event writer; it turns records into lines, which collect in `out`.
cdef struct Writing:
    Buffer out
    uint64_t lines             # event lines in `out`
    uint64_t lost              # lines for which there was no memory
    uint64_t mails[OUTCOMES]
    uint64_t engine            # the engine's number, shifted to its bits in a flow_id
    uint8_t alerts             # 1: each finding is also written as an `alert` event
    uint8_t native             # 1: SHA-1 uses the processor's instructions
    Clock clock
    Names names
    Meaning meaning
    Sessions sessions
    Allowance allowance

# Appends the event lines that a record causes.
cdef void write_record(Writing *writing, const Record *record) noexcept nogil
# Appends the line that reports withheld lines; they then count as reported.
cdef void write_withheld(Writing *writing, uint64_t now) noexcept nogil
