"""NFQUEUE's messages: read whatever their lengths say, written as the kernel reads them."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.cext.drivers.netlink import emit_verdict, parse_messages

PARTIAL, GSO = 1, 2
NFQA_MARK, NFQA_PAYLOAD = 3, 10


def attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def message(*attributes: bytes, kind: int = 0x300, queue: int = 7) -> bytes:
    body = struct.pack(">BBH", 2, 0, queue) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


HEADER = attribute(1, struct.pack(">IHB", 77, 0x0800, 2))
IN, OUT = attribute(5, struct.pack(">I", 3)), attribute(6, struct.pack(">I", 4))
PAYLOAD = attribute(10, b"0123456")
WHOLE = message(HEADER, IN, OUT, attribute(14, struct.pack(">I", 3)), PAYLOAD)


def test_a_packet_with_all_its_attributes() -> None:
    assert parse_messages(WHOLE) == [("packet", 77, 7, 3, 4, PARTIAL | GSO, 7, b"0123456", 0)]


def test_attributes_nobody_asked_for_are_passed_over() -> None:
    extra = attribute(9, bytes(12)), attribute(0x8000 | 19, attribute(1, b"\0\1")), attribute(200, b"x")
    assert parse_messages(message(HEADER, *extra, PAYLOAD)) == [("packet", 77, 7, 0, 0, 0, 7, b"0123456", 0)]


@pytest.mark.parametrize("attributes", [(PAYLOAD, "cut"), ("cut", PAYLOAD)])
def test_a_packet_the_kernel_cut_has_its_real_length(attributes: tuple[object, ...]) -> None:
    cut = attribute(13, struct.pack(">I", 9000))
    packet = message(HEADER, *(cut if item == "cut" else item for item in attributes))
    assert parse_messages(packet) == [("packet", 77, 7, 0, 0, 0, 9000, b"0123456", 0)]


def test_a_message_cut_by_the_buffer_is_a_packet_cut() -> None:
    assert parse_messages(WHOLE[:-5]) == [("packet", 77, 7, 3, 4, PARTIAL | GSO, 7, b"012", 0)]


def test_a_packet_without_payload_still_wants_its_verdict() -> None:
    assert parse_messages(message(HEADER)) == [("packet", 77, 7, 0, 0, 0, 0, b"", 0)]


def test_without_an_id_nothing_can_be_answered() -> None:
    assert parse_messages(message(PAYLOAD)) == [("bad",)]
    assert parse_messages(message(attribute(1, b"\0\0\0"))) == [("bad",)]


def test_several_messages_in_a_datagram() -> None:
    error = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -errno.ENOENT)
    done = struct.pack("=IHHII", 16, 3, 0, 0, 0)
    kinds = [found[0] for found in parse_messages(WHOLE + error + done + WHOLE + b"\1")]
    assert kinds == ["packet", "error", "other", "packet", "bad"]
    assert parse_messages(error) == [("error", errno.ENOENT)]


@given(st.data())
def test_no_length_is_believed(data: st.DataObject) -> None:
    torn = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(0, 4))):
        torn[data.draw(st.integers(0, len(torn) - 1))] = data.draw(st.integers(0, 255))
    torn = torn[: data.draw(st.integers(0, len(torn)))]
    for found in parse_messages(bytes(torn)):
        if found[0] == "packet":
            *_, length, payload, _ = found
            assert payload in bytes(torn)
            assert length >= len(payload)


@given(st.binary(max_size=200))
def test_any_octets_are_read_to_their_end(octets: bytes) -> None:
    assert len(parse_messages(octets)) <= len(octets)


@given(st.integers(0, 24), st.integers(0, 3))
def test_an_id_that_can_be_read_is_always_answered(cut: int, byte: int) -> None:
    """Whatever follows the packet header: its id comes out as a packet."""
    torn = bytearray(WHOLE)
    torn[32 + cut + byte] ^= 0xFF
    assert next(found[:2] for found in parse_messages(bytes(torn))) == ("packet", 77)


def test_the_verdicts_octets() -> None:
    head = struct.pack("=IHHII", 32, 0x301, 1, 0, 0) + b"\0\0\0\7" + struct.pack("=HH", 12, 2)
    assert emit_verdict(7, 77, True) == head + struct.pack(">II", 1, 77)
    assert emit_verdict(7, 77, False) == head + struct.pack(">II", 0, 77)


def test_a_replacing_verdict_carries_its_payload_padded() -> None:
    found = emit_verdict(7, 77, True, b"01234")
    assert struct.unpack_from("=I", found) == (32 + 4 + 5,)
    assert found[32:] == struct.pack("=HH", 9, 10) + b"01234" + bytes(3)
    assert len(emit_verdict(7, 77, True, bytes(65531))) == 32 + 4 + 65532


def test_a_mark_stands_in_front_of_the_payload_and_is_read_from_a_packet() -> None:
    mark = struct.pack("=HH", 8, NFQA_MARK) + struct.pack(">I", 0x10000001)
    assert emit_verdict(7, 77, True, mark=0x10000001)[32:] == mark
    assert emit_verdict(7, 77, True, mark=0)[32:] == mark[:4] + bytes(4)
    assert emit_verdict(7, 77, True)[32:] == b""
    assert emit_verdict(7, 77, True, b"01234", mark=0x10000001)[32:] == (
        mark + struct.pack("=HH", 9, NFQA_PAYLOAD) + b"01234" + bytes(3)
    )
    ((*_, found),) = parse_messages(message(HEADER, mark, PAYLOAD))
    assert found == 0x10000001


def test_a_payload_no_attribute_can_hold_is_refused_not_cut() -> None:
    with pytest.raises(OSError, match="no netlink message"):
        emit_verdict(7, 77, True, bytes(65532))
