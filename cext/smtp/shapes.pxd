# Shapes: byte sequences that only some servers take for an end of data (SMTP smuggling), made harmless.
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memchr

from nfmailguard.cext.policy.findings cimport Context, note_change
from nfmailguard.cext.smtp.text cimport Text

cdef inline bint is_end(uint8_t byte) noexcept nogil:
    return byte == c"\r" or byte == c"\n"

# The index of the next dot from `at` on, or `length`.
cdef inline uint32_t next_dot(const uint8_t *data, uint32_t at, uint32_t length) noexcept nogil:
    cdef const uint8_t *dot = data + at
    if length - at > 4:                            # where dots are frequent, calls of memchr cost more
        if dot[0] == c".":
            return at
        if dot[1] == c".":
            return at + 1
        if dot[2] == c".":
            return at + 2
        if dot[3] == c".":
            return at + 3
        at += 4
    dot = <const uint8_t *> memchr(data + at, c".", length - at)
    return <uint32_t> (dot - data) if dot != NULL else length

cdef struct Shapes:                    # ends of data that only some servers see, in the bytes being read
    uint32_t left                      # how many further findings would only be counted, not logged or end the flow
    uint32_t count                     # findings made here that are not yet counted in the tally
    bint blanks                        # 1: the byte completing such an end is blanked; 0: the finding is only counted

# Initialises a Shapes: no end of data that only some servers see has been found yet.
cdef inline void open_shapes(Shapes *shapes) noexcept nogil:
    shapes.left = shapes.count = 0
    shapes.blanks = False

# Counts the sequences found in the tally; has to come before anything else reads the tally or Session.found.
cdef void count_shapes(Context *context, Shapes *shapes) noexcept nogil
# As `shape`, where it is not known whether the finding would be logged.
cdef bint next_shape(Context *context, Shapes *shapes, uint8_t *byte, uint8_t blank, uint64_t offset) noexcept nogil

# Reports an end of data that not every server takes for one; returns whether its last byte, `byte`, has become `blank`.
cdef inline bint shape(Context *context, Shapes *shapes, uint8_t *byte, uint8_t blank,
                       uint64_t offset) noexcept nogil:
    if shapes.left == 0:
        return next_shape(context, shapes, byte, blank, offset)
    shapes.left -= 1
    shapes.count += 1
    if not shapes.blanks:
        return False
    note_change(context)
    byte[0] = blank
    return True

# The index after the client's own end of data, CRLF.CRLF, in data[at:length], or 0. `last_four` are the bytes that came
# before data[at], the last one lowest. Only to be called before any byte is changed.
cdef uint32_t end_as_it_came(uint32_t last_four, const uint8_t *data, uint32_t at,
                             uint32_t length) noexcept nogil
# Text that is read in one go: data[at:length], of which data[at:head] belongs to the message's header.
cdef struct Stretch:
    uint8_t *data
    uint64_t offset            # client stream offset of data[0]
    uint32_t at
    uint32_t head
    uint32_t length
    bint ended                 # 1: its last bytes are the message's own end of data

# Blanks each line end that follows a dot in an overlong line, or in the header's part of an overlong header; but not
# where only the message's own end of data comes after it.
cdef void blank_long_lines(Context *context, const Text *text, const Stretch *stretch) noexcept nogil
# Whether there is a line end that blank_long_lines would blank.
cdef bint has_long_line(Context *context, const Text *text, const Stretch *stretch) noexcept nogil
