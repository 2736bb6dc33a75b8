# Addresses in MAIL and RCPT lines; the same as events/addresses.py.
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    CUT_SIZE = 4               # length of " ...", which marks a text that was cut off

# Writes the address in a MAIL or RCPT line to `out`; returns whether every server reads this address. If not,
# writes what follows the colon. `out` has room for SHOWN_SIZE bytes per byte of `line`, and CUT_SIZE. `cut`: `line` is
# cut off.
cdef bint address_of(const uint8_t *line, uint32_t length, bint cut, uint8_t *out, uint32_t *written) noexcept nogil
# Appends the mark of a text that was cut off; returns the bytes written.
cdef uint32_t put_cut(uint8_t *out) noexcept nogil
