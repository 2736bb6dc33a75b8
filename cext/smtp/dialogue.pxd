# The SMTP dialogue of one flow while something is being said: the working state of each smtp module, side by side.

from nfmailguard.cext.memory.account cimport Account
from nfmailguard.cext.memory.freelist cimport FreeList
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.smtp.command_line cimport CommandLine
from nfmailguard.cext.smtp.grammar cimport Grammar
from nfmailguard.cext.smtp.line cimport LinePool
from nfmailguard.cext.smtp.outstanding cimport Exchange
from nfmailguard.cext.smtp.reply_line cimport ReplyLine
from nfmailguard.cext.smtp.session cimport Session
from nfmailguard.cext.smtp.text cimport Text

# Allocated while a line is unfinished, a reply is outstanding or a message is under way. The state of commands and
# replies comes first in the struct: it is what most packets need.
cdef struct Dialogue:
    Exchange exchange
    CommandLine command
    ReplyLine reply
    Text text
    Account account
    Dialogue *older            # next older dialogue in DialoguePool's list, NULL: none; `newer`: the next newer one
    Dialogue *newer
    void *flow                 # the Flow this dialogue belongs to

# Where dialogues and the first bytes of their lines are allocated, and a list of the dialogues with much memory.
cdef struct DialoguePool:
    LinePool line_pool
    FreeList dialogues
    Dialogue *oldest           # list, by Account.since, of dialogues whose flows have a page or more of memory
    Dialogue *newest

cdef void dialogue_pool_open(DialoguePool *dialogue_pool, Pool *pool) noexcept nogil
cdef void dialogue_pool_close(DialoguePool *dialogue_pool) noexcept nogil
# Allocates a dialogue for a session that has none; NULL without memory.
cdef Dialogue *dialogue_alloc(DialoguePool *dialogue_pool, Session *session, Grammar *grammar) noexcept nogil
# dialogue_list adds a dialogue to the pool's list, as the newest; dialogue_unlist takes it out.
cdef void dialogue_list(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil
cdef void dialogue_unlist(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil
# dialogue_free_if_idle frees a dialogue if nothing is being said, dialogue_free in any case; the pointer becomes NULL.
cdef void dialogue_free_if_idle(DialoguePool *dialogue_pool, Session *session, Dialogue **dialogue) noexcept nogil
cdef void dialogue_free(DialoguePool *dialogue_pool, Dialogue **dialogue) noexcept nogil
# The client's next bytes are message text (or TLS), not command lines.
cdef void begin_message(Dialogue *dialogue) noexcept nogil
