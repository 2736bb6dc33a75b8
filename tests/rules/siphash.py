"""SipHash-2-4 in plain Python, after Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012)."""

from __future__ import annotations

_MASK = 2**64 - 1


def _rotated(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & _MASK


def siphash_2_4(key: bytes, octets: bytes) -> int:
    """The hash of ``octets`` under a ``key`` of 16 octets."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    a, b, c, d = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )

    def rounds(count: int) -> None:
        nonlocal a, b, c, d
        for _ in range(count):
            a, c = (a + b) & _MASK, (c + d) & _MASK
            b, d = _rotated(b, 13) ^ a, _rotated(d, 16) ^ c
            a = _rotated(a, 32)
            c, a = (c + b) & _MASK, (a + d) & _MASK
            b, d = _rotated(b, 17) ^ c, _rotated(d, 21) ^ a
            c = _rotated(c, 32)

    padded = octets + bytes(-(len(octets) + 1) % 8) + bytes([len(octets) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xFF
    rounds(4)
    return a ^ b ^ c ^ d
