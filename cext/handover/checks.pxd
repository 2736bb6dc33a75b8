# Checks of a state image: whether its fields have values that the core could have written.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.handover.parts cimport DialogueParts, FlowParts
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.tcp.stream cimport Edit, OutOfOrder, Stream

# Checks a flow's fields except its rule; `states`: number of session states, `findings`: number of finding kinds.
cdef bint flow_fits(const Flow *flow, const FlowParts *parts, uint8_t states, uint8_t findings) noexcept nogil
# Checks the counts of findings by kind: only the first `findings` kinds may have a count.
cdef bint tally_fits(const uint32_t *counts, uint8_t findings) noexcept nogil
# Checks a dialogue's fields, and that the image has the command and reply lines which its phases need.
cdef bint dialogue_fits(const Dialogue *dialogue, const DialogueParts *parts, const Grammar *grammar) noexcept nogil
# Checks the verb numbers of a dialogue's outstanding commands, wherever they are stored.
cdef bint outstanding_fit(const Dialogue *dialogue, const Grammar *grammar) noexcept nogil
# Whether a page buffer of `length` bytes from `offset` may have a ring of `capacity` pages (0: no ring).
cdef bint ring_fits(uint32_t capacity, uint64_t length, uint32_t offset) noexcept nogil
# Whether an edit, or a segment received ahead of a gap, may follow the one `before` it (NULL: it is the first).
cdef bint edit_fits(const Stream *stream, const Edit *before, const Edit *edit) noexcept nogil
cdef bint buffered_fits(const Stream *stream, const OutOfOrder *before, uint32_t seq, uint32_t length) noexcept nogil
