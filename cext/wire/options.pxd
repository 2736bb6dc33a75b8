# TCP options: which ones a segment carries; options that the two sides did not agree on are overwritten.
from libc.stdint cimport uint8_t

from nfmailguard.cext.wire.packet cimport Packet

cdef enum:  # OptionBit: the TCP options that mail connections use
    OPTION_SEGMENT_SIZE = 1    # maximum segment size, in a SYN (RFC 9293 3.7.1)
    OPTION_SCALE = 2           # window scale, in a SYN (RFC 7323 2)
    OPTION_SACK_PERMITTED = 4  # SACK permitted, in a SYN (RFC 2018 2)
    OPTION_SACK = 8            # SACK, never in a SYN (RFC 2018 3)
    OPTIONS_OF_SYN = 1 | 2 | 4

cdef enum:
    MOST_SCALE = 14            # the largest shift count of a window scale option (RFC 7323 2.3)

# Reads a segment's TCP options into packet.options. With `write`, NOPs overwrite every option that is not in `allowed`
# (OptionBit), the second option of a kind, and all bytes from an option of impossible length on; packet.changed is then
# set.
cdef void options_read(Packet *packet, uint8_t allowed, bint write) noexcept nogil
