"""Corrects the checksums in a capture, so that one edited by a script can be replayed.

Promises: every other byte stays as it is; frames that are cut short, fragments and what is not TCP over IP are not
changed. Reads pcap and pcapng as streams, of the common link types. Does not know SMTP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

__all__ = ["corrected", "internet_checksum", "network_offset"]

_CLASSIC = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6
_LARGEST = 1 << 24  # Most bytes of a frame or a pcapng block.
#: Bytes before the IP header, by link type. Ethernet and Linux cooked frames have a protocol field and are handled
#: separately.
_FIXED = {0: 4, 108: 4, 12: 0, 14: 0, 101: 0, 228: 0, 229: 0}
_ETHERNET, _COOKED, _COOKED_2 = 1, 113, 276
_VLAN, _IPV4, _IPV6 = (0x8100, 0x88A8), 0x0800, 0x86DD
_TCP = 6
_EXTENSIONS = (0, 43, 60)  # IPv6 extension headers: hop-by-hop, routing, destination options (RFC 8200 4).


def corrected(source: IO[bytes]) -> Iterator[bytes]:
    """The capture in pieces. Data that is no capture, and what comes after damage, is not changed."""
    head = source.read(4)
    order = _CLASSIC.get(head)
    if order:
        yield from _classic(head, source, order)
    elif head == b"\x0a\x0d\x0d\x0a":
        yield from _blocks(head, source)
    else:
        yield head
    while rest := source.read(1 << 16):
        yield rest


def _classic(magic: bytes, source: IO[bytes], order: str) -> Iterator[bytes]:
    header = source.read(20)
    yield magic + header
    if len(header) < 20:
        return
    link = struct.unpack(f"{order}I", header[16:])[0] & 0xFFFF
    while len(frame := source.read(16)) == 16:
        captured, length = struct.unpack(f"{order}II", frame[8:])
        if captured > _LARGEST:
            yield frame
            return
        yield frame + _frame(source.read(captured), link, whole=captured == length)
    yield frame


def _blocks(kind: bytes, source: IO[bytes]) -> Iterator[bytes]:
    order, links = "<", list[int]()
    while len(kind) == 4:
        rest = source.read(4)
        if kind == b"\x0a\x0d\x0d\x0a":
            rest += source.read(4)
            order = ">" if rest[4:] == b"\x1a\x2b\x3c\x4d" else "<"
            links = []
        if len(rest) < 4:
            yield kind + rest
            return
        size = struct.unpack(f"{order}I", rest[:4])[0]
        if not 12 <= size <= _LARGEST:
            yield kind + rest
            return
        body = rest[4:] + source.read(size - 4 - len(rest))
        number = struct.unpack(f"{order}I", kind)[0]
        yield kind + rest[:4] + _block(body, number, order, links)
        kind = source.read(4)
    yield kind


def _block(body: bytes, number: int, order: str, links: list[int]) -> bytes:
    if number == _INTERFACE and len(body) >= 2:
        links.append(struct.unpack(f"{order}H", body[:2])[0])
    elif number == _ENHANCED and len(body) >= 20:
        interface, _, _, captured, length = struct.unpack(f"{order}5I", body[:20])
        if interface < len(links) and captured <= len(body) - 20:
            frame = _frame(body[20 : 20 + captured], links[interface], whole=captured == length)
            return body[:20] + frame + body[20 + captured :]
    elif number == _SIMPLE and len(body) >= 4 and links:
        captured = min(struct.unpack(f"{order}I", body[:4])[0], len(body) - 8)
        frame = _frame(body[4 : 4 + captured], links[0], whole=True)
        return body[:4] + frame + body[4 + captured :]
    return body


def _frame(octets: bytes, link: int, *, whole: bool) -> bytes:
    """A frame with corrected IPv4 and TCP checksums."""
    at = network_offset(octets, link)
    if at is None or not whole:
        return octets
    frame = bytearray(octets)
    version = frame[at] >> 4 if at < len(frame) else 0
    if version == 4:
        _ipv4(frame, at)
    elif version == 6:
        _ipv6(frame, at)
    return bytes(frame)


def network_offset(frame: bytes, link: int) -> int | None:
    """The offset of the IP header in a frame of this link type; None: there is none, or the type is not known."""
    if link in _FIXED:
        return _FIXED[link]
    if link == _COOKED:
        return 16 if frame[14:16] in (b"\x08\0", b"\x86\xdd") else None
    if link == _COOKED_2:
        return 20 if frame[:2] in (b"\x08\0", b"\x86\xdd") else None
    if link != _ETHERNET:
        return None
    at = 12
    while at + 2 <= len(frame):
        kind = int.from_bytes(frame[at : at + 2])
        if kind not in _VLAN:
            return at + 2 if kind in (_IPV4, _IPV6) else None
        at += 4
    return None


def internet_checksum(octets: bytes | bytearray, start: int = 0) -> int:
    """The checksum of RFC 1071, of ``octets`` and a sum of other words."""
    if len(octets) % 2:
        octets = bytes(octets) + b"\0"
    total: int = start + sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(frame: bytearray, at: int) -> None:
    header = (frame[at] & 15) * 4
    if header < 20 or at + header > len(frame):
        return
    # Length 0 in the IPv4 header: a super-packet captured before segmentation offload.
    length = int.from_bytes(frame[at + 2 : at + 4]) or len(frame) - at
    frame[at + 10 : at + 12] = b"\0\0"
    frame[at + 10 : at + 12] = internet_checksum(frame[at : at + header]).to_bytes(2)
    fragment = int.from_bytes(frame[at + 6 : at + 8]) & 0x3FFF
    if frame[at + 9] == _TCP and not fragment:
        _tcp(frame, at + header, at + length, bytes(frame[at + 12 : at + 20]))


def _ipv6(frame: bytearray, at: int) -> None:
    end = at + 40 + int.from_bytes(frame[at + 4 : at + 6])
    kind, place = frame[at + 6] if at + 40 <= len(frame) else 0, at + 40
    while kind in _EXTENSIONS and place + 8 <= min(end, len(frame)):
        kind, place = frame[place], place + 8 + frame[place + 1] * 8
    if kind == _TCP:
        _tcp(frame, place, end, bytes(frame[at + 8 : at + 40]))


def _tcp(frame: bytearray, at: int, end: int, addresses: bytes) -> None:
    if end > len(frame) or end - at < 20:
        return
    frame[at + 16 : at + 18] = b"\0\0"
    pseudo = sum(struct.unpack(f">{len(addresses) // 2}H", addresses)) + _TCP + (end - at)
    frame[at + 16 : at + 18] = internet_checksum(frame[at:end], pseudo).to_bytes(2)
