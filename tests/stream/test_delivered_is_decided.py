"""Invariants 1 to 8 under an adversarial network: what receivers can put together is what was decided."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Mode
from tests.stream.receiver import Receiver
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH, parse

COMMANDS = [b"HELO a\r\n", b"EHLO evil\r\n", b"NOOP\r\n", b"STARTTLS\r\n", b"EXPN x\r\n", b"RSET\r\n", b"helo b\r\n"]
TEXT = [
    b"text text text\r\n",
    b"EHLO in text\r\n",
    b".\r\n",
    b".dot\r\n",
    b"\r\n",
    b"x\n.\nEHLO smuggled\r\n",
    b"a\r.\r\n",
]
ALLOWED = {b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT"}
ISNS = st.sampled_from([1000, 2**32 - 3, 2**32 - 20, 2**31 - 5])


class Wire(Dialogue):
    """A dialogue whose server is two receivers at once; what they have is acknowledged, on and off."""

    def __init__(self, mode: Mode, family: int, isn: int, *, in_text: bool) -> None:
        from nfmailguard.engine import Engine
        from nfmailguard.policy.model import FlowRule

        self.receivers: list[Receiver] = []
        self.losing = False  # what leaves the gateway now never arrives
        super().__init__(Engine([FlowRule(mode, load_profile("pix63"))]), family, isn=(isn, 77))
        self.server(b"220 x\r\n")
        if in_text:
            self.client(b"DATA\r\n")
            self.server(b"354 go\r\n")
        begun = self.sent[True] - 1
        self.receivers = [Receiver(begun, last_wins=False), Receiver(begun, last_wins=True)]
        self.delivered_before = len(self.received[True])

    def carry_out(self, operations: list[tuple[int, int, bytes | None, bool]]) -> list[int]:
        for kind, packet_id, data, _ in operations:
            if kind in (0, 1):
                to_server, packet = self.open[packet_id]
                segment = parse(data or packet)
                if to_server and not self.losing:
                    for receiver in self.receivers:
                        receiver.take(segment.seq, segment.payload)
        return super().carry_out(operations)

    def transmit(self, start: int, octets: bytes) -> None:
        """The client's octets from ``start`` on, as one segment."""
        self.send(True, ACK | PSH, octets, seq=(self.sent[True] + start) % 2**32)

    def acknowledge(self) -> None:
        """The server acknowledges what both receivers have."""
        from tests.support.wire import build

        ack = self.receivers[0].expects
        self.raw(False, build(self.server_end, self.client_end, self.sent[False], ack, ACK))


@st.composite
def transmissions(draw: st.DrawFn, size: int) -> list[tuple[int, int, int]]:
    """Segments of a stream of ``size`` octets in any order: start, end, what is wrong with them.

    1: they carry other octets; 2: they are lost behind the gateway.
    """
    spans = []
    for _ in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, size - 1))
        spans.append((start, draw(st.integers(start + 1, min(size, start + 40))), draw(st.sampled_from([0, 0, 1, 2]))))
    return spans


def forged(octets: bytes) -> bytes:
    """Other octets of the same length that would do harm."""
    return (b"\r\nEXPN root\r\nEHLO evil\r\n" * 4)[: len(octets)]


def run(wire: Wire, stream: bytes, spans: list[tuple[int, int, int]], acks: list[bool]) -> None:
    for (start, end, wrong), ack in zip(spans, acks, strict=False):
        wire.losing = wrong == 2
        wire.transmit(start, forged(stream[start:end]) if wrong == 1 else stream[start:end])
        wire.losing = False
        if ack:
            wire.acknowledge()
    # An honest sender repeats what is missing until all is there, or the flow has been ended.
    for _ in range(2 * len(stream)):
        have = len(wire.receivers[0].stream)
        if have >= len(stream) or wire.resets:
            return
        wire.transmit(have, stream[have : have + 7])
        wire.acknowledge()


def readable_verbs(stream: bytes) -> set[bytes]:
    return {match[1].upper() for match in re.finditer(rb"(?:^|[\r\n])([A-Za-z]+)(?=[ \r\n])", stream)}


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_2_both_kinds_of_receivers_get_the_same_commands_and_none_denied(family: int, data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=8)))
    spans = data.draw(transmissions(len(stream)))
    wire = Wire(Mode.ENFORCE, family, data.draw(ISNS), in_text=False)
    run(wire, stream, spans, data.draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans))))
    first, last = (bytes(receiver.stream) for receiver in wire.receivers)
    assert first == last
    # The proper beginning of an allowed verb, cut from its line's end, has left before it is known to be none.
    readable = {verb for verb in readable_verbs(first[: first.rfind(b"\n") + 1]) if b"X" not in verb}
    assert all(any(allowed.startswith(verb) for allowed in ALLOWED) for verb in readable)
    assert wire.resets or len(first) >= len(stream)


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_2_message_text_ends_for_every_receiver_where_it_ends_for_us(family: int, data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(st.sampled_from(TEXT + COMMANDS), min_size=1, max_size=8)))
    spans = data.draw(transmissions(len(stream)))
    wire = Wire(Mode.ENFORCE, family, data.draw(ISNS), in_text=True)
    run(wire, stream, spans, data.draw(st.lists(st.booleans(), min_size=len(spans), max_size=len(spans))))
    first, last = (bytes(receiver.stream) for receiver in wire.receivers)
    assert first == last
    text, ended, behind = (b"\r\n" + first).partition(b"\r\n.\r\n")
    if not ended:
        text = text.removesuffix(b"\r\n.\r")  # the standard end, all but its last octet
    assert not re.search(rb"[\r\n]\.[\r\n]", text)
    if ended:
        verbs = readable_verbs(behind[: behind.rfind(b"\n") + 1])
        assert {verb for verb in verbs if b"X" not in verb} <= ALLOWED


@given(data=st.data())
def test_1_every_packet_is_answered_once_and_6_memory_comes_back(data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=8)))
    wire = Wire(data.draw(st.sampled_from([Mode.ENFORCE, Mode.MONITOR])), 4, 1000, in_text=data.draw(st.booleans()))
    run(wire, stream, data.draw(transmissions(len(stream))), [True, False] * 6)
    wire.carry_out(wire.engine.finish(wire.now + 1))
    assert not wire.open  # Dialogue.carry_out fails on a second answer
    wire.engine.expire(wire.now + 2)
    counters = wire.engine.counters()
    assert (counters["memory_now"], counters["flows_now"], counters["held_now"]) == (0, 0, 0)
    assert counters["packets"] == counters["accepted"] + counters["replaced"] + counters["dropped"]
    assert counters["dropped"] == sum(value for name, value in counters.items() if name.startswith("drop."))


@given(data=st.data())
def test_5_monitor_lets_every_packet_through_as_it_came(data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.lists(st.sampled_from(TEXT + COMMANDS), min_size=1, max_size=8)))
    wire = Wire(Mode.MONITOR, 4, 1000, in_text=data.draw(st.booleans()))
    run(wire, stream, data.draw(transmissions(len(stream))), [True, False] * 6)
    counters = wire.engine.counters()
    assert counters["accepted"] == counters["packets"]
    assert not wire.emitted
