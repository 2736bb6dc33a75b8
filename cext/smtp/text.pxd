# The state of the message that is being read: its text (after DATA) or its chunks (BDAT).
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.numbers cimport DATA_CR
from nfmailguard.cext.smtp.mime cimport Mime, begin_mime
from nfmailguard.cext.smtp.size cimport Parts, begin_parts
from nfmailguard.cext.smtp.text_lines cimport TextLines, begin_text_lines

cdef struct Text:
    uint64_t bytes             # bytes of the message so far
    uint32_t chunk_left
    uint32_t last_four         # the last four bytes as they came, the last one lowest
    TextLines lines
    Parts parts
    Mime mime
    uint8_t state              # DataState: what the message's last bytes were
    uint8_t eighth             # Eighth: what the last byte is to a server that clears eighth bits
    uint8_t reported           # bits by Odd: kinds of forbidden bytes already reported in this message
    uint8_t ends_held          # how often an end of data of this message was held, to leave in one segment
    uint8_t last_chunk         # 1: the chunk being read, or last read, is the message's last (LAST)

# Begins a message, in this DataState.
cdef inline void begin_text(Text *text, uint8_t state) noexcept nogil:
    text.state = state
    text.bytes = 0
    text.last_four = c"\r" if state == DATA_CR else 0
    text.ends_held = 0
    text.reported = 0
    text.eighth = 0
    begin_text_lines(&text.lines, state == DATA_CR)
    begin_parts(&text.parts)
    begin_mime(&text.mime)

# leave_text notes the DataState after the text read so far; leave_text_in_seven also notes its Eighth.
cdef inline void leave_text(Text *text, uint8_t state) noexcept nogil:
    text.state = state

cdef inline void leave_text_in_seven(Text *text, uint8_t state, uint8_t eighth) noexcept nogil:
    text.state = state
    text.eighth = eighth

# Begins a chunk of `size` bytes. `last`: it is the message's last one.
cdef inline void begin_chunk(Text *text, uint32_t size, bint last) noexcept nogil:
    text.chunk_left = size
    text.last_chunk = last

# Forgets chunks that no LAST chunk followed: they make no message.
cdef inline void forget_chunks(Text *text) noexcept nogil:
    text.bytes = 0

cdef inline void note_end_held(Text *text) noexcept nogil:
    text.ends_held += 1
