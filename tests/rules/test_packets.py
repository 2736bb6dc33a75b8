"""Packets: what is dropped before anything is believed, and what is passed on unread (docs/streams.md)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from nfmailguard.engine import Engine
from nfmailguard.policy.model import Action, FlowRule, Mode, On
from nfmailguard.ruleset import Ruleset
from tests.rules.gateway import ACCEPT, DROP, EMIT, PARTIAL, REPLACE, RESET, Connection, Gateway, profile
from tests.support.dialogue import findings
from tests.support.wire import ACK, FIN, PSH, RST, SYN, URG, checksum

families = pytest.mark.parametrize("family", [4, 6])
HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT, TCP = 0, 43, 60, 44, 6


def spoiled(packet: bytes) -> bytes:
    """The packet with a wrong TCP checksum."""
    at = (20 if packet[0] >> 4 == 4 else 40) + 16
    return packet[:at] + bytes([packet[at] ^ 0x55]) + packet[at + 1 :]


@families
def test_bad_checksum_hides_nothing_behind_octets_the_server_never_sees(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.raw(True, spoiled(connection.packet(True, payload=b"NOOP\r\n"))) == [DROP]
    assert connection.gateway.count("bad_checksum") == 1
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX\r\n"
    assert connection.names == ["command.denied"]


@families
def test_bad_checksum_acknowledges_nothing_and_ends_nothing(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(True, payload=b"NOOP\r\n", lost=True)
    connection.raw(False, spoiled(connection.packet(False, ACK, ack=connection.sent[True] + 6)))
    connection.raw(True, spoiled(connection.packet(True, RST)))
    connection.raw(True, spoiled(connection.packet(True, FIN | ACK)))
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.server_reads == b"NOOP\r\n"


@families
def test_bad_checksum_is_no_matter_where_the_kernel_has_not_filled_it_in(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.raw(True, spoiled(connection.packet(True, payload=b"EXPN\r\n")), flags=PARTIAL) == [REPLACE]
    assert connection.server_reads == b"XXXX\r\n"  # and leaves with a whole one


@families
@pytest.mark.parametrize(
    "flags",
    [0, FIN, PSH, URG, FIN | PSH | URG, SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | RST | ACK, 0x3F, 0xC0],
    ids=hex,
)
def test_odd_flags_are_dropped_in_a_flow_and_before_there_is_one(family: int, flags: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, flags, b"NOOP\r\n") == [DROP]
    assert connection.send(False, flags) == [DROP]
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.names == ["packet.odd_flags", "packet.odd_flags", "command.denied"]
    stranger = Connection(family=family, shake=False)
    assert stranger.send(True, flags) == [DROP]
    assert stranger.names == ["packet.odd_flags"]
    assert stranger.gateway.count("flows_now") == 0


def test_odd_flags_are_not_those_of_ecn() -> None:
    connection = Connection(shake=False)
    assert connection.send(True, SYN | 0xC0) == [ACCEPT]  # RFC 3168 6.1.1: ECE and CWR
    assert connection.names == []


def fragments(connection: Connection) -> list[bytes]:
    """A command as the first and as the last part of a packet."""
    whole = connection.packet(True, payload=b"EXPN\r\n")
    if whole[0] >> 4 == 4:
        parts = [whole[:6] + struct.pack("!H", field) + whole[8:] for field in (0x2000, 0x0004, 0x2004)]
        return [
            part[:10] + struct.pack("!H", checksum(part[:10] + bytes(2) + part[12:20])) + part[12:] for part in parts
        ]
    parts = [struct.pack("!BBHI", TCP, 0, field, 7) for field in (0x0001, 0x0020, 0x0021, 0)]
    return [connection.packet(True, payload=b"EXPN\r\n", extra=part, extra_kind=FRAGMENT) for part in parts]


@families
def test_fragment_is_dropped_wherever_it_was_cut(family: int) -> None:
    connection = Connection(family=family).greeted()
    parts = fragments(connection)
    assert [connection.raw(True, part) for part in parts] == [[DROP]] * len(parts)
    assert set(connection.names) == {"packet.fragment"}
    assert connection.gateway.count("finding.packet.fragment") == len(parts)


def test_fragment_behind_another_extension_header_is_dropped() -> None:
    connection = Connection(family=6).greeted()
    extra = struct.pack("!BB6x", FRAGMENT, 0) + struct.pack("!BBHI", TCP, 0, 0x0001, 7)
    assert connection.raw(True, connection.packet(True, payload=b"EXPN\r\n", extra=extra, extra_kind=DESTINATION)) == [
        DROP
    ]
    assert connection.names == ["packet.fragment"]


def test_fragment_is_joined_by_conntrack_which_our_table_makes_run() -> None:
    inspect = Ruleset(0, 0, [25], ["forward"]).render().partition("chain inspect {")[2].partition("}")[0]
    assert 0 < inspect.find("ct state ") < inspect.find("queue to")


@families
def test_truncated_is_dropped_and_nothing_of_it_decided(family: int) -> None:
    connection = Connection(family=family).greeted()
    packet = connection.packet(True, payload=b"NOOP\r\nEXPN\r\n")
    for missing in (1, 6, 12, 20, len(packet) - 20):
        assert connection.raw(True, packet, captured=len(packet) - missing) == [DROP]
    assert set(connection.names) == {"packet.truncated"}
    assert connection.gateway.count("truncated") == 5
    assert connection.client(b"EXPN\r\n") == [REPLACE]


@families
@pytest.mark.parametrize(("action", "kinds"), [(Action.PASS, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, RESET)])
def test_truncated_is_what_on_truncated_says(family: int, action: Action, kinds: list[int]) -> None:
    connection = Connection(Gateway(on=On(truncated=action)), family).greeted()
    packet = connection.packet(True, payload=b"NOOP\r\nEXPN\r\n")
    assert connection.raw(True, packet, captured=len(packet) - 6) == kinds
    assert len(connection.server_reads) == (12 if action is Action.PASS else 0)
    # What the server acknowledges then has not gone past us unseen: we let it go.
    assert connection.send(False, payload=b"250 ok\r\n") == ([DROP, EMIT] if action is Action.RESET else [ACCEPT])


@families
def test_truncated_is_a_super_packet_longer_than_its_header_can_say(family: int) -> None:
    connection = Connection(family=family).greeted()
    packet = connection.packet(True, payload=b"NOOP\r\n" * 10000)
    at = 2 if family == 4 else 4
    if family == 6:  # RFC 2675: a jumbo payload option; Linux's BIG TCP goes without, too
        jumbo = struct.pack("!BBBBI", TCP, 0, 0xC2, 4, 70000)
        with_option = connection.packet(True, payload=b"NOOP\r\n" * 10000, extra=jumbo, extra_kind=HOP_BY_HOP)
        assert connection.raw(True, with_option[:at] + bytes(2) + with_option[at + 2 :], length=70040) == [DROP]
    assert connection.raw(True, packet[:at] + bytes(2) + packet[at + 2 :], length=70000) == [DROP]
    assert set(connection.names) == {"packet.truncated"}


@families
def test_malformed_lengths_are_dropped(family: int) -> None:
    connection = Connection(family=family).greeted()
    packet = connection.packet(True, payload=b"EXPN\r\n")
    tcp, total = (20, 2) if family == 4 else (40, 4)
    wrong = [
        packet[:total] + struct.pack("!H", 2000) + packet[total + 2 :],  # longer than what came
        packet[: tcp + 12] + b"\x40" + packet[tcp + 13 :],  # a TCP header of 16 octets
        packet[: tcp + 12] + b"\xf0" + packet[tcp + 13 :],  # one that is longer than the segment
        packet[:total] + struct.pack("!H", 24 if family == 4 else 4) + packet[total + 2 :],  # no room for one
        b"\x50" + packet[1:],  # IP version 5
        packet[:19],
    ]
    if family == 4:
        wrong.append(b"\x44" + packet[1:])  # an IPv4 header of 16 octets
    else:
        wrong.append(
            packet[:6] + bytes([DESTINATION]) + packet[7:40] + b"\x06\xff" + packet[42:]
        )  # a header past the end
    assert [connection.raw(True, packet) for packet in wrong] == [[DROP]] * len(wrong)
    assert connection.gateway.count("malformed") == len(wrong)
    assert connection.client(b"EXPN\r\n") == [REPLACE]


HEADERS = {
    "ttl": {"ttl": 1},
    "dscp and ecn": {"tos": 0xBB},
    "a window of nothing": {"window": 0},
}


@families
@pytest.mark.parametrize("name", HEADERS)
def test_headers_decide_nothing_but_are_passed_on(family: int, name: str) -> None:
    header = HEADERS[name]
    connection = Connection(family=family).greeted()
    # It dies on the way: its bytes have been decided all the same.
    first = connection.packet(True, payload=b"NOOP a\r\n", **header)
    assert connection.raw(True, first, lost=True) == [ACCEPT]
    assert connection.left[-1] == first
    assert connection.client(b"EXPN b\r\n") == [REPLACE]
    assert connection.server_reads == b"NOOP a\r\n"
    # And no header hides a command.
    second = connection.packet(True, payload=b"VRFY b\r\n", **header)
    assert connection.raw(True, second) == [REPLACE]
    assert connection.server_reads.endswith(b"XXXX b\r\n")
    changed = connection.left[-1]
    assert changed[: len(changed) - 8][:10] == second[: len(second) - 8][:10]


EXTENSIONS = {
    "hop by hop": {"extra": struct.pack("!BB6x", TCP, 0), "extra_kind": HOP_BY_HOP},
    "destination options": {"extra": struct.pack("!BB14x", TCP, 1), "extra_kind": DESTINATION},
    "an option that a host must refuse": {  # RFC 8200 4.2: the two highest bits say so
        "extra": struct.pack("!BBBBI", TCP, 0, 0xDE, 4, 0),
        "extra_kind": DESTINATION,
    },
    "two of them": {"extra": struct.pack("!BB6xBB6x", DESTINATION, 0, TCP, 0), "extra_kind": ROUTING},
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_extension_headers_of_ipv6_do_not_pass(name: str) -> None:
    header = EXTENSIONS[name]
    begun = Connection(family=6, shake=False)
    assert begun.send(True, SYN, **header) == [DROP]
    connection = Connection(family=6).greeted()
    for to_server, flags, payload in (
        (True, ACK | PSH, b"NOOP\r\n"),
        (False, ACK | PSH, b"250 ok\r\n"),
        (True, RST, b""),
        (True, FIN | ACK, b""),
        (True, SYN, b""),
        (False, SYN | ACK, b""),
    ):
        assert connection.send(to_server, flags, payload, **header) == [DROP]
    assert connection.gateway.count("drop.option") >= 5
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX\r\n"


@pytest.mark.parametrize("extra", [b"\x94\x04\x00\x00", b"\x83\x07\x04\x0a\x00\x00\x01\x00", b"\xde\x30\x00\x00"])
def test_extension_headers_are_options_in_ipv4_and_become_nops(extra: bytes) -> None:
    connection = Connection(shake=False)
    assert connection.send(True, SYN, extra=extra) == [REPLACE]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, extra=extra) == [REPLACE]
    connection.sent[False] += 1
    for to_server, flags, payload in (
        (True, ACK, b""),
        (False, ACK | PSH, b"220 ***\r\n"),
        (True, ACK | PSH, b"NOOP\r\n"),
        (True, RST, b""),
    ):
        assert connection.send(to_server, flags, payload, extra=extra) == [REPLACE]
        left = connection.left[-1]
        assert left[20 : 20 + len(extra)] == b"\x01" * len(extra)
        assert checksum(left[: 20 + len(extra)]) == 0
        if payload and not to_server:
            connection.sent[False] += len(payload)
    assert connection.server_reads == b"NOOP\r\n"


MD5, AO = b"\x13\x12" + bytes(16) + b"\x01\x01", b"\x1d\x10" + bytes(14)
STAMPS = b"\x01\x01" + struct.pack("!BBII", 8, 10, 5_000, 6_000)


@families
@pytest.mark.parametrize("option", [MD5, AO, STAMPS + MD5], ids=["md5", "ao", "both"])
def test_refused_options_make_a_segment_that_is_not_believed(family: int, option: bytes) -> None:
    connection = Connection(family=family).greeted()
    for to_server, flags, payload in (
        (True, ACK | PSH, b"NOOP\r\n"),
        (True, RST, b""),
        (True, FIN | ACK, b""),
        (True, SYN, b""),
        (False, ACK | PSH, b"250 ok\r\n"),
        (False, RST, b""),
        (False, SYN | ACK, b""),
    ):
        assert connection.send(to_server, flags, payload, options=option) == [DROP]
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX\r\n"
    assert connection.gateway.count("flows_now") == 1


@families
@pytest.mark.parametrize("option", [MD5, AO, STAMPS + MD5], ids=["md5", "ao", "both"])
def test_refused_options_of_the_first_syn_are_dropped_with_it(family: int, option: bytes) -> None:
    connection = Connection(family=family, shake=False)
    assert connection.send(True, SYN, options=option) == [DROP]
    connection.shake(b"")
    assert connection.send(True, ACK, options=option) == [DROP]
    connection.greeted()
    assert connection.client(b"EXPN\r\n") == [REPLACE]


def test_refused_options_move_nothing_in_what_monitor_follows_either() -> None:
    connection = Connection().greeted()
    connection.send(True, payload=b"EXPN x\r\n", options=MD5)
    connection.client(b"VRFY y\r\n")
    assert [f.before for f in findings(connection.gateway.watched) if f.name == "command.denied"] == [b"VRFY y"]


@families
def test_agreed_options_stay_and_all_others_become_nops(family: int) -> None:
    maximum, scale, sack_permitted = b"\x02\x04\x05\xb4", b"\x01\x03\x03\x07", b"\x04\x02"
    sack = b"\x05\x0a" + bytes(8)
    user_timeout, unknown, fast_open = b"\x1c\x04\x00\x01", b"\xfd\x08" + bytes(6), b"\x22\x04\x00\x01"
    connection = Connection(family=family, shake=False)
    offered = maximum + sack_permitted + scale
    assert connection.send(True, SYN, options=offered + STAMPS + unknown + fast_open + b"\x05\x02") == [REPLACE]
    assert connection.last.options == offered + b"\x01" * 26
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, options=maximum + sack_permitted + b"\x01\x01") == [ACCEPT]
    connection.sent[False] += 1
    # Agreed: selective acknowledgements, and never timestamps.
    assert connection.send(True, ACK, options=sack + user_timeout + b"\x01\x01") == [REPLACE]
    assert connection.last.options == sack + b"\x01" * 6
    assert connection.send(True, ACK, options=STAMPS) == [REPLACE]
    assert connection.last.options == b"\x01" * 12
    assert connection.send(True, ACK, options=maximum + scale) == [REPLACE]
    assert connection.last.options == b"\x01" * 8
    assert connection.gateway.count("options_blanked") == 4
    another = Connection(family=family, port=40001, shake=False)
    assert another.send(True, SYN, options=sack + b"\x01\x01") == [REPLACE]


@families
@pytest.mark.parametrize("bad", [b"\xfd\x00\x01\x01", b"\x08\x0c\x00\x00", b"\x01\x01\x01\x05", b"\x01\x01\x13\x01"])
def test_agreed_options_end_where_a_length_cannot_be_right(family: int, bad: bytes) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, ACK, options=bad) == [REPLACE]
    assert connection.last.options == b"\x01" * 4


@families
def test_agreed_options_are_read_once_each(family: int) -> None:
    connection = Connection(family=family, shake=False)
    scale = b"\x01\x03\x03\x07"
    assert connection.send(True, SYN, options=scale + b"\x01\x03\x03\x01") == [REPLACE]
    assert connection.last.options == scale + b"\x01" * 4


@families
def test_urgent_data_is_made_plain_data(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, ACK | PSH | URG, b"NOOP\r\n", urgent=3) == [REPLACE]
    assert connection.server_reads == b"NOOP\r\n"
    assert (connection.last.flags, connection.last.urgent) == (ACK | PSH, 0)
    assert connection.names == ["stream.urgent"]


def test_urgent_is_cleared_without_payload_in_a_held_segment_and_in_the_servers() -> None:
    connection = Connection().greeted()
    assert connection.send(True, ACK | URG, urgent=1) == [REPLACE]
    assert (connection.last.flags, connection.last.urgent) == (ACK, 0)
    assert connection.send(True, ACK | URG, b"NOOP\r\n", at=6, urgent=1) == []
    assert connection.send(True, payload=b"RSET\r\n") == [ACCEPT, REPLACE]
    assert (connection.last.flags, connection.last.urgent, connection.last.payload) == (ACK, 0, b"NOOP\r\n")
    assert connection.send(False, ACK | URG, b"250 ok\r\n", urgent=1) == [REPLACE]
    assert (connection.last.flags, connection.last.urgent) == (ACK, 0)
    assert connection.names == ["stream.urgent"] * 3


def test_urgent_ends_the_flow_where_the_policy_says_so() -> None:
    from nfmailguard.policy.model import CommandPolicy, Policy

    policy = Policy("urgent", commands=CommandPolicy(allow=("NOOP",)), actions={"stream.urgent": Action.RESET})
    connection = Connection(Gateway(policy)).greeted()
    assert connection.send(True, ACK | PSH | URG, b"NOOP\r\n", urgent=3) == RESET


def told_apart(connection: Connection) -> Iterator[tuple[str, bytes, int]]:
    """What is of no flow: its name, the packet and how many octets of it are captured."""
    for to_server in (True, False):
        whole = connection.packet(to_server, payload=b"EXPN\r\n")
        at = 20 if whole[0] >> 4 == 4 else 40
        way = "to the server" if to_server else "to the client"
        yield f"checksum, {way}", spoiled(whole), len(whole)
        yield f"header, {way}", whole[: at + 12] + b"\x10" + whole[at + 13 :], len(whole)
        yield f"length, {way}", whole[:-1], len(whole) - 1
        yield f"cut, {way}", whole, at + 4
        yield f"cut behind the ports, {way}", whole, at + 22
        if at == 20:
            yield f"fragment, {way}", whole[:6] + b"\x20\x00" + whole[8:], len(whole)


@families
@pytest.mark.parametrize("by", ["source", "destination"])
@pytest.mark.parametrize("others", [False, True])
def test_rule_of_no_flow_is_that_of_its_addresses(family: int, by: str, others: bool) -> None:
    connection = Connection(family=family, shake=False)
    end = connection.client_end if by == "source" else connection.server_end
    networks = (ip_network("10.99.0.0/16" if others else end.address),)
    policy = profile("pix63")
    for mode, other in ((Mode.MONITOR, Mode.ENFORCE), (Mode.ENFORCE, Mode.MONITOR)):
        first = FlowRule(mode, policy, **{by: networks})  # type: ignore[arg-type]
        for name, packet, captured in told_apart(connection):
            engine = Engine([first, FlowRule(other, policy)])
            answers = engine.process(packet[:captured], 1, length=len(packet))
            expected = ACCEPT if (other if others else mode) is Mode.MONITOR else DROP
            assert [kind for kind, *_ in answers] == [expected], name
            assert {record[3] for record in engine.drain()} <= {int(others)}, name


@families
@pytest.mark.parametrize("by", ["source", "destination"])
@pytest.mark.parametrize("to_server", [True, False])
def test_rule_of_no_flow_is_told_by_the_ports_of_a_first_part(family: int, by: str, to_server: bool) -> None:
    """What holds for the connections that a server begins does not for those that come to it."""
    connection = Connection(family=family, shake=False)
    end = connection.server_end if by == "source" else connection.client_end
    policy = profile("pix63")
    whole = connection.packet(to_server, payload=b"EXPN\r\n")
    if family == 4:
        part = whole[:6] + b"\x20\x00" + whole[8:]
    else:
        part = whole[:4] + struct.pack("!HB", len(whole) - 32, 44) + whole[7:40] + b"\x06\0\0\1\0\0\0\7" + whole[40:]
    for mode, kind in ((Mode.MONITOR, DROP), (Mode.ENFORCE, ACCEPT)):
        first = FlowRule(mode, policy, **{by: (ip_network(end.address),)})  # type: ignore[arg-type]
        other = Mode.ENFORCE if mode is Mode.MONITOR else Mode.MONITOR
        assert [answer[0] for answer in Engine([first, FlowRule(other, policy)]).process(part, 1)] == [kind]


def test_rule_of_no_flow_without_addresses_is_the_last() -> None:
    policy = profile("pix63")
    for mode, kind in ((Mode.MONITOR, ACCEPT), (Mode.ENFORCE, DROP)):
        for packet in (b"", b"\x45" * 19, b"\x60" + bytes(38), b"\x75" + bytes(60)):
            engine = Engine([FlowRule(Mode.ENFORCE, policy, source=(ip_network("0.0.0.0/0"),)), FlowRule(mode, policy)])
            assert [answer[0] for answer in engine.process(packet, 1)] == [kind]
