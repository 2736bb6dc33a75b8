# The SMTP dialogue of one flow while something is being said: what each room remembers of it, side by side.

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

# Lent while a line is open, a reply outstanding or a message on its way. Commands and replies stand in front: they are
# what most packets need.
cdef struct Dialogue:
    Exchange exchange
    CommandLine command
    ReplyLine reply
    Text text
    Account account
    Dialogue *older            # of those that are listed
    Dialogue *newer
    void *flow                 # whose it is

# Where memory for what is being said comes from.
cdef struct DialoguePool:
    LinePool line_pool
    FreeList dialogues
    Dialogue *oldest           # of flows with a page or more of memory, by Account.since
    Dialogue *newest

cdef void dialogue_pool_open(DialoguePool *dialogue_pool, Pool *pool) noexcept nogil
cdef void dialogue_pool_close(DialoguePool *dialogue_pool) noexcept nogil
# A dialogue for a session that has none, or NULL without memory.
cdef Dialogue *dialogue_alloc(DialoguePool *dialogue_pool, Session *session, Grammar *grammar) noexcept nogil
# Lists it as the newest; takes it out of the list.
cdef void dialogue_list(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil
cdef void dialogue_unlist(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil
# Gives it back where nothing is being said, or anyway.
cdef void dialogue_free_if_idle(DialoguePool *dialogue_pool, Session *session, Dialogue **dialogue) noexcept nogil
cdef void dialogue_free(DialoguePool *dialogue_pool, Dialogue **dialogue) noexcept nogil
# The client's next octets are a message's.
cdef void begin_message(Dialogue *dialogue) noexcept nogil
