# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Where a message's text ends (RFC 5321 4.1.1.4), found byte by byte where there is a dot that could begin an end.

Promises: an end is CRLF.CRLF and nothing else; in a sequence that only some servers take for an end, one byte is
changed (docs/servers.md). NULs are blanked first, since some servers drop them before they look for an end. Does not
know lines, or what follows the end.
"""

from libc.stddef cimport size_t
from libc.string cimport memchr

from nfmailguard.cext.policy.findings cimport keep_original, note_changes
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_PASS, DATA_BARE_DOT, DATA_CR, DATA_DOT, DATA_DOTS, DATA_DOT_CR, DATA_DOT_ONE, DATA_LINE,
    DATA_NUL, DATA_TEXT,
)
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.shapes cimport Shapes, count_shapes, is_end, next_dot, open_shapes, shape
from nfmailguard.cext.smtp.text cimport leave_text, leave_text_in_seven

cdef extern from "scan.h" nogil:
    size_t nm_blank_nuls(uint8_t *p, size_t length) noexcept

cdef enum:                             # Eighth: Text.eighth, the last byte as a server sees it that clears eighth bits
    EIGHTH_NONE = 0                    # clearing eighth bits makes no difference to the last byte
    EIGHTH_LINE = 1                    # the last byte becomes a CR or LF once its eighth bit is cleared
    EIGHTH_DOT = 2                     # the last byte is a dot that begins a line once eighth bits are cleared

cdef enum:                             # Kind: classes of bytes, the columns of the table `steps`
    KIND_OTHER = 0
    KIND_CR = 1
    KIND_LF = 2
    KIND_DOT = 3
    KIND_NUL = 4
    KINDS = 8

cdef enum:                             # Step: the DataState after a byte, and what else the byte means
    STEP_STATE = 15
    STEP_ENDS = 16                     # some servers take this byte for the last of an end of data
    STEP_PLACE = 32                    # a second dot: its meaning depends on whether this is the text's first line
    STEP_NUL = 64
    STEP_ASK = 128                     # the table alone does not tell what the byte means
    STATES = 9

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DOT = 46
    FIRST_DOTS = 2                     # highest index of a second dot in the text's first line; byte 0 may be DATA's LF
    DENSE = 8  # bytes after a dot that are looked at one by one before the next dot is searched for

cdef uint8_t kinds[256]
cdef uint8_t steps[STATES * KINDS]


cdef inline uint8_t dotted(uint8_t state) noexcept nogil:
    # The DataState after a dot, coming from a state that holds no dot.
    return DATA_DOT if state == DATA_LINE else DATA_BARE_DOT if state != DATA_TEXT else DATA_TEXT


cdef inline bint completes(uint8_t state, uint8_t byte) noexcept nogil:
    """Whether a CR or LF completes what some servers, but not all, take for an end of data."""
    if state == DATA_DOT or state == DATA_DOT_ONE:
        return byte == LF                          # James before 3.7.5: any line of a dot and two bytes is an end
    # nodemailer's smtp-server before 3.21 drops a dot of the first line, and what is left may begin an end of data.
    return (state == DATA_BARE_DOT or state == DATA_DOTS) and is_end(byte)


cdef inline uint8_t behind_dot(uint8_t state, uint8_t byte, uint64_t place) noexcept nogil:
    """The DataState after ``byte``, byte number `place` of the message from 0 on, coming from a state that holds a
    dot."""
    if is_end(byte) or state == DATA_DOT_ONE:
        return step(DATA_TEXT, byte)
    if state == DATA_DOTS:
        return state if byte == DOT else DATA_TEXT
    return DATA_DOTS if byte == DOT and place <= FIRST_DOTS else DATA_DOT_ONE


cdef uint8_t one_step(uint8_t state, uint8_t byte) noexcept nogil:
    """The Step for ``byte`` in a DataState: an entry of the table."""
    if state < DATA_DOT:
        return dotted(state) if byte == DOT else step(state, byte)
    if state == DATA_DOT_CR:
        return STEP_ASK
    if state == DATA_DOT and byte == CR:
        return DATA_DOT_CR
    return (
        behind_dot(state, byte, FIRST_DOTS + 1)
        | (STEP_ENDS if completes(state, byte) else 0)
        | (STEP_PLACE if byte == DOT and (state == DATA_DOT or state == DATA_BARE_DOT) else 0)
    )


cdef void make_tables() noexcept nogil:
    cdef uint8_t state
    kinds[CR], kinds[LF], kinds[DOT], kinds[0] = KIND_CR, KIND_LF, KIND_DOT, KIND_NUL
    for state in range(STATES):
        steps[state * KINDS + KIND_OTHER] = one_step(state, SPACE)
        steps[state * KINDS + KIND_CR] = one_step(state, CR)
        steps[state * KINDS + KIND_LF] = one_step(state, LF)
        steps[state * KINDS + KIND_DOT] = one_step(state, DOT)
        steps[state * KINDS + KIND_NUL] = one_step(state, SPACE) | STEP_NUL


make_tables()


cdef uint32_t first_nul(Context *context, const uint8_t *data, uint32_t at, uint32_t length) noexcept nogil:
    """The index of the first NUL that is to be blanked; ``length`` where there is none."""
    cdef const uint8_t *nul = NULL
    if applies(context.policy) and context.policy.action[DATA_NUL] == ACTION_BLANK:
        nul = <const uint8_t *> memchr(data + at, 0, length - at)
    return <uint32_t> (nul - data) if nul != NULL else length


cdef inline void blank_nuls(Context *context, uint8_t *data, uint32_t length) noexcept nogil:
    """Blanks the NULs in these bytes, of which there is at least one."""
    keep_original(context)
    note_changes(context, <uint32_t> nm_blank_nuls(data, length))


cdef uint32_t find_end(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                       uint64_t offset, bint *ended) noexcept nogil:
    cdef size_t state = text.state, taken
    cdef uint64_t before = text.bytes - at
    cdef uint32_t stop, dense = at
    cdef uint32_t nul = first_nul(context, data, at, length)
    cdef Shapes shapes
    open_shapes(&shapes)
    ended[0] = 0
    if context.verdict != ACTION_PASS:
        return at
    while at < length:
        if at >= dense and state < DATA_DOT:
            stop = next_dot(data, at, length)
            if nul < stop:
                blank_nuls(context, data + at, stop - at)
            state = state_before(<uint8_t> state, data, at, stop)
            at = stop
        if at >= dense:
            dense = at + DENSE if length - at > DENSE else length
        taken = 0
        while at < dense:
            taken = steps[state * KINDS + kinds[data[at]]]
            if taken > STEP_STATE:
                break
            state = taken
            at += 1
        if taken <= STEP_STATE:
            continue
        if data[at] == 0 and nul < length:
            blank_nuls(context, data + at, 1)
        if taken & STEP_ASK:
            # CRLF.CR has been forwarded: if this byte is no LF, it is made one, so that all servers see the same end.
            ended[0] = data[at] == LF or shape(context, &shapes, data + at, LF, offset + at)
            at += ended[0]
            state = DATA_LINE if ended[0] else DATA_CR    # not ended: the byte is read again, as one after a CR
            if ended[0] or context.verdict != ACTION_PASS:
                break
            continue
        if taken & STEP_ENDS:
            if shape(context, &shapes, data + at, SPACE, offset + at):
                taken = steps[state * KINDS + KIND_OTHER]
            if context.verdict != ACTION_PASS:
                length = at + 1                    # the finding about this byte ends the flow
        elif taken & STEP_PLACE:
            taken = behind_dot(<uint8_t> state, DOT, before + at)
        state = taken & STEP_STATE
        at += 1
    count_shapes(context, &shapes)
    leave_text(text, <uint8_t> state)
    return at


cdef uint32_t find_end_in_seven(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                                uint64_t offset, bint *ended) noexcept nogil:
    cdef uint8_t state = text.state
    cdef uint64_t before = text.bytes - at
    cdef uint8_t eighth = text.eighth
    cdef uint8_t byte, low
    cdef bint high
    cdef uint32_t nul = first_nul(context, data, at, length)
    cdef Shapes shapes
    open_shapes(&shapes)
    ended[0] = 0
    while at < length and context.verdict == ACTION_PASS:
        if data[at] == 0 and nul < length:
            blank_nuls(context, data + at, 1)
        byte, low, high = data[at], data[at] & 127, data[at] > 127
        if state == DATA_DOT_CR:
            ended[0] = byte == LF or shape(context, &shapes, data + at, LF, offset + at)
            state = DATA_LINE if ended[0] else DATA_CR
            at += ended[0]
            if ended[0]:
                break
            continue
        if is_end(low) and (eighth == EIGHTH_DOT or completes(state, byte) or (
                high and (state == DATA_DOT or state == DATA_BARE_DOT))):
            if shape(context, &shapes, data + at, SPACE, offset + at):
                byte = low = SPACE
                high = False
        if is_end(low) and high:
            eighth = EIGHTH_LINE
        elif low == DOT and (eighth == EIGHTH_LINE or (high and DATA_TEXT != state < DATA_DOT)):
            eighth = EIGHTH_DOT
        else:
            eighth = EIGHTH_NONE
        if state == DATA_DOT and byte == CR:
            state = DATA_DOT_CR
        elif state >= DATA_DOT:
            state = behind_dot(state, byte, before + at)
        elif byte == DOT:
            state = dotted(state)
        else:
            state = step(state, byte)
        at += 1
    count_shapes(context, &shapes)
    leave_text_in_seven(text, state, eighth)
    return at
