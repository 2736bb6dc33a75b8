"""What the kernel says and is told, against the obvious reading of it: attributes of every length, cut anywhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.building import rooms

PACKET, VERDICT = 0x300, 0x301
ERROR = 2
PACKET_HEADER, MARK, IN, OUT, PAYLOAD, CAP_LEN, SKB_INFO = 1, 3, 5, 6, 10, 13, 14
NESTED, BIG_ENDIAN = 0x8000, 0x4000
FIELDS = {MARK: "mark", IN: "in", OUT: "out"}
KNOWN = (PACKET_HEADER, MARK, IN, OUT, PAYLOAD, CAP_LEN, SKB_INFO)

Attribute = tuple[int, bytes, int]  # its kind, its body, and what its length is wrong by


def attribute(kind: int, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack("=HH", (4 + len(body) + wrong) % 2**16, kind) + body + bytes(-len(body) % 4)


def message(attributes: bytes, kind: int = PACKET, queue: int = 7, wrong: int = 0) -> bytes:
    body = struct.pack(">BBH", 2, 0, queue) + attributes
    return struct.pack("=IHHII", (16 + len(body) + wrong) % 2**32, kind, 0, 0, 0) + body


def number(body: bytes) -> int:
    return struct.unpack(">I", body[:4])[0] if len(body) >= 4 else 0


def obvious(octets: bytes) -> dict[str, object] | None:
    """A packet message's fields; None where it names no packet. As slow and as plain as can be."""
    length = min(struct.unpack_from("=I", octets)[0], len(octets))
    left = octets[20:length]
    fields: dict[str, object] = {"queue": number(b"\0\0" + octets[18:20]), "in": 0, "out": 0, "flags": 0, "mark": 0}
    fields |= {"length": 0, "payload": b""}
    cut = 0
    while len(left) > 4:
        size, kind = struct.unpack_from("=HH", left)
        if size < 4:
            break
        body, whole = left[4:size], len(left) >= size
        kind &= ~(NESTED | BIG_ENDIAN)
        if kind == PAYLOAD:
            fields |= {"payload": body, "length": max(size - 4, cut)}
        elif not whole:
            break
        elif kind == PACKET_HEADER and len(body) >= 7:
            fields["id"] = number(body)
        elif kind in FIELDS:
            fields[FIELDS[kind]] = number(body)
        elif kind == CAP_LEN:
            cut = number(body)
            fields["length"] = max(cut, fields["length"])  # type: ignore[call-overload]
        elif kind == SKB_INFO:
            fields["flags"] |= number(body) & 3  # type: ignore[operator]
        left = left[size + -size % 4 :]
    return fields if "id" in fields else None


KINDS = st.one_of(st.sampled_from(KNOWN), st.sampled_from([kind | NESTED for kind in KNOWN]), st.integers(0, 2**16 - 1))
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 1500, 65535, 2**31, 2**32 - 1]).map(lambda one: struct.pack(">I", one))
BODIES = st.one_of(NUMBERS, NUMBERS.map(lambda one: one + b"\x08\0\x02"), st.binary(max_size=24))
WRONG = st.sampled_from([0] * 12 + [-30, -5, -4, -1, 1, 2, 3, 4, 100, 60000])
ATTRIBUTES = st.lists(st.tuples(KINDS, BODIES, WRONG), max_size=6)


@given(ATTRIBUTES, WRONG, st.integers(0, 200), st.booleans())
def test_packets_are_read_as_plainly_as_can_be(
    attributes: list[Attribute], wrong: int, kept: int, headed: bool
) -> None:
    octets = (attribute(PACKET_HEADER, b"\0\0\0\x4d\x08\0\x02") if headed else b"") + b"".join(
        attribute(*one) for one in attributes
    )
    datagram = message(octets, wrong=wrong)
    datagram = datagram[: max(20, len(datagram) - kept)] if kept < 100 else datagram
    claimed = struct.unpack_from("=I", datagram)[0]
    taken, kind, fields = rooms().read_message(datagram)
    if claimed < 20:
        assert kind == "bad"
        return
    expected = obvious(datagram)
    assert (kind, fields) == (("bad", {}) if expected is None else ("packet", expected))
    assert taken == min(claimed + -claimed % 4, len(datagram))


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("length", range(12))
def test_an_attribute_too_short_for_its_number_says_nothing(kind: int, length: int) -> None:
    head = attribute(PACKET_HEADER, b"\0\0\0\x4d\x08\0\x02")
    datagram = message(head + attribute(kind, b"\xff" * length) + attribute(MARK, b"\0\0\0\5"))
    assert rooms().read_message(datagram)[1:] == ("packet", obvious(datagram))
    fields = rooms().read_message(datagram)[2]
    assert fields["mark"] == 5, "the next one is read"
    if length < 4 and kind in FIELDS and kind != MARK:
        assert fields[FIELDS[kind]] == 0
    if length < 7 and kind == PACKET_HEADER:
        assert fields["id"] == 77


def test_a_packet_of_the_longest_attribute_comes_whole() -> None:
    payload = bytes(at % 251 for at in range(65531))
    head = attribute(PACKET_HEADER, b"\0\0\0\x4d\x08\0\x02")
    fields = rooms().read_message(message(head + attribute(PAYLOAD, payload)))[2]
    assert (fields["length"], fields["payload"]) == (65531, payload)
    # A super-packet that no attribute holds: the kernel says how long it was.
    fields = rooms().read_message(message(head + attribute(CAP_LEN, b"\0\1\0\0") + attribute(PAYLOAD, payload)))[2]
    assert (fields["length"], fields["payload"]) == (65536, payload)


@pytest.mark.parametrize("size", range(41))
def test_a_datagram_cut_anywhere_is_taken_whole_and_once(size: int) -> None:
    datagram = message(attribute(PACKET_HEADER, b"\0\0\0\x4d\x08\0\x02") + attribute(MARK, b"\0\0\0\5"))
    assert len(datagram) == 40
    cut = datagram[:size]
    if not cut:
        return
    taken, kind, fields = rooms().read_message(cut)
    assert taken == size
    assert kind == ("packet" if size >= 31 else "bad"), "as soon as its id is there"
    assert fields.get("mark", 0) == (5 if size >= 40 else 0)


@pytest.mark.parametrize("claimed", [0, 1, 15, 2**31, 2**32 - 1, 2**32 - 3])
def test_a_length_that_cannot_be_takes_no_more_than_there_is(claimed: int) -> None:
    whole = message(attribute(PACKET_HEADER, b"\0\0\0\x4d\x08\0\x02"))
    taken, kind, _ = rooms().read_message(struct.pack("=I", claimed) + whole[4:])
    assert (taken, kind) == (len(whole), "packet" if claimed >= len(whole) else "bad")


@pytest.mark.parametrize(("length", "kind"), [(16, "bad"), (19, "bad"), (20, "error"), (36, "error")])
def test_an_error_without_its_number_is_none(length: int, kind: str) -> None:
    datagram = struct.pack("=IHHIIi", length, ERROR, 0, 0, 0, -2) + bytes(16)
    assert rooms().read_message(datagram[:length])[1:] == (kind, {"error": 2} if kind == "error" else {})


def verdicts(octets: bytes) -> list[tuple[int, int, bytes | None, int]]:
    """What the kernel would read: (id, verdict, payload, mark) of each."""
    found = []
    while octets:
        length, kind, flags, seq, port = struct.unpack_from("=IHHII", octets)
        assert (kind, flags, seq, port) == (VERDICT, 1, 0, 0), "a single verdict, to which nobody answers"
        attributes, left = {}, octets[20 : length + -length % 4]
        while left:
            size, number = struct.unpack_from("=HH", left)
            assert number not in attributes
            attributes[number] = left[4:size]
            assert not any(left[size : size + -size % 4]), "padding is nothing of ours"
            left = left[size + -size % 4 :]
        assert set(attributes) <= {2, MARK, PAYLOAD}
        verdict, packet = struct.unpack(">II", attributes[2])
        mark = struct.unpack(">I", attributes[MARK])[0] if MARK in attributes else 0
        found.append((packet, verdict, attributes.get(PAYLOAD), mark))
        octets = octets[length + -length % 4 :]
    return found


PAYLOADS = st.one_of(st.none(), st.binary(max_size=40))
IDS = st.integers(0, 2**32 - 1)
WANTED = st.lists(st.tuples(IDS, st.sampled_from([0, 1]), PAYLOADS, st.sampled_from([0, 1, 2**32 - 1])), max_size=8)


@given(WANTED, st.integers(0, 260))
def test_a_verdict_is_written_whole_or_not_at_all(wanted: list[tuple[int, int, bytes | None, int]], room: int) -> None:
    told, octets = rooms().write_verdicts(room, wanted)
    written, left = [], room
    for one, what in zip(wanted, told, strict=True):
        _, _, payload, mark = one
        need = 32 + (8 if mark else 0) + (0 if payload is None else 4 + len(payload) + -len(payload) % 4)
        assert what == ("put" if need <= left else "full" if need <= room else "too long")
        if what == "put":
            written.append(one)
            left -= need
    assert verdicts(octets) == written


@pytest.mark.parametrize("length", range(9))
@pytest.mark.parametrize("less", range(5))
def test_padding_needs_its_room_too(length: int, less: int) -> None:
    one, other = (1, 1, None, 0), (2, 1, bytes(length), 0)
    need = 36 + length + -length % 4
    told, octets = rooms().write_verdicts(32 + need - less, [one, other])
    assert told == ["put", "full" if less else "put"]
    assert verdicts(octets) == ([one] if less else [one, other])
    assert rooms().write_verdicts(need - less, [other])[0] == ["too long" if less else "put"]


@pytest.mark.parametrize(("length", "what"), [(65531, "put"), (65532, "too long"), (2**17, "too long")])
def test_no_attribute_is_longer_than_its_length_can_say(length: int, what: str) -> None:
    told, octets = rooms().write_verdicts(2**18, [(1, 1, bytes(length), 5), (2, 0, None, 0)])
    assert told == [what, "put"]
    assert [len(payload or b"") for _, _, payload, _ in verdicts(octets)] == [length if what == "put" else 0, 0][
        -len(verdicts(octets)) :
    ]
