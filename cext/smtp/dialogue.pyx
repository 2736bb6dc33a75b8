# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The SMTP dialogue of a flow: allocated while something is being said, and freed when nothing is.

Does not know how lines are read, nor packets.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from nfmailguard.cext.memory.freelist cimport freelist_alloc, freelist_close, freelist_free, freelist_open
from nfmailguard.cext.memory.pool cimport pool_give
from nfmailguard.cext.policy.numbers cimport DATA_CR, DATA_LINE, DATA_TEXT
from nfmailguard.cext.smtp.command_line cimport PHASE_START, leave_commands
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS
from nfmailguard.cext.smtp.line cimport free_line, line_pool_close, line_pool_open, line_pool_trim
from nfmailguard.cext.smtp.outstanding cimport expect_greeting, expect_tls
from nfmailguard.cext.smtp.session cimport GREETED, note_greeted
from nfmailguard.cext.smtp.text cimport begin_text


cdef void dialogue_pool_open(DialoguePool *dialogue_pool, Pool *pool) noexcept nogil:
    line_pool_open(&dialogue_pool.line_pool, pool)
    freelist_open(&dialogue_pool.dialogues, pool, sizeof(Dialogue))


cdef void dialogue_pool_close(DialoguePool *dialogue_pool) noexcept nogil:
    line_pool_close(&dialogue_pool.line_pool)
    freelist_close(&dialogue_pool.dialogues)


cdef Dialogue *dialogue_alloc(DialoguePool *dialogue_pool, Session *session, Grammar *grammar) noexcept nogil:
    cdef Dialogue *dialogue = <Dialogue *> freelist_alloc(&dialogue_pool.dialogues)
    if dialogue == NULL:
        return NULL
    memset(dialogue, 0, sizeof(Dialogue))
    if not session.marks & GREETED:
        expect_greeting(&dialogue.exchange, grammar.verb_greeting)
    return dialogue


cdef inline bint is_idle(const Dialogue *dialogue) noexcept nogil:
    # All other fields are set anew where a line, a reply or a message begins, so they need not be checked.
    cdef const CommandLine *command = &dialogue.command
    cdef const Exchange *exchange = &dialogue.exchange
    cdef const ReplyLine *reply = &dialogue.reply
    return (exchange.count == 0 and command.phase == PHASE_START and not command.after_cr
            and exchange.input == INPUT_COMMANDS and not exchange.body_as_commands and dialogue.text.bytes == 0
            and not reply.junk
            and reply.column == 0 and not reply.after_cr and reply.lines == 0)


cdef void dialogue_free_if_idle(DialoguePool *dialogue_pool, Session *session, Dialogue **dialogue) noexcept nogil:
    if is_idle(dialogue[0]):
        note_greeted(session)
        dialogue_free(dialogue_pool, dialogue)


cdef void dialogue_list(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil:
    dialogue.account.listed = 1
    dialogue.newer = NULL
    dialogue.older = dialogue_pool.newest
    if dialogue.older != NULL:
        dialogue.older.newer = dialogue
    else:
        dialogue_pool.oldest = dialogue
    dialogue_pool.newest = dialogue


cdef void dialogue_unlist(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil:
    dialogue.account.listed = 0
    if dialogue.older != NULL:
        dialogue.older.newer = dialogue.newer
    else:
        dialogue_pool.oldest = dialogue.newer
    if dialogue.newer != NULL:
        dialogue.newer.older = dialogue.older
    else:
        dialogue_pool.newest = dialogue.older


cdef void dialogue_free(DialoguePool *dialogue_pool, Dialogue **dialogue) noexcept nogil:
    if dialogue[0] == NULL:
        return
    if dialogue[0].account.listed:
        dialogue_unlist(dialogue_pool, dialogue[0])
    free_line(&dialogue_pool.line_pool, &dialogue[0].command.kept)
    free_line(&dialogue_pool.line_pool, &dialogue[0].reply.kept)
    line_pool_trim(&dialogue_pool.line_pool)
    pool_give(dialogue_pool.line_pool.pool, dialogue[0].exchange.more, dialogue[0].exchange.capacity)
    freelist_free(&dialogue_pool.dialogues, dialogue[0])
    dialogue[0] = NULL


cdef void begin_message(Dialogue *dialogue) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t state = DATA_TEXT
    if command.after_cr:
        state = DATA_CR
    elif command.phase == PHASE_START:
        state = DATA_LINE
    leave_commands(command)
    begin_text(&dialogue.text, state)
    expect_tls(&dialogue.exchange)
