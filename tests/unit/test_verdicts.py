"""One verdict for every packet, whatever its bytes are, and a reason for every drop (invariants 1, 7 and 8)."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.engine import Engine
from nfmailguard.policy.model import FlowRule, Mode, Policy

ACCEPT, REPLACE, DROP, EMIT = range(4)
IPV4, IPV6 = socket.inet_aton("192.0.2.1"), socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def segment(version: int, to_server: bool, flags: int, payload: bytes) -> bytes:
    """A TCP segment of one flow; its checksums are not filled in."""
    ports = (4025, 25) if to_server else (25, 4025)
    tcp = struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 8192, 0, 0) + payload
    if version == 4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0) + 2 * IPV4 + tcp
    return struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + 2 * IPV6 + tcp


segments = st.builds(segment, st.sampled_from([4, 6]), st.booleans(), st.integers(0, 255), st.binary(max_size=40))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A segment with some of its octets replaced, and cut."""
    octets = bytearray(draw(segments))
    for place, octet in draw(st.lists(st.tuples(st.integers(0, len(octets) - 1), st.integers(0, 255)), max_size=8)):
        octets[place] = octet
    return bytes(octets[: draw(st.integers(1, len(octets)))])


@given(
    mode=st.sampled_from([Mode.ENFORCE, Mode.MONITOR]),
    packets=st.lists(st.one_of(segments, damaged(), st.binary(min_size=1, max_size=100)), min_size=1, max_size=20),
    missing=st.integers(0, 2000),
)
def test_every_packet_gets_one_verdict(mode: Mode, packets: list[bytes], missing: int) -> None:
    engine = Engine((FlowRule(mode=mode, policy=Policy(name="test")),))
    operations = []
    for number, packet in enumerate(packets, start=1):
        length = len(packet) + missing if number % 5 == 0 else 0
        operations += engine.process(packet, number * 1_000_000, id=number, length=length)
    operations += engine.finish(len(packets) * 1_000_000)
    verdicts = [number for kind, number, _, _ in operations if kind != EMIT]
    assert sorted(verdicts) == list(range(1, len(packets) + 1))
    counters = engine.counters()
    assert counters["packets"] == counters["accepted"] + counters["replaced"] + counters["dropped"]
    assert counters["dropped"] == sum(value for name, value in counters.items() if name.startswith("drop."))
    assert all(data is not None for kind, _, data, _ in operations if kind in (REPLACE, EMIT))
