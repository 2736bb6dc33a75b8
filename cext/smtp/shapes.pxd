# Ends of data that only some servers see, made harmless.
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memchr

from nfmailguard.cext.policy.findings cimport Context, note_change
from nfmailguard.cext.smtp.text cimport Text

cdef inline bint is_end(uint8_t byte) noexcept nogil:
    return byte == c"\r" or byte == c"\n"

# The index of the next dot, or `length`.
cdef inline uint32_t next_dot(const uint8_t *data, uint32_t at, uint32_t length) noexcept nogil:
    cdef const uint8_t *dot = data + at
    if length - at > 4:                            # where dots are dense, a call costs more than the looking
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

cdef struct Shapes:                    # those in the bytes that are being read
    uint32_t left                      # how many more would be told nobody, and end nothing, as far as it is known
    uint32_t count                     # that are yet to be counted in the tally
    bint blanks                        # their bytes are blanked; else they are only counted

# None yet.
cdef inline void open_shapes(Shapes *shapes) noexcept nogil:
    shapes.left = shapes.count = 0
    shapes.blanks = False

# Before anything else may look at the tally, or at Session.found.
cdef void count_shapes(Context *context, Shapes *shapes) noexcept nogil
# As shape, where it is not known that nobody is told.
cdef bint next_shape(Context *context, Shapes *shapes, uint8_t *byte, uint8_t blank, uint64_t offset) noexcept nogil

# Reports an end of data that is none to every server; whether its `byte` has become `blank`.
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

# The index behind the client's own end of data, CRLF.CRLF, in data[at:length], or 0; before data[at] the `last_four`
# bytes stood, of which the last one is the lowest. Only before anything is changed.
cdef uint32_t end_as_it_came(uint32_t last_four, const uint8_t *data, uint32_t at,
                             uint32_t length) noexcept nogil
# Text that is read at once: data[at:length], of which data[at:head] are the header's.
cdef struct Stretch:
    uint8_t *data
    uint64_t offset            # of data[0] in its direction
    uint32_t at
    uint32_t head
    uint32_t length
    bint ended                 # the text's own end is its last bytes

# Blanks the end, behind a dot, of a long line in it, and of any line in the header's part of a long header, but not
# where nothing but the ended text's own end comes behind it.
cdef void blank_long_lines(Context *context, const Text *text, const Stretch *stretch) noexcept nogil
# Whether there is such a line.
cdef bint has_long_line(Context *context, const Text *text, const Stretch *stretch) noexcept nogil
