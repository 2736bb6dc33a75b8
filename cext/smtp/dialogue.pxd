# The SMTP dialogue of one flow: its session, and what is being said at the moment.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.memory.freelist cimport FreeList, freelist_alloc, freelist_free
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.policy.numbers cimport LINE_BYTES_SHOWN
from nfmailguard.cext.policy.tally cimport Tally
from nfmailguard.cext.smtp.grammar cimport Grammar

cdef enum:  # Phase: where the next octet of the client's stands in its line
    PHASE_START = 0
    PHASE_VERB = 1
    PHASE_ARGUMENT = 2
    PHASE_SASL = 3             # a line without a verb (RFC 4954 4)

# The beginning of the line that is being read, as it came; lent while a line is open.
cdef struct Line:
    uint16_t length            # octets kept
    uint16_t sent              # of a verb or keyword cut over segments: octets let through
    uint8_t data[LINE_BYTES_SHOWN]

cdef struct Dialogue

# Where memory for what is being said comes from.
cdef struct DialoguePool:
    Line *spare                # the line last given back in this call: most are wanted again at once
    FreeList lines
    FreeList dialogues
    Pool *pool                 # for the outstanding commands, where they are many
    Dialogue *oldest           # of flows with a page or more of memory, by `since`
    Dialogue *newest

cdef enum:  # Asked: whether a reply may be the one to an EHLO
    ASKED_NOTHING = 0          # the client has not spoken yet
    ASKED_OTHER = 1            # it has, and no EHLO has passed
    ASKED_EHLO = 2             # EHLO was the first thing said, and is not answered
    ASKED_TOLD = 3             # and its reply has been read: there is no other, whatever the count of replies
    ASKED_DOUBT = 4            # any may be

cdef enum:  # Secret: bits of Session.secret
    SECRET_BEGUN = 1           # AUTH was begun: what is no command may be a part of it
    SECRET_SAID = 2            # ever: a server may repeat it in any reply

# What a session has come to, in few octets: all that is left between two lines with nothing outstanding.
cdef struct Session:
    Tally tally                # of its findings
    uint64_t found             # bits of the findings in what the client has said since its last record
    uint32_t recipients
    uint32_t invalid_recipients
    uint32_t untold_recipients  # accepted, of whom no record tells
    uint8_t state              # smtp.states.State
    uint8_t greeted            # the greeting is not outstanding any more
    uint8_t secret             # Secret
    uint8_t ehlo_restored      # ever
    uint8_t asked              # Asked
    uint8_t noop_seen          # CSCdk46673: what matters to the next message
    uint8_t seven_bits         # of the mail: a MAIL has said BODY=7BIT, by which some servers clear eighth bits
    uint8_t offered_chunking   # CHUNK_REFUSED: and the last reply refused one
    uint8_t hypothetical

cdef enum Head:                # of Dialogue.bracket: how Exim reads a message's header, by its first line's end
    HEAD_NONE = 0              # an empty line has ended it
    HEAD_FIRST = 1             # the first line has not ended
    HEAD_CRLF = 2              # lines end at CRLF alone
    HEAD_LF = 3                # at LF, with or without CR
    HEAD_LINE = 4              # its line has a byte; twice that: more
    HEAD_CR = 16               # a bit: the last one is a CR

# What is being said: lent while a line is open, a reply outstanding or a message on its way.
cdef struct Dialogue:
    Dialogue *older            # of those that are listed
    Dialogue *newer
    void *flow                 # whose it is
    uint64_t since             # nanoseconds: since then its flow's receivers have taken little
    uint64_t taken             # bytes, that little
    uint64_t bytes             # of memory that its flow has, this dialogue counted
    uint64_t charged           # of them, those on its source's account
    Line *command              # NULL between lines
    Line *reply
    uint8_t *more              # the outstanding commands when they are more than `few` holds
    uint64_t message_bytes
    uint64_t chunk_left
    uint64_t line_offset       # stream offset of the command line's first octet
    uint64_t reply_offset      # of the reply line's
    uint32_t line_length
    uint32_t data_line_length
    uint32_t last_four         # bytes of the message so far as they came, the last one lowest
    uint32_t part_bytes        # of the header, then of the body, of whole lines
    uint32_t part_line         # of the line that is not whole
    uint32_t counted           # bytes so far: of an address, of the name of a header's field, of a file's
    uint16_t to_fields
    uint16_t first             # index of the oldest outstanding command
    uint16_t count
    uint16_t capacity          # of `more`
    uint16_t waiting           # replies to come before the client may go on
    uint16_t greetings         # of the outstanding commands, those that begin the session anew
    uint16_t recipients        # and those that add one
    uint16_t code
    uint16_t first_code        # of the reply that is coming in
    uint16_t reply_column
    uint16_t verb_length
    uint8_t few[16]
    uint8_t input              # Input
    uint8_t phase              # Phase
    uint8_t leading            # the verb has only space and control octets so far
    uint8_t mode               # what becomes of the verb being read
    uint8_t verb
    uint8_t denied
    uint8_t mask_rest          # the rest of the line becomes letters
    uint8_t after_cr
    uint8_t address_phase
    uint8_t bracket            # < has come, and no > behind it; of a message, Head
    uint8_t in_seven           # bytes of "=7BIT" that MAIL's argument ends in, all: it was said; of a message, Eighth
    uint8_t reported           # bits of Reported: findings already made in this line
    uint8_t data_state         # DataState
    uint8_t header
    uint8_t mime               # of a header's field: what its next octet belongs to
    uint8_t part_body          # the header has ended
    uint8_t part_cr            # the line is a CR so far
    uint8_t part_name          # octets of "To:" the line begins with; 4: not with it
    uint8_t part_reported
    uint8_t mime_header        # in a header, the message's or a part's
    uint8_t mime_line
    uint8_t mime_which
    uint8_t mime_counting      # the parameter is a file's name
    uint8_t mime_reported      # in this field
    uint8_t mime_name_length
    uint8_t mime_name[8]
    uint8_t tail[8]            # the last octets of a line with a secret, upper case
    uint8_t tls_checked
    uint8_t pipelining_violation          # the client did not wait; reported
    uint8_t body_as_commands   # the message is read as lines of commands
    uint8_t ends_held          # of this message
    uint8_t text_reported      # bits of what has been reported in this message
    uint8_t last_chunk
    uint8_t malformed          # the reply line being read
    uint8_t reply_line
    uint8_t reply_junk         # a line has come that is no reply's, and clients may count as the reply's first
    uint8_t reply_cr           # a CR was the segment's last octet
    uint8_t reply_before       # the last octet of the reply line so far, as it came
    uint8_t masked_lines
    uint8_t already_masked     # the letter, from 0, that the next line masked upstream has at least
    uint8_t keyword_mask_mode
    uint8_t answers_ehlo       # Answers: the reply line being read may
    uint8_t listed

# A session that waits for its greeting.
cdef void session_open(Session *session, Grammar *grammar) noexcept nogil
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

# The call is over: nothing is left over but what a dialogue has.
cdef inline void dialogue_pool_trim(DialoguePool *dialogue_pool) noexcept nogil:
    if dialogue_pool.spare != NULL:
        freelist_free(&dialogue_pool.lines, dialogue_pool.spare)
        dialogue_pool.spare = NULL

# An empty line, or NULL without memory; every line lent is given back at its end.
cdef inline Line *alloc_line(DialoguePool *dialogue_pool) noexcept nogil:
    cdef Line *line = dialogue_pool.spare
    if line != NULL:
        dialogue_pool.spare = NULL
    else:
        line = <Line *> freelist_alloc(&dialogue_pool.lines)
    if line != NULL:
        line.length = 0
        line.sent = 0
    return line

cdef inline void free_line(DialoguePool *dialogue_pool, Line **line) noexcept nogil:
    if line[0] != NULL:
        dialogue_pool_trim(dialogue_pool)
        dialogue_pool.spare = line[0]
        line[0] = NULL

cdef inline void line_add(Line *line, uint8_t byte) noexcept nogil:
    if line.length < LINE_BYTES_SHOWN:
        line.data[line.length] = byte
        line.length += 1
