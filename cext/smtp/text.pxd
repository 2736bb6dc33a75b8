# The message that is being read: its text, or its chunks.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.numbers cimport DATA_CR
from nfmailguard.cext.smtp.mime cimport Mime, begin_mime
from nfmailguard.cext.smtp.size cimport Parts, begin_parts
from nfmailguard.cext.smtp.text_lines cimport TextLines, begin_text_lines

cdef struct Text:
    uint64_t bytes             # of the message so far
    uint32_t chunk_left
    uint32_t last_four         # bytes so far as they came, the last one lowest
    TextLines lines
    Parts parts
    Mime mime
    uint8_t state              # DataState
    uint8_t eighth             # Eighth
    uint8_t reported           # Odd: bits of what has been reported in this message
    uint8_t ends_held          # of this message
    uint8_t last_chunk         # the chunk being read, or last read, says LAST

# A message begins, in this DataState.
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

# Its text has been read so far.
cdef inline void leave_text(Text *text, uint8_t state) noexcept nogil:
    text.state = state

cdef inline void leave_text_in_seven(Text *text, uint8_t state, uint8_t eighth) noexcept nogil:
    text.state = state
    text.eighth = eighth

# The next `size` bytes are a chunk's; `last`: it is the message's last one.
cdef inline void begin_chunk(Text *text, uint32_t size, bint last) noexcept nogil:
    text.chunk_left = size
    text.last_chunk = last

# Of chunks that no LAST followed there is no message.
cdef inline void forget_chunks(Text *text) noexcept nogil:
    text.bytes = 0

cdef inline void note_end_held(Text *text) noexcept nogil:
    text.ends_held += 1
