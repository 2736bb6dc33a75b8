"""`lab evade`: its table, what it makes of packets and records, and its exit codes; nothing is sent here."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from nfmailguard import cli
from nfmailguard.errors import ConfigError
from nfmailguard.lab import evade, oracle, testbed
from nfmailguard.lab.bulk import segment
from nfmailguard.lab.evasions import TECHNIQUES
from nfmailguard.lab.evasions.identity import lines
from nfmailguard.lab.lenient_server import Conversation, Personality
from nfmailguard.lab.rawtcp import ACK, PSH, RST, SYN, URG, Ends, RawTcp, Seen, build, parse
from nfmailguard.lab.readers import Reader
from nfmailguard.lab.topology import Topology

ENDS = {4: Ends("10.25.1.66", "10.25.2.2", 4000), 6: Ends("fd25:1::66", "fd25:2::2", 4000)}


class Wire:
    """A link that keeps what it is given."""

    def __init__(self) -> None:
        self.connections: dict[int, RawTcp] = {}
        self.packets: list[Seen] = []
        self.tags = 0

    def next_tag(self) -> int:
        self.tags += 1
        return self.tags

    def send(self, packet: bytes) -> None:
        seen = parse(packet)
        assert seen is not None
        self.packets.append(seen)


def connection(**fields: Any) -> RawTcp:
    made = RawTcp(Wire(), ENDS[4], **fields)  # type: ignore[arg-type]
    made.put_syn()
    made.arrived(Seen(1, ENDS[4].turned(), 9000, made.isn + 1, SYN | ACK, 65535, b""))
    return made


def test_the_table_has_every_kind_and_says_why() -> None:
    names = [technique.name for technique in TECHNIQUES]
    assert len(names) == len(set(names))
    for family in (4, 6):
        assert sum(family in technique.families for technique in TECHNIQUES) >= 230
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert all(5 < len(technique.why) < 140 for technique in TECHNIQUES)
    kinds = [
        "order",
        "headers",
        "handshake",
        "identity",
        "reuse",
        "confusion",
        "packets",
        "multipath",
        "beside",
        "commands",
        "long lines",
        "extensions",
        "text",
        "replies",
    ]
    assert list(dict.fromkeys(technique.kind for technique in TECHNIQUES)) == kinds


def test_the_list_names_them_all() -> None:
    said = CliRunner().invoke(cli.cli, ["lab", "evade", "--list"])
    assert said.exit_code == 0
    assert all(f"  {technique.name} " in said.stdout for technique in TECHNIQUES)


def test_a_name_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match="--only nonsense: no such technique"):
        evade.chosen(evade.Choice(only=("nonsense",)))
    assert [one.name for one in evade.chosen(evade.Choice(only=("wrap", "verb-cut")))] == ["wrap", "verb-cut"]
    with pytest.raises(ConfigError, match="no technique is of all that"):
        evade.chosen(evade.Choice(like="nonsense"))


def test_what_is_of_one_family_runs_on_that_one_alone() -> None:
    six = {one.name for one in evade.chosen(evade.Choice(family=6))}
    four = {one.name for one in evade.chosen(evade.Choice(family=4))}
    assert "ipv4-options" in four - six
    assert "ipv6-many-headers" in six - four


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_is_read_as_it_was_built(family: int) -> None:
    fields = {"flags": PSH | ACK, "seq": 5, "ack": 7, "window": 9, "options": [("MSS", 1460)]}
    seen = parse(bytes(build(ENDS[family], 77, b"hello", **fields)) + b"padding")
    assert seen == Seen(77, ENDS[family], 5, 7, PSH | ACK, 9, b"hello", b"\x02\x04\x05\xb4")
    assert seen.ends.turned().turned() == ENDS[family]


def test_extension_headers_are_walked_and_other_packets_are_none() -> None:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN

    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    seen = parse(bytes(build(ENDS[6], 1, b"x", extensions=options / options)))
    assert seen is not None
    assert seen.payload == b"x"
    assert parse(bytes(build(ENDS[6], 1, b"x", extensions=IPv6ExtHdrFragment()))) is None
    assert parse(b"\x45") is None
    assert parse(bytes(build(ENDS[4], 1, b"x"))[:-1]) is None


def test_the_endpoint_reads_in_order_and_keeps_what_was_repeated() -> None:
    client = connection()
    client.put(flags=ACK)
    turned = ENDS[4].turned()
    client.arrived(Seen(2, turned, 9001 + 3, 0, ACK, 65535, b"later"))
    assert client.text == b""
    client.arrived(Seen(3, turned, 9001, 0, ACK, 65535, b"220"))
    client.arrived(Seen(4, turned, 9001, 0, ACK, 65535, b"999 x"))
    assert client.text == client.heard == b"220 x"
    assert bytes(client.heard_last[place] for place in range(5)) == b"999 x"
    wire: Any = client.link
    assert wire.packets[-1].ack == 9001 + 5


def test_what_is_not_acknowledged_is_sent_again_as_it_was_said_last() -> None:
    client = connection(isn=(1 << 32) - 3)
    client.put(b"NOOP\r\n", 0)
    client.put(b"EXPN\r\n", 0)
    client.arrived(Seen(2, ENDS[4].turned(), 9001, client.sequence(2), ACK, 65535, b""))
    assert client.put_again()
    wire: Any = client.link
    assert (wire.packets[-1].payload, wire.packets[-1].seq) == (b"PN\r\n", 0)
    client.arrived(Seen(3, ENDS[4].turned(), 9001, client.sequence(6), ACK, 65535, b""))
    assert not client.put_again()


@pytest.mark.parametrize("family", [4, 6])
def test_packets_made_in_bulk_are_like_the_others(family: int) -> None:
    from scapy.layers.inet6 import HBHOptUnknown, IPv6ExtHdrDestOpt

    signature = b"\x13\x12" + bytes(16) + b"\x01\x01"
    ours = segment(ENDS[family], ACK, 5, 7, b"hello", options=signature, window=9, tag=77)
    fields = {"flags": ACK, "seq": 5, "ack": 7, "window": 9, "options": [(19, bytes(16)), ("NOP", None), ("NOP", None)]}
    theirs = build(ENDS[family], 77, b"hello", **fields)
    if family == 4:
        theirs.flags = "DF"
    assert ours == bytes(theirs)
    if family == 6:
        options = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x9E, optdata=bytes(4))])
        ours = segment(ENDS[6], ACK, 5, destination_options=b"\x9e\x04" + bytes(4))
        assert ours == bytes(build(ENDS[6], 0, flags=ACK, seq=5, window=65535, extensions=options))


def test_a_timestamp_is_echoed() -> None:
    client = connection(timestamps=True)
    stamp = b"\x01\x01\x08\x0a\x00\x00\x10\x01" + bytes(4)
    client.arrived(Seen(2, ENDS[4].turned(), 9001, client.isn + 1, ACK, 65535, b"220 x\r\n", stamp))
    wire: Any = client.link
    assert wire.packets[-1].options.endswith((0x1001).to_bytes(4, "big"))


def test_techniques_are_chosen_by_a_part_of_their_names() -> None:
    assert {one.kind for one in evade.chosen(evade.Choice(like="long-"))} >= {"long lines"}
    assert all("no-syn" in one.name for one in evade.chosen(evade.Choice(like="no-syn")))
    real = {one.kind for one in evade.chosen(evade.Choice(server="exim"))}
    assert "multipath" not in real


def test_filler_is_of_allowed_commands_alone() -> None:
    for length in (0, 2, 5, 106, 400, 401, 3001):
        filler = lines(length)
        assert len(filler) == length
        assert all(line[:4] in (b"NOOP"[:length], b"NOO", b"NO", b"N", b"") for line in filler.split(b"\r\n"))


#: What each server writes of a client at its most talkative, and of another in between.
LOGS = {
    "postfix": b"""Nov 28 20:10:59 vm postfix/smtpd[77]: connect from unknown[10.25.1.66]:20040
Nov 28 20:10:59 vm postfix/smtpd[77]: > unknown[10.25.1.66]:20040: 220 server.example.com ESMTP Postfix
Nov 28 20:10:59 vm postfix/smtpd[78]: connect from unknown[10.25.1.2]:40000
Nov 28 20:10:59 vm postfix/smtpd[77]: < unknown[10.25.1.66]:20040: EHLO x
Nov 28 20:10:59 vm postfix/smtpd[78]: < unknown[10.25.1.2]:40000: NOOP
Nov 28 20:10:59 vm postfix/smtpd[77]: > unknown[10.25.1.66]:20040: 250-server.example.com
Nov 28 20:10:59 vm postfix/smtpd[77]: > unknown[10.25.1.66]:20040: 250 CHUNKING
Nov 28 20:10:59 vm postfix/smtpd[77]: < unknown[10.25.1.66]:20040: TURN root
Nov 28 20:10:59 vm postfix/smtpd[77]: > unknown[10.25.1.66]:20040: 500 no
""",
    "exim": b"""24575 Listening...
24584 Process 24584 is handling incoming connection from [10.25.1.66]:20040
24585 Process 24585 is handling incoming connection from [10.25.1.2]:40000
24584 SMTP>> 220 mail2.example.com ESMTP Exim 4.96
24584 SMTP<< EHLO x
24585 SMTP<< NOOP
24584 SMTP>> 250-server.example.com
24584        250 CHUNKING
24584 SMTP<< TURN root
24584 LOG: smtp_syntax_error MAIN
24584   SMTP syntax error in "TURN root"
24584 SMTP>> 500 no
""",
    "opensmtpd": b"""smtp: 0x55d0ce819ed0: STATE_NEW -> STATE_CONNECTED
8d8741ff4e4c8f13 smtp connected address=10.25.1.66 host=<unknown>
smtp: 0x55d0ce819ee0: STATE_NEW -> STATE_CONNECTED
8d8741ff4e4c8f14 smtp connected address=10.25.1.2 host=<unknown>
smtp: 0x55d0ce819ed0: >>> 220 mail2.example.com ESMTP OpenSMTPD
smtp: 0x55d0ce819ed0: <<< EHLO x
smtp: 0x55d0ce819ee0: <<< NOOP
smtp: 0x55d0ce819ed0: >>> 250-server.example.com
smtp: 0x55d0ce819ed0: >>> 250 CHUNKING
smtp: 0x55d0ce819ed0: <<< TURN root
smtp: 0x55d0ce819ed0: >>> 500 no
<<< [MSG] EXPN in a message
""",
    "sendmail": b"""20966 >>> 220 mail2.example.com ESMTP Sendmail {10.25.1.66 20040}
20967 >>> 220 mail2.example.com ESMTP Sendmail {10.25.1.2 40000}
20966 <<< EHLO x\r
20967 <<< DATA\r
20967 >>> 354 go on
20967 <<< EXPN in a message\r
20966 >>> 250-server.example.com
20966 >>> 250 CHUNKING
20966 <<< TURN root\r
20966 >>> 500 no
20966 <<< [EOF]
""",
}


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("cut", [5, 100_000])
def test_a_server_s_log_is_read_as_it_grows(kind: str, cut: int, tmp_path: Path) -> None:
    reader: Any = Reader(Topology(), tmp_path, kind)
    reader._log = tmp_path / "log"
    found: list[Conversation] = []
    for end in range(cut, len(LOGS[kind]) + cut, cut):
        reader._log.write_bytes(LOGS[kind][:end])
        found = reader.conversations("10.25.1.66")
    [one] = found
    assert one.lines == [b"EHLO x", b"TURN root"]
    assert one.answers == [b"250-server.example.com\r\n250 CHUNKING\r\n", b"500 no\r\n"]
    assert one.sent.startswith(b"220 ")
    assert all("as the server cut its lines" in fault for fault in oracle.faults([one], [b"TURN"]))
    assert oracle.faults([one], [b"TURN"])
    [other] = reader.conversations("10.25.1.2")
    assert not list(oracle.faults([other], [b"EXPN"]))


def outcome(client: RawTcp, left: list[Seen], received: bytes = b"", *, held: bool = False) -> str:
    conversation = Conversation((ENDS[4].source, ENDS[4].port), Personality(), bytearray(received))
    return testbed.outcome_of([client], [conversation], left, held=held)


def test_the_outcome_is_what_left_the_gateway() -> None:
    client = connection()
    client.put(b"EXPN root\r\n", flags=PSH | ACK | URG)
    wire: Any = client.link
    sent = wire.packets[-1]
    assert outcome(client, [sent]) == testbed.NO_EFFECT
    assert outcome(client, [sent._replace(payload=b"XXXX root\r\n")]) == testbed.MASKED
    assert outcome(client, [sent._replace(flags=PSH | ACK)]) == testbed.MASKED
    assert outcome(client, [], b"XXXX") == testbed.MASKED
    assert outcome(client, [], b"EXPN") == testbed.DROPPED
    assert outcome(client, []) == testbed.DROPPED
    assert outcome(client, [], held=True) == testbed.HELD
    assert outcome(client, [Seen(0, ENDS[4], 5, 0, RST | ACK, 0, b"")]) == testbed.RESET


def test_a_reset_of_the_attacker_s_own_is_none_of_the_gateway_s() -> None:
    client = connection()
    client.stray(flags=RST | ACK)
    wire: Any = client.link
    assert outcome(client, [wire.packets[-1]]) == testbed.NO_EFFECT


def test_the_second_of_two_copies_may_be_the_one_that_arrived() -> None:
    client = connection()
    client.put(b"NOOP", 0)
    client.put(b"EXPN", 0)
    wire: Any = client.link
    assert outcome(client, wire.packets[-1:], b"EXPN") == testbed.DROPPED
    assert outcome(client, wire.packets[-2:], b"NOXN") == testbed.MASKED


def result(outcome: str = "masked", control_mail: str = "ok", **fields: Any) -> evade.Result:
    given = {"name": "a", "kind": "order", "why": "b", "received": "NOOP", "faults": (), "findings": ("x.y",)}
    return evade.Result(**{**given, **fields}, outcome=outcome, control_mail=control_mail)


def test_one_that_got_past_or_one_lost_mail_is_exit_code_1() -> None:
    assert evade.exit_code([result(), result("dropped")]) == 0
    assert evade.exit_code([result(), result(testbed.GOT_PAST)]) == 1
    assert evade.exit_code([result(), result(control_mail="other replies came")]) == 1
    assert evade.exit_code([result(), result(testbed.NOT_TRIED)]) == 3
    assert evade.exit_code([result(testbed.GOT_PAST), result(testbed.NOT_TRIED)]) == 1


def test_the_table_shows_what_got_past() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    rows = [result(testbed.GOT_PAST, faults=("EXPN readable",), received="A" * 100), result("reset", name="b")]
    evade.show(console, evade.Choice(), rows)
    text = console.export_text()
    assert "GOT PAST" in text
    assert "EXPN readable" in text
    assert "2 techniques: 1 GOT PAST, 1 reset; honest mail beside them: 2 of 2 ok" in text
    assert "A" * 57 not in text
