# Addresses of MAIL and RCPT lines: events/addresses.py.
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    CUT_SIZE = 4               # " ...": behind what is only the beginning of what was said

# The address of a line as text, or, where not every server reads this one, what the client wrote behind the colon.
# `out` has room for SHOWN_SIZE octets a byte and CUT_SIZE. `cut`: the line went on.
cdef bint address_of(const uint8_t *line, uint32_t length, bint cut, uint8_t *out, uint32_t *written) noexcept nogil
# Appends it; octets written.
cdef uint32_t put_cut(uint8_t *out) noexcept nogil
