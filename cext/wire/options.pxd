# TCP options: which a segment carries, and overwriting those that nobody agreed on.
from libc.stdint cimport uint8_t

from nfmailguard.cext.wire.packet cimport Packet

cdef enum:  # OptionBit: the options mail connections use
    OPTION_SEGMENT_SIZE = 1    # RFC 9293 3.7.1, in a SYN
    OPTION_SCALE = 2           # RFC 7323 2, in a SYN
    OPTION_SACK_PERMITTED = 4  # RFC 2018 2, in a SYN
    OPTION_SACK = 8            # RFC 2018 3, never in a SYN
    OPTIONS_OF_SYN = 1 | 2 | 4

cdef enum:
    MOST_SCALE = 14            # RFC 7323 2.3

# Fills packet.options. Where `write`, every option outside `allowed` (OptionBit), every second one of a
# kind, and whatever follows a length that cannot be right become NOPs, which sets packet.changed.
cdef void options_read(Packet *packet, uint8_t allowed, bint write) noexcept nogil
