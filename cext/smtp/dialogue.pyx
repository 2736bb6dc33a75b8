# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The SMTP dialogue: the session of a flow, and the dialogue allocated while something is being said.

Does not know how lines are read, nor packets.
"""

from libc.string cimport memset

from nfmailguard.cext.memory.freelist cimport freelist_close, freelist_open
from nfmailguard.cext.memory.pool cimport pool_give
from nfmailguard.cext.policy.numbers cimport DATA_CR, DATA_LINE, DATA_TEXT
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS

cdef enum:
    CR = 13


cdef void dialogue_pool_open(DialoguePool *dialogue_pool, Pool *pool) noexcept nogil:
    freelist_open(&dialogue_pool.lines, pool, sizeof(Line))
    freelist_open(&dialogue_pool.dialogues, pool, sizeof(Dialogue))
    dialogue_pool.pool = pool


cdef void dialogue_pool_close(DialoguePool *dialogue_pool) noexcept nogil:
    freelist_close(&dialogue_pool.lines)
    freelist_close(&dialogue_pool.dialogues)


cdef void session_open(Session *session, Grammar *grammar) noexcept nogil:
    memset(session, 0, sizeof(Session))
    session.state = grammar.state_connect


cdef Dialogue *dialogue_alloc(DialoguePool *dialogue_pool, Session *session, Grammar *grammar) noexcept nogil:
    cdef Dialogue *dialogue = <Dialogue *> freelist_alloc(&dialogue_pool.dialogues)
    if dialogue == NULL:
        return NULL
    memset(dialogue, 0, sizeof(Dialogue))
    if not session.greeted:
        dialogue.few[0] = grammar.verb_greeting
        dialogue.count = 1
    return dialogue


cdef inline bint is_idle(const Dialogue *dialogue) noexcept nogil:
    # Whatever else a dialogue holds is set anew where a line, a reply or a message begins.
    return (dialogue.count == 0 and dialogue.phase == PHASE_START and not dialogue.after_cr
            and dialogue.input == INPUT_COMMANDS and not dialogue.body_as_commands and dialogue.message_bytes == 0
            and not dialogue.reply_junk
            and dialogue.reply_column == 0 and not dialogue.reply_cr and dialogue.reply_line == 0)


cdef void dialogue_free_if_idle(DialoguePool *dialogue_pool, Session *session, Dialogue **dialogue) noexcept nogil:
    if is_idle(dialogue[0]):
        session.greeted = 1
        dialogue_free(dialogue_pool, dialogue)


cdef void dialogue_list(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil:
    dialogue.listed = 1
    dialogue.newer = NULL
    dialogue.older = dialogue_pool.newest
    if dialogue.older != NULL:
        dialogue.older.newer = dialogue
    else:
        dialogue_pool.oldest = dialogue
    dialogue_pool.newest = dialogue


cdef void dialogue_unlist(DialoguePool *dialogue_pool, Dialogue *dialogue) noexcept nogil:
    dialogue.listed = 0
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
    if dialogue[0].listed:
        dialogue_unlist(dialogue_pool, dialogue[0])
    free_line(dialogue_pool, &dialogue[0].command)
    free_line(dialogue_pool, &dialogue[0].reply)
    dialogue_pool_trim(dialogue_pool)
    pool_give(dialogue_pool.pool, dialogue[0].more, dialogue[0].capacity)
    freelist_free(&dialogue_pool.dialogues, dialogue[0])
    dialogue[0] = NULL


cdef void begin_message(Dialogue *dialogue) noexcept nogil:
    if dialogue.after_cr:
        dialogue.data_state = DATA_CR
    else:
        dialogue.data_state = DATA_LINE if dialogue.phase == PHASE_START else DATA_TEXT
    dialogue.phase = PHASE_START
    dialogue.after_cr = 0
    dialogue.reported = 0
    dialogue.message_bytes = 0
    dialogue.data_line_length = 0
    dialogue.part_bytes = dialogue.part_line = 0
    dialogue.to_fields = 0
    dialogue.ends_held = 0
    dialogue.part_body = dialogue.part_cr = dialogue.part_name = dialogue.part_reported = 0
    dialogue.mime = 0
    dialogue.mime_line = dialogue.mime_reported = 0
    dialogue.mime_header = 1
    dialogue.last_four = CR if dialogue.data_state == DATA_CR else 0
    dialogue.text_reported = 0
    dialogue.in_seven = 0
    dialogue.header = 1
    dialogue.bracket = HEAD_FIRST
    if dialogue.data_state == DATA_CR:
        dialogue.bracket += 2 * HEAD_LINE + HEAD_CR      # the first LF may be that of DATA's own line
    dialogue.tls_checked = 0
