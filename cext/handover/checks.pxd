# Whether what an image says is what the core could have written.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.handover.parts cimport DialogueParts, FlowParts
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.tcp.stream cimport Edit, OutOfOrder, Stream

# The fields of a flow, but for its rule; `states`: how many a session may be in; `findings`: kinds of them there are.
cdef bint flow_fits(const Flow *flow, const FlowParts *parts, uint8_t states, uint8_t findings) noexcept nogil
# How many of each finding there were: of the kinds that there are.
cdef bint tally_fits(const uint32_t *counts, uint8_t findings) noexcept nogil
# The fields of a dialogue, and that it has the lines its phases need.
cdef bint dialogue_fits(const Dialogue *dialogue, const DialogueParts *parts, const Grammar *grammar) noexcept nogil
# The verbs of its outstanding commands, wherever they are.
cdef bint outstanding_fit(const Dialogue *dialogue, const Grammar *grammar) noexcept nogil
# Whether a ring of so many pages may have this capacity: 0 where there is no ring.
cdef bint ring_fits(uint32_t capacity, uint64_t length, uint32_t offset) noexcept nogil
# Whether an edit, and what went ahead of a gap, may stand behind the one before it (NULL: the first).
cdef bint edit_fits(const Stream *stream, const Edit *before, const Edit *edit) noexcept nogil
cdef bint buffered_fits(const Stream *stream, const OutOfOrder *before, uint32_t seq, uint32_t length) noexcept nogil
