# Records to lines: events/eve.py.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nfmailguard.cext.events.allowance cimport Allowance
from nfmailguard.cext.events.buffer cimport Buffer
from nfmailguard.cext.events.clock cimport Clock
from nfmailguard.cext.events.session cimport Sessions
from nfmailguard.cext.events.transactions cimport Meaning
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS, MOST_VERBS
from nfmailguard.cext.record cimport Record

cdef enum:
    LONGEST_NAME = 60          # octets of a finding's
    MOST_NAMES = 16            # of actions, states and ends of flows
    ALERTS = 2 * MOST_NAMES * MOST_FINDINGS
    RULES_NUMBERED = 16384     # MOST_GENERATIONS * MOST_RULES

# Octets that are somebody else's, and stay where they are.
cdef struct Word:
    const uint8_t *data
    uint32_t length

# What the numbers in records are called, each as it stands within a line.
cdef struct Names:
    Word rule[RULES_NUMBERED]  # by generation * MOST_RULES + rule: mode and profile
    Word finding[MOST_FINDINGS]
    Word action[MOST_NAMES]
    Word state[MOST_NAMES]
    Word verb[MOST_VERBS]
    Word flow_state[MOST_NAMES]    # by FlowEnd: from "state" up to "alerted":, and
    Word ended[MOST_NAMES]         # from behind the state of SMTP to the end of the object
    Word alert[ALERTS]             # by (finding * MOST_NAMES + action) * 2 + applied: the whole object

cdef enum:  # Outcome: the counter of a mail
    MAIL_ACCEPTED = 0
    MAIL_REFUSED
    MAIL_UNANSWERED
    OUTCOMES

# A queue's events on their way from records to lines, which are collected in `out`.
cdef struct Writing:
    Buffer out
    uint64_t lines             # in `out`
    uint64_t lost              # for which there was no memory
    uint64_t mails[OUTCOMES]
    uint64_t engine            # the bits of its number in a flow's
    uint8_t alerts             # each finding a second time, as an alert
    uint8_t native             # SHA-1 by the processor
    Clock clock
    Names names
    Meaning meaning
    Sessions sessions
    Allowance allowance

# Appends what is written of a record.
cdef void write_record(Writing *writing, const Record *record) noexcept nogil
# Appends what was withheld and not told: allowance_told then.
cdef void write_withheld(Writing *writing, uint64_t now) noexcept nogil
