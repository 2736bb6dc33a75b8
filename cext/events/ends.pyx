# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Addresses as text, and the Community ID of a connection. Does not know the rest of an event line."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.events.buffer cimport buffer_free, buffer_reserve, put_byte

cdef extern from "sha1.h" nogil:
    int nm_sha1_has_native()
    void nm_sha1(const uint8_t *data, size_t length, uint8_t *digest, int native)

cdef const char *BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char *HEXADECIMAL = b"0123456789abcdef"


cdef bint sha1_is_native() noexcept nogil:
    return nm_sha1_has_native() != 0


cdef void put_base64(const uint8_t *digest, uint8_t *out) noexcept nogil:
    cdef uint32_t three
    cdef int i, at = 0
    for i in range(0, 21, 3):
        three = (<uint32_t> digest[i] << 16) | (<uint32_t> digest[i + 1] << 8) | digest[i + 2]
        out[at] = <uint8_t> BASE64[three >> 18]
        out[at + 1] = <uint8_t> BASE64[three >> 12 & 63]
        out[at + 2] = <uint8_t> BASE64[three >> 6 & 63]
        out[at + 3] = <uint8_t> BASE64[three & 63]
        at += 4
    out[27] = b"="                     # 20 bytes do not fill the last group of three, so that base64 pads with =


cdef void community_of(const Identity *identity, bint native, uint8_t *out) noexcept nogil:
    cdef uint32_t size = 4 if identity.family == 4 else 16
    cdef const uint8_t *low = <const uint8_t *> identity.client
    cdef const uint8_t *high = <const uint8_t *> identity.server
    cdef uint16_t low_port = identity.client_port, high_port = identity.server_port
    cdef int order = memcmp(low, high, size)
    cdef uint8_t said[40]
    cdef uint8_t digest[21]
    if order > 0 or (order == 0 and low_port > high_port):
        low, high = high, low
        low_port, high_port = high_port, low_port
    said[0] = said[1] = 0              # seed of the Community ID: 0
    memcpy(said + 2, low, size)
    memcpy(said + 2 + size, high, size)
    said[2 + 2 * size] = 6             # protocol number of TCP
    said[3 + 2 * size] = 0
    said[4 + 2 * size] = <uint8_t> (low_port >> 8)
    said[5 + 2 * size] = <uint8_t> (low_port & 255)
    said[6 + 2 * size] = <uint8_t> (high_port >> 8)
    said[7 + 2 * size] = <uint8_t> (high_port & 255)
    digest[20] = 0
    nm_sha1(said, 8 + 2 * size, digest, native)
    out[0] = b"1"
    out[1] = b":"
    put_base64(digest, out + 2)


# For each byte its decimal digits followed by a dot, and in the last place the length of that text.
cdef uint8_t DOTTED[256][5]


cdef void fill_dotted() noexcept:
    cdef int octet, length
    cdef bytes text
    for octet in range(256):
        text = b"%d." % octet
        length = len(text)
        memcpy(DOTTED[octet], <const char *> text, length)
        DOTTED[octet][4] = <uint8_t> length


fill_dotted()


cdef void put_dotted(Buffer *buffer, const uint8_t *address) noexcept nogil:
    cdef uint8_t *out = buffer.data + buffer.length
    cdef int i
    for i in range(4):
        memcpy(out, DOTTED[address[i]], 4)         # copies always four bytes; the next number overwrites the excess
        out += DOTTED[address[i]][4]
    buffer.length = <size_t> (out - buffer.data) - 1           # removes the dot after the last number


cdef inline void put_group(Buffer *buffer, uint32_t group) noexcept nogil:
    if group > 0xfff:
        put_byte(buffer, <uint8_t> HEXADECIMAL[group >> 12])
    if group > 0xff:
        put_byte(buffer, <uint8_t> HEXADECIMAL[group >> 8 & 15])
    if group > 0xf:
        put_byte(buffer, <uint8_t> HEXADECIMAL[group >> 4 & 15])
    put_byte(buffer, <uint8_t> HEXADECIMAL[group & 15])


cdef void longest_zeros(const uint32_t *groups, int *begin, int *length) noexcept nogil:
    """Finds the first of the longest runs of two or more zero groups in an IPv6 address; ``begin`` -1: none."""
    cdef int i = 0, first
    begin[0], length[0] = -1, 1
    while i < 8:
        first = i
        while i < 8 and groups[i] == 0:
            i += 1
        if i - first > length[0]:
            begin[0], length[0] = first, i - first
        i += 1


cdef void put_groups(Buffer *buffer, const uint8_t *address) noexcept nogil:
    cdef uint32_t groups[8]
    cdef int i = 0, begin, length
    for i in range(8):
        groups[i] = (<uint32_t> address[2 * i] << 8) | address[2 * i + 1]
    longest_zeros(groups, &begin, &length)
    i = 0
    while i < 8:
        if i == begin:
            put_byte(buffer, b":")
            i += length
            if i == 8:
                put_byte(buffer, b":")
            continue
        if i:
            put_byte(buffer, b":")
        # inet_ntop(3) writes the last two groups of an IPv4-compatible or IPv4-mapped address as an IPv4 address.
        if i == 6 and begin == 0 and (length == 6 or (length == 5 and groups[5] == 0xffff)):
            put_dotted(buffer, address + 12)
            return
        put_group(buffer, groups[i])
        i += 1


cdef void put_address(Buffer *buffer, uint8_t family, const uint8_t *address) noexcept nogil:
    if family == 4:
        put_dotted(buffer, address)
    else:
        put_groups(buffer, address)


def community(int family, bytes client, int client_port, bytes server, int server_port, bint native):
    """For tests: a Community ID; ``native``: use the processor's SHA-1 instructions, where it has them."""
    cdef Identity identity
    cdef uint8_t out[COMMUNITY_SIZE]
    memset(&identity, 0, sizeof(identity))
    identity.family = <uint8_t> family
    identity.client_port, identity.server_port = <uint16_t> client_port, <uint16_t> server_port
    memcpy(identity.client, <const char *> client, min(16, len(client)))
    memcpy(identity.server, <const char *> server, min(16, len(server)))
    community_of(&identity, native and sha1_is_native(), out)
    return (<const char *> out)[:COMMUNITY_SIZE].decode()


def shown(int family, bytes address):
    """For tests: an address as put_address writes it."""
    cdef uint8_t octets[16]
    cdef Buffer out
    memset(&out, 0, sizeof(out))
    memset(octets, 0, sizeof(octets))
    memcpy(octets, <const char *> address, min(16, len(address)))
    if buffer_reserve(&out, MOST_ADDRESS) < 0:
        raise MemoryError
    put_address(&out, <uint8_t> family, octets)
    text = (<const char *> out.data)[:out.length].decode()
    buffer_free(&out)
    return text
