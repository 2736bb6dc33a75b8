"""What a peer can make the events' side keep and write stays under caps, and who says little is heard."""

from __future__ import annotations

import gc
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from nfmailguard.engine import ACTIONS, Engine
from nfmailguard.events.allowance import FORGEABLE_PART, Allowance, Rate
from nfmailguard.events.cisco import CiscoWriter, Message
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.records import Record, RecordKind
from nfmailguard.events.sinks import FileSink
from nfmailguard.events.transactions import Mail, Transactions
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, FlowRule, Limits, Mode
from nfmailguard.service.gateway import DRAIN_SLICE
from nfmailguard.service.worker import QueueWorker
from nfmailguard.settings import Config, Log
from nfmailguard.smtp.verbs import VERB_INDEX
from tests.rules.gateway import Connection, Gateway
from tests.support.dialogue import CLIENTS, SERVERS, Dialogue
from tests.support.wire import ACK, SYN, End, build

MEBIBYTE = 1 << 20
SECOND = 1_000_000_000


def record(kind: RecordKind, flow: int, *, source: int = 1, verb: str = "", text: bytes = b"", **fields: int) -> Record:
    client = (0x0A000000 + source).to_bytes(4, "big")
    return Record(
        kind=kind,
        now=fields.get("now", 0),
        flow_id=flow,
        rule=0,
        family=4,
        client=client,
        client_port=1024 + flow % 60000,
        server=bytes([10, 0, 2, 2]),
        server_port=25,
        to_server=kind != RecordKind.REPLY,
        state=3,
        verb=VERB_INDEX[verb] if verb else 0,
        finding=fields.get("finding", 0),
        action=1,
        hypothetical=False,
        applied=True,
        code=fields.get("code", 0),
        numbers=(0, 0, 0, 0, 0),
        before=text,
        after=b"",
    )


def pipelined(flow: int, source: int, count: int) -> Iterable[Record]:
    """MAIL and RCPT commands that nobody answers."""
    for number in range(count):
        yield record(RecordKind.COMMAND, flow, source=source, verb="MAIL", text=b"MAIL FROM:<%0200d@a>" % number)
        yield record(RecordKind.COMMAND, flow, source=source, verb="RCPT", text=b"RCPT TO:<%0200d@b>" % number)


def mail(flow: int, source: int, transactions: Transactions) -> list[Mail]:
    """One whole mail."""
    found: list[Mail] = []
    for kind, verb, text, code in (
        (RecordKind.COMMAND, "MAIL", b"MAIL FROM:<honest@a.example>", 0),
        (RecordKind.REPLY, "MAIL", b"ok", 250),
        (RecordKind.COMMAND, "RCPT", b"RCPT TO:<one@b.example>", 0),
        (RecordKind.REPLY, "RCPT", b"ok", 250),
        (RecordKind.MESSAGE, "", b"", 0),
        (RecordKind.REPLY, "<end of data>", b"queued as 1", 250),
    ):
        found += transactions.feed(record(kind, flow, source=source, verb=verb, text=text, code=code))
    return found


@pytest.mark.parametrize(("flows", "sources"), [(60, 1), (600, 600), (4000, 1), (4000, 4000)])
def test_event_memory_stays_under_its_cap_and_honest_mails_are_told(flows: int, sources: int) -> None:
    cap = 3 * MEBIBYTE
    transactions = Transactions(cap)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for flow in range(1, flows + 1):
            for one in pipelined(flow, 2 + flow % sources, 999 if flows == 60 else 20 if flows == 600 else 3):
                transactions.feed(one)
            assert transactions.octets <= cap
            if flow % (flows // 30) == 0:
                (told,) = mail(10**6 + flow, 1, transactions)
                assert (told.mail_from, told.rcpt_to, told.reply, told.complete) == (
                    "honest@a.example",
                    ["one@b.example"],
                    "250 queued as 1",
                    True,
                )
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown <= cap
    assert transactions.omitted + transactions.forgotten > 0
    for flow in range(1, 2 * 10**6):
        if not transactions.octets:
            break
        transactions.feed(record(RecordKind.FLOW, flow))
    assert transactions.octets == 0


def test_event_memory_of_one_source_gives_way_to_a_mail_under_way() -> None:
    transactions = Transactions(2 * MEBIBYTE)
    transactions.feed(record(RecordKind.COMMAND, 1, verb="MAIL", text=b"MAIL FROM:<still@a>"))
    for flow in range(2, 5000):
        for one in pipelined(flow, 2, 2):
            transactions.feed(one)
    assert transactions.forgotten > 0
    assert [told.mail_from for told in transactions.feed(record(RecordKind.FLOW, 1))] == ["still@a"]


def test_recipients_beyond_those_kept_are_counted_and_replies_find_their_commands() -> None:
    transactions = Transactions()
    names = [b"<r%d@b>" % number for number in range(150)]
    transactions.feed(record(RecordKind.COMMAND, 1, verb="MAIL", text=b"MAIL FROM:<a@a>"))
    for name in names:
        transactions.feed(record(RecordKind.COMMAND, 1, verb="RCPT", text=b"RCPT TO:" + name))
    transactions.feed(record(RecordKind.REPLY, 1, verb="MAIL", code=250))
    for number in range(150):
        transactions.feed(record(RecordKind.REPLY, 1, verb="RCPT", code=550 if number % 2 else 250))
    transactions.feed(record(RecordKind.MESSAGE, 1))
    (told,) = transactions.feed(record(RecordKind.REPLY, 1, verb="<end of data>", code=250))
    assert told.rcpt_to == [f"r{number}@b" for number in range(0, 100, 2)]
    assert told.rcpt_omitted == 25


def test_mails_beyond_those_kept_are_counted_and_the_next_one_is_told_whole() -> None:
    transactions = Transactions()
    for number in range(50):
        transactions.feed(record(RecordKind.COMMAND, 1, verb="MAIL", text=b"MAIL FROM:<a%d@a>" % number))
    for _ in range(50):
        transactions.feed(record(RecordKind.REPLY, 1, verb="MAIL", code=503))
    assert [told.mail_from for told in mail(1, 1, transactions)] == ["honest@a.example"]


def written(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_mail_of_shapes_does_not_fill_a_disk(tmp_path: Path) -> None:
    dialogue = Dialogue.under(load_profile("pix63"), Mode.ENFORCE)
    for to_server, octets in (
        *((False, b"220 x\r\n"), (True, b"HELO c\r\n"), (False, b"250 x\r\n"), (True, b"DATA\r\n")),
        (False, b"354 go\r\n"),
    ):
        dialogue.say(to_server, octets)
    mail = b"\n.\n" * 480
    for _ in range(40):
        dialogue.say(True, mail)
    dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    while drained := dialogue.engine.drain():
        dialogue.records += drained
    sink = FileSink(tmp_path / "eve.json")
    EveWriter(dialogue.engine.rules, sink).write(dialogue.records)
    sink.close()
    events = written(tmp_path / "eve.json")
    shapes = [
        event["mailguard"] for event in events if event.get("mailguard", {}).get("finding", "").startswith("data")
    ]
    shapes = [one for one in shapes if one["finding"] == "data.smuggling_shape"]
    assert [one.get("count", 1) for one in shapes] == [*range(1, 17), *(16 << n for n in range(1, 11)), 19_200]
    assert shapes[-1]["repeated"] is True
    assert "offset" not in shapes[-1]
    assert (tmp_path / "eve.json").stat().st_size < 25_000  # of 57,600 octets of mail


def flood(sources: int, seconds: int, each: int) -> Iterable[Record]:
    """So many findings a second of each source."""
    shape = FINDING_INDEX["data.smuggling_shape"]
    for second in range(seconds):
        for number in range(each):
            for source in range(sources):
                now = second * SECOND + number * (SECOND // each)
                yield record(RecordKind.FINDING, source + 1, source=source + 2, finding=shape, now=now)


@pytest.mark.parametrize("sources", [1, 20])
def test_log_rate_holds_and_who_says_little_is_heard(tmp_path: Path, sources: int) -> None:
    rate, seconds = 20_000, 30
    sink = FileSink(tmp_path / "eve.json")
    rules = [FlowRule(Mode.ENFORCE, load_profile("pix63"))]
    writer = EveWriter(rules, sink, limits=Limits(log_rate=rate))
    heard = 0
    for place, one in enumerate(flood(sources, seconds, 4000 // sources)):
        writer.write([tuple(one)])
        if place % 3000 == 2999 and heard < 40:
            writer.write([tuple(one._replace(client=bytes([10, 9, 9, heard]), flow_id=10**6 + heard))])
            heard += 1
    writer.stats(seconds * SECOND, {})
    sink.close()
    events = written(tmp_path / "eve.json")
    assert heard == 40 - (seconds * 4000 // 3000 < 40) * (40 - seconds * 4000 // 3000)
    assert len([event for event in events if event.get("src_ip", "").startswith("10.9.9.")]) == heard
    size = (tmp_path / "eve.json").stat().st_size
    assert size <= rate * (10 + seconds) + 4000
    # Nothing disappears: what was not written is told, and counted.
    withheld = [event["withheld"] for event in events if event["event_type"] == "withheld"]
    assert sum(one["mailguard"] for one in withheld) == writer.counters()["events_withheld.mailguard"] > 0
    assert max(one["sources"] for one in withheld) == sources
    shown = sum(event["event_type"] == "mailguard" for event in events)
    assert shown + writer.counters()["events_withheld"] == seconds * 4000 + heard
    assert 3 <= len(withheld) <= seconds // 10 + 2


def test_an_allowance_that_is_not_limited_writes_all() -> None:
    allowance = Allowance(None)
    assert all(allowance.takes(b"abcd", 10**6, "flow", 0) for _ in range(1000))
    assert allowance.report(10**12) is None


def test_a_rate_is_paid_off_and_forgets_what_is() -> None:
    rate = Rate(1000)
    assert rate.takes(b"abcd", 5000, 0)
    assert not rate.takes(b"abcd", 100, 0)
    assert rate.takes(b"efgh", 2500, 0)
    assert rate.takes(b"abcd", 800, 2 * SECOND)
    for turn in range(2000):
        rate.takes(turn.to_bytes(4, "big"), 100, 2 * SECOND + turn * SECOND // 20)
    for turn in range(5000):
        rate.takes(turn.to_bytes(4, "big"), 1, 200 * SECOND)
    assert rate.sources == 4096
    assert rate.takes(b"abcd", 4900, 10**6 * SECOND)


def test_of_bystanders_no_finding_is_lost_in_a_flood(tmp_path: Path) -> None:
    # From packet to file: three addresses, ninety connections that repeat everything there is to find, read too slowly.
    gateway = Gateway(limits=Limits(outstanding_commands=60_000))
    loud = [
        Connection(gateway, client=f"10.66.0.{1 + number % 3}", port=1024 + number).greeted() for number in range(90)
    ]
    quiet = [Connection(gateway, client=f"10.7.0.{1 + number}", port=50_000).greeted() for number in range(40)]
    sink = FileSink(tmp_path / "eve.json")
    engine: Engine = gateway.engine
    writer = EveWriter(engine.rules, sink, limits=Limits(log_rate=200_000))
    gateway.records.clear()

    def say(connection: Connection, octets: bytes) -> None:
        packet = connection.packet(True, payload=octets)
        connection.sent[True] += len(octets)
        gateway.now += 1000
        engine.process(packet, gateway.now, id=1)
        engine.process(connection.packet(False, 0x10, ack=connection.sent[True]), gateway.now, id=1)

    flood = b"X\0\nY\r\nMAIL FROM:<||>\r\nRSET\r\nEHLO <>\r\nRCPT TO:<|>\r\n" * 10
    for turn in range(40):
        for connection in loud:
            say(connection, flood)
        say(quiet[turn], b"EXPN bystander\r\n")
        writer.write(engine.drain(200))
    lost = engine.counters()["records_lost"]
    while records := engine.drain():
        writer.write(records)
    sink.close()
    heard = Counter(
        event["src_ip"]
        for event in written(tmp_path / "eve.json")
        if event.get("mailguard", {}).get("before", "").startswith("EXPN bystander")
    )
    assert heard == {f"10.7.0.{1 + number}": 1 for number in range(40)}
    assert lost > 0


def forged(kind: str, client: End, isn: int) -> list[bytes]:
    """Packets of a source that gets no answer, nor sees any: what each of them leaves in the log."""
    server = SERVERS[4]
    syn = build(client, server, isn, 0, SYN)
    return {
        "SYN": [syn],  # flow
        "SYN, answered": [syn, build(server, client, isn + 7, isn + 1, SYN | ACK)],  # flow
        "SYN with data": [build(client, server, isn, 0, SYN, b"EXPN root\r\n")],  # packet.syn_data
        "SYN and text": [syn, build(client, server, isn + 1, 7, ACK, b"EXPN root\r\n")],  # flow.asymmetric
        "wrong ACK": [
            *(syn, build(server, client, isn + 7, isn + 1, SYN | ACK)),
            build(client, server, isn + 1, isn + 999, ACK),
        ],  # stream.gap
        "text": [build(client, server, isn, 7, ACK, b"EXPN root\r\n")],  # flow.midstream, of packets of no flow
    }[kind]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
@pytest.mark.parametrize("kind", ["SYN", "SYN, answered", "SYN with data", "SYN and text", "wrong ACK", "text"])
def test_forged_sources_have_a_part_of_the_log_and_connected_clients_are_told(
    tmp_path: Path, kind: str, mode: Mode
) -> None:
    rate, seconds, each = 8_192, 25, 60
    # Of SYNs the ends are told: the table is small, so that each gives way to the next.
    limits = Limits(log_rate=rate, flows=256 if kind in ("SYN", "SYN, answered") else 16_384, cookies=0)
    rules = [FlowRule(mode, load_profile("pix63"))]
    gateway, chosen = Gateway(limits=limits), random.Random(1)
    engine = Engine(rules, limits=limits)
    gateway.engine = engine
    gateway.watching = gateway.dry = Engine([FlowRule(Mode.MONITOR, load_profile("pix63"))], limits=limits)
    sink = FileSink(tmp_path / "eve.json")
    writer = EveWriter(rules, sink, limits=limits)
    gateway.now = 700 * SECOND  # long after limits.startup
    engine.process(build(CLIENTS[4], SERVERS[4], 1, 0, SYN), SECOND, id=1)
    engine.expire(gateway.now)
    denied = 0
    for number in range(seconds * each):
        gateway.now += SECOND // each
        client = End(
            f"198.{chosen.randrange(18, 20)}.{number >> 8 & 255}.{number & 255}", chosen.randrange(1024, 65536)
        )
        for packet in forged(kind, client, chosen.getrandbits(31)):
            engine.process(packet, gateway.now, id=2)
        if number % each == 0:
            connection = Connection(gateway, client="10.0.1.66", port=20_000 + denied).greeted()
            connection.client(b"EXPN root\r\n")
            denied += 1
        engine.expire(gateway.now)
        writer.write(gateway.records + engine.drain())
        gateway.records.clear()
    sink.close()
    lines = (tmp_path / "eve.json").read_bytes().splitlines(keepends=True)
    events = [(json.loads(line), len(line)) for line in lines]
    told = [event["mailguard"] for event, _ in events if event.get("src_ip") == "10.0.1.66" and "mailguard" in event]
    assert sum(one["finding"] == "command.denied" for one in told) == denied == seconds
    octets = sum(size for event, size in events if event.get("src_ip", "").startswith("198."))
    most = rate * (10 + seconds) // FORGEABLE_PART
    assert most // 4 < octets <= most  # flowless findings are few: 16 a second
    assert writer.counters()["events_withheld"] > 0 or kind == "text"
    assert writer.counters()["events_withheld.mailguard"] == 0 or kind not in ("SYN", "SYN, answered")
    assert FORGEABLE_PART == 8  # as the ring has it: docs/limits.md


def test_what_connected_clients_make_leaves_the_ends_of_others_their_part() -> None:
    allowance = Allowance(8_000)
    for number in range(10_000):
        allowance.takes(number.to_bytes(4, "big"), 100, "mailguard", 0)
    assert allowance.withheld["mailguard"] == 10_000 - 7_000 * 10 // 100
    assert (
        sum(allowance.takes(number.to_bytes(4, "big"), 100, "flow", 0, forgeable=True) for number in range(999)) == 100
    )
    allowance.change(None)
    assert allowance.takes(b"abcd", 10**9, "flow", 0, forgeable=True)


def test_no_log_line_of_a_box_is_about_what_a_forged_source_makes() -> None:
    class Kept:
        def send(self, messages: Iterable[tuple[int, Message]]) -> None:
            raise AssertionError(messages)

    writer = CiscoWriter([FlowRule(Mode.ENFORCE, load_profile("asa"))], Kept())
    made = [
        record(kind, 1, finding=finding)._replace(state=0, action=action, to_server=to_server)
        for kind in (RecordKind.FINDING, RecordKind.REPEATED, RecordKind.FLOW)
        for finding in range(1, len(FINDINGS))
        for action in range(len(ACTIONS))
        for to_server in (False, True)
    ]
    forgeable = [one for one in made if one.forgeable]
    assert len(forgeable) > 100
    writer.write([tuple(one) for one in forgeable])


class Pressed:
    """A writer whose peer makes records while it writes, so many times: there are more whenever it has written."""

    def __init__(self, worker: QueueWorker, times: int) -> None:
        self.worker, self.left, self.written, self.port = worker, times, 0, 20000
        self.more()

    def more(self) -> None:
        self.port += 1
        client = End(CLIENTS[4].address, self.port)
        self.worker.engine.process(build(client, SERVERS[4], 1, 0, SYN, b"x"), SECOND, id=1)  # packet.syn_data

    def drain(self, engine: Engine) -> int:
        records = engine.drain()
        if records:
            self.write(records)
        return len(records)

    def write(self, records: list[tuple]) -> None:  # type: ignore[type-arg]
        self.written += 1
        time.sleep(0.001)
        if self.left:
            self.left -= 1
            self.more()


@pytest.mark.parametrize("writer", ["writer", "cisco"])
def test_a_queue_whose_peer_makes_records_faster_than_they_are_written_gives_way(writer: str) -> None:
    config = Config(log=Log(eve="-"))
    worker = QueueWorker(config, config.flow_rules(), 5, None)
    pressed = Pressed(worker, 3000)
    setattr(worker, writer, pressed)
    began = time.monotonic()
    assert worker.drain(DRAIN_SLICE)  # there is more
    assert DRAIN_SLICE <= time.monotonic() - began < 2
    written = pressed.written
    assert 1 <= written < 3000
    pressed.left = 5
    assert not worker.drain(60)  # nothing is left, long before that
    assert pressed.written > written
    assert pressed.left == 0
    pressed.left = 200
    pressed.more()
    worker.drain()  # without a time: all of it
    assert (pressed.left, worker.engine.drain()) == (0, [])
