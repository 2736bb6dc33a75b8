"""Cisco's log lines, character for character, and where they go."""

# ruff: noqa: E501 - a line of the log is one line here, too

from __future__ import annotations

import gc
import ipaddress
import re
import socket
import stat
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from nfmailguard.cli import cli
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError
from nfmailguard.events.alerts import alert
from nfmailguard.events.cisco import CiscoWriter, Message
from nfmailguard.events.stats import last_stats
from nfmailguard.events.syslog import Syslog
from nfmailguard.events.targets import FACILITIES, Format, Interfaces, problem
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import FINDINGS, Action, FlowRule, Mode, Policy
from nfmailguard.reports import service_policy
from tests.support.dialogue import Dialogue

GREETING = (False, b"220 mail\r\n")
EHLO = [(True, b"EHLO a\r\n"), (False, b"250 m\r\n")]
TEXT = [*EHLO, (True, b"DATA\r\n"), (False, b"354 go\r\n")]
DMZ = Interfaces(networks=(("DMZ", ipaddress.ip_network("10.0.2.0/24")),))
NOW = 1_764_064_800_000_000_000  # 2025-11-25 10:00:00 UTC


class Kept:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, messages: list[tuple[int, Message]]) -> None:
        self.messages += [message for _, message in messages]


def logged(
    policy: Policy, turns: list[tuple[bool, bytes]], mode: Mode = Mode.ENFORCE, names: Interfaces = DMZ
) -> list[str]:
    """The lines a gateway under ``policy`` logs of a dialogue from 10.0.1.2:40000 to 10.0.2.2:25."""
    dialogue, kept = Dialogue.under(policy, mode), Kept()
    for turn in [GREETING, *turns]:
        dialogue.say(*turn)
    dialogue.records += dialogue.engine.drain()
    CiscoWriter([FlowRule(mode, policy)], kept, interfaces=names).write(dialogue.records)
    return [str(message) for message in kept.messages]


#: The documented formats (S-SYSLOG), real lines where there are some (S-LOG1, S-LOG2), with our addresses.
DROPPED = "%ASA-4-108004: ESMTP Classification: Dropped connection for ESMTP Request from outside:10.0.1.2/40000 to DMZ:10.0.2.2/25; matched Class "
ENDED = "%ASA-4-507003: tcp flow from outside:10.0.1.2/40000 to DMZ:10.0.2.2/25 terminated by inspection engine, reason - inspector disconnected, dropped packet."
LINES = {
    "S-LOG1, class 4": (
        "asa",
        {},
        [*TEXT, (True, b"X: " + b"y" * 1000)],
        [DROPPED + "4: header line length gt 998", ENDED],
    ),
    "S-ASA13, class 6": (
        "asa",
        {},
        [*TEXT, (True, b"Content-Disposition: attachment; filename=" + b"y" * 256)],
        [DROPPED + "6: MIME filename length gt 255", ENDED],
    ),
    "S-LOG2, class 2": (
        "asa",
        {"address.recipients": "2"},
        [*EHLO, (True, b"MAIL FROM:<a@b>\r\n"), *[(True, b"RCPT TO:<c@d>\r\n")] * 3],
        [DROPPED + "2: cmd RCPT count gt 2", ENDED],
    ),
    "S-ASA13, class 1": ("asa", {}, [(True, b"NOOP " + b"x" * 600)], [DROPPED + "1: cmd line length gt 512", ENDED]),
    "S-ASA13, class 5": (
        "asa",
        {"commands.line_length": "none"},
        [*EHLO, (True, b"MAIL FROM:<" + b"a" * 330 + b">\r\n")],
        [DROPPED + "5: sender-address length gt 320", ENDED],
    ),
    "S-SYSLOG, 108005": (
        "asa",
        {},
        [*TEXT, (True, b"S: x\r\n\r\n" + b"y" * 1000 + b"\r\n")],
        [("%ASA-6-108005: ESMTP Classification: Received ESMTP Request from outside:10.0.1.2/40000 to DMZ:10.0.2.2/25; matched Class 3: body line length gt 998")],
    ),
    "S-SYSLOG, 108002, PIX": (
        "pix63",
        {},
        [(True, b"MAIL FROM:<|sh@x>\r\n")],
        ["%PIX-2-108002: SMTP replaced string: out 10.0.1.2 in 10.0.2.2 data: |"],
    ),
    "S-SYSLOG, 108003": (
        "asa",
        {"address.characters": "|", "actions.address.illegal_character": "drop-connection"},
        [*EHLO, (True, b"MAIL FROM:<|sh@x>\r\n")],
        [("%ASA-2-108003: Terminating ESMTP connection; malicious pattern detected in the mail address from outside:10.0.1.2/40000 to DMZ:10.0.2.2/25. Mail Address:|"), ENDED],
    ),
    "S-SYSLOG, 108006": (
        "asa",
        {},
        [
            (True, b"EHLO a\r\n"), (False, b"250-m\r\n250 SIZE\r\n"), (True, b"MAIL FROM:<a@b> SIZE=4\r\n"),
            (False, b"250 ok\r\n"), (True, b"RCPT TO:<c@d>\r\n"), (False, b"250 ok\r\n"), (True, b"DATA\r\n"),
            (False, b"354 go\r\n"), (True, b"S: x\r\n.\r\n"),
        ],
        [("%ASA-7-108006: Detected ESMTP size violation from outside:10.0.1.2/40000 to DMZ:10.0.2.2/25; declared size is: 4, actual size is 6")],
    ),
    "S-SYSLOG, 108007": (
        "asa-tls",
        {},
        [*EHLO, (True, b"STARTTLS\r\n"), (False, b"220 go\r\n")],
        [("%ASA-6-108007: TLS started on ESMTP session between client outside:10.0.1.2/40000 and server DMZ:10.0.2.2/25")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", LINES)
def test_a_line_is_the_documented_one(source: str) -> None:
    profile, settings, turns, lines = LINES[source]
    assert logged(override(load_profile(profile), settings), turns) == lines


@pytest.mark.parametrize("other", [b"MAIL FROM:<o@b> SIZE=900\r\n", b"MAIL FROM:<o@b>\r\n"])
def test_the_size_that_counts_is_that_of_the_mail_that_was_accepted(other: bytes) -> None:
    source = "S-SYSLOG, 108006"
    profile, _, turns, lines = LINES[source]
    refused = [*turns[:6], (True, other), (False, b"503 nested\r\n"), *turns[6:]]
    assert logged(load_profile(profile), refused) == lines
    begun_anew = [
        *turns[:4],
        (True, b"RSET\r\n"),
        (False, b"250 ok\r\n"),
        (True, other),
        (False, b"250 ok\r\n"),
        *turns[4:],
    ]
    assert logged(load_profile(profile), begun_anew) == []


def test_every_message_has_a_line_here() -> None:
    numbers = {re.search(r"-(\d{6}):", line)[1] for *_, lines in LINES.values() for line in lines}  # type: ignore[index]
    assert numbers == {"108002", "108003", "108004", "108005", "108006", "108007", "507003"}


def test_reset_says_so() -> None:
    policy = override(load_profile("asa"), {"actions.command.too_long": "reset"})
    [line, _] = logged(policy, [(True, b"NOOP " + b"x" * 600)])
    assert "ESMTP Classification: Reset connection for ESMTP Request from" in line


def test_what_was_not_done_is_not_logged_and_masking_says_nothing() -> None:
    turns = [(True, b"NOOP " + b"x" * 600), (True, b"EXPN a\r\n")]
    assert logged(load_profile("asa"), turns, Mode.MONITOR) == []
    reply = [(True, b"EHLO a\r\n"), (False, b"250-m\r\n250 STARTTLS\r\n")]
    assert logged(load_profile("asa"), reply) == []
    assert logged(load_profile("pix63"), [(True, b"EXPN a\r\n")]) == []


def test_nobody_writes_a_line_of_ours() -> None:
    policy = override(load_profile("pix63"), {"address.characters": "|\x1b"})
    [line] = logged(policy, [(True, b"MAIL FROM:<\x1b[2J|>\r\n")])
    assert line.endswith(r"data: \x1b")


def test_sides_have_names_where_no_network_has() -> None:
    [line, _] = logged(load_profile("asa"), [(True, b"NOOP " + b"x" * 600)], names=Interfaces("wan", "lan"))
    assert " from wan:10.0.1.2/40000 to lan:10.0.2.2/25;" in line


MESSAGE = Message(108007, "TLS started", "ASA")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("form", "octets"),
    [
        (Format.RFC3164, b"<166>Nov 25 10:00:00 gw %ASA-6-108007: TLS started"),
        (Format.RFC5424, b"<166>1 2025-11-25T10:00:00.000000Z gw nfmailguard - 108007 - %ASA-6-108007: TLS started"),
    ],
)
def test_a_server_gets_each_line_as_a_datagram(form: Format, octets: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        syslog = Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}", host="gw", form=form)
        syslog.send([(NOW, MESSAGE)])
        assert server.recv(4096) == octets
        syslog.close()
        assert syslog.lost == 0


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(("form", "begins"), [(Format.RFC3164, b"<166>Nov 25"), (Format.RFC5424, b"87 <166>1 2025")])
def test_a_server_gets_lines_over_tcp(form: Format, begins: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", host="gw", form=form)
        syslog.send([(NOW, MESSAGE)] * 2)
        connection, _ = server.accept()
        syslog.close()
        with connection, connection.makefile("rb") as stream:
            got = stream.read()
        assert got.startswith(begins)
        assert got.count(b"%ASA-6-108007: TLS started") == 2
        if form is Format.RFC5424:
            assert int(got.split(b" ")[0]) == len(got) // 2 - 3  # RFC 6587 3.4.1


def test_a_daemon_and_journald_get_datagrams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.setattr("nfmailguard.events.journal.SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(5)
        for target, begins in (
            (f"unix://{path}", b"<166>"),
            ("journald", b"MESSAGE=%ASA-6-108007: TLS started\nMESSAGE_ID=6a1c0d3c5c9f4f0e9a52d6a4a4108007\nPRIO"),
        ):
            syslog = Syslog(target)
            syslog.send([(NOW, MESSAGE)])
            assert daemon.recv(4096).startswith(begins)
            syslog.close()


def test_a_file_is_appended_to_and_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    for _ in range(2):
        syslog = Syslog(str(path), host="gw")
        syslog.send([(NOW, MESSAGE)])
        syslog.close()
    assert re.fullmatch(r"(Nov .\d \d\d:\d\d:\d\d gw %ASA-6-108007: TLS started\n){2}", path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize("target", ["unix:///nonexistent/socket", "tcp://127.0.0.1:1", "udp://name.invalid"])
def test_whoever_does_not_answer_is_counted_and_nobody_waits(target: str) -> None:
    syslog = Syslog(target)
    done = threading.Thread(target=lambda: [syslog.send([(NOW, MESSAGE)] * 3) for _ in range(100)])
    done.start()
    done.join(20)
    assert not done.is_alive()
    assert syslog.lost == 300
    assert syslog.failure
    assert syslog.failure.startswith(f"syslog.target: {target}: ")


def test_a_server_that_reads_nothing_stops_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", host="gw")
        for _ in range(300):
            syslog.send([(NOW, Message(108007, "x" * 1000, "ASA"))] * 100)
        assert syslog.lost > 0
        syslog.close()


def all_read(connection: socket.socket) -> bytes:
    """What comes within a moment."""
    connection.settimeout(0.5)
    found = bytearray()
    with suppress(TimeoutError):
        while octets := connection.recv(1 << 16):
            found += octets
    return bytes(found)


def numbered(first: int, count: int) -> list[tuple[int, Message]]:
    return [(NOW, Message(108007, f"line {number:06d} {'x' * 300}", "ASA")) for number in range(first, first + count)]


@pytest.mark.parametrize("form", list(Format))
def test_of_a_server_that_has_stopped_reading_a_bounded_part_waits_and_each_line_is_sent_or_counted(
    form: Format,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", host="gw", form=form)
        syslog.send(numbered(0, 1))
        connection, _ = server.accept()
        gc.collect()
        tracemalloc.start()
        for batch in range(20_000):
            syslog.send(numbered(1 + batch, 1))
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert grown < 2 * 128 * 1024  # docs/limits.md, and what the tracing sees besides
        assert syslog.trouble == f"{syslog.target}: the server does not keep up; log lines are lost"
        lost = syslog.lost
        assert 0 < lost < 20_000
        got = bytearray()
        while more := all_read(connection):  # it reads again: what has waited comes, though nothing new is said
            got += more
            syslog.flush()
        told = [int(number) for number in re.findall(rb"line (\d{6}) x{300}", got)]
        assert told == sorted(set(told))
        assert len(told) + lost == 20_001  # no line is both, and none neither
        syslog.send(numbered(30_000, 5))
        assert syslog.trouble is None
        assert all_read(connection).count(b" x") == 5
        assert syslog.lost == lost
        if form is Format.RFC5424:
            assert re.fullmatch(rb"(?:(?:\d+ <166>1 [^x]+)x{300})+", got)
        connection.close()
        syslog.close()


def test_a_server_that_was_restarted_gets_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfmailguard.events.syslog._RETRY_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", host="gw")
        for turn in range(3):
            syslog.send(numbered(10 * turn, 2))
            connection, _ = server.accept()
            with connection:
                assert re.findall(rb"line (\d{6})", all_read(connection)) == [
                    b"%06d" % (10 * turn + n) for n in range(2)
                ]
        assert (syslog.lost, syslog.trouble) == (0, None)
        monkeypatch.setattr("nfmailguard.events.syslog._RETRY_SECONDS", 60)
        time.sleep(0.3)
        for turn in range(50):  # one that closes at once is not asked each time
            syslog.send(numbered(turn, 1))
            time.sleep(0.01)
            if turn == 0:
                server.accept()[0].close()
        assert syslog.lost >= 48
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        syslog.close()


@pytest.mark.parametrize("ends", ["server", "gateway"])
def test_lines_that_wait_for_a_server_when_the_connection_ends_are_counted(ends: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", host="gw")
        syslog.send(numbered(0, 1))
        connection, _ = server.accept()
        sent = 1
        while not syslog.lost:
            syslog.send(numbered(sent, 1))
            sent += 1
        if ends == "server":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            time.sleep(0.1)
            syslog.send(numbered(sent, 3))
            assert syslog.lost > 128 * 1024 // 400 + 3
            assert syslog.failure
        else:
            syslog.close()
            read = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            assert len(re.findall(rb"line \d{6} x{300}\n", read)) + syslog.lost == sent
            connection.close()
        syslog.close()


@pytest.mark.parametrize(
    "target",
    [
        *("http://x", "udp://", "tcp://host:99999", "udp://host:x", "udp://host:0", "udp://host:", "udp://[::1"),
        *("", "udp:", "udp:host", "udp:host:514", "udp:/host", "TCP:host:514", "tcp:", "unix:", "unix:/run/log"),
        *(
            "unix://",
            "unix:///",
            "unix://run/log",
            "tcp://host/path",
            "tcp://user@host",
            "udp://host?x",
            "udp://host#x",
        ),
    ],
)
def test_a_target_that_is_none_is_told(target: str) -> None:
    assert problem(target, "local4", "")
    assert problem("journald", "local9", "")
    assert problem("journald", "mail", "a b")
    for good in ("udp://[::1]:514", "tcp://host", "unix:///dev/log", "-", "journald", "/var/log/x:y", "./udp:host"):
        assert problem(good, "mail", "gw") is None
    assert FACILITIES["local4"] == 20


def test_every_finding_has_a_signature_of_its_own() -> None:
    signatures = {spec.name: spec.signature for spec in FINDINGS[1:]}
    assert sorted(signatures.values()) == list(range(1_825_001, 1_825_001 + len(signatures)))
    assert (signatures["command.denied"], signatures["restore.not_recoverable"]) == (1_825_001, 1_825_052)
    body = alert("data.smuggling_shape", Action.BLANK, applied=True)
    assert (body["action"], body["severity"], body["gid"]) == ("allowed", 1, 1)
    assert alert("command.too_long", Action.RESET, applied=True)["action"] == "blocked"
    assert alert("command.too_long", Action.RESET, applied=False)["action"] == "allowed"


def test_counters_have_the_form_of_a_box() -> None:
    counters = {
        "packets": 12,
        "dropped": 1,
        "flows_reset": 0,
        "finding.banner.masked": 3,
        "finding.command.too_long": 1,
    }
    assert service_policy.render(load_profile("asa"), counters).splitlines()[3:8] == [
        "      Inspect: esmtp _default_esmtp_map, packet 12, lock fail 0, drop 1, reset-drop 0",
        "        mask-banner, count 3",
        "        match cmd line length gt 512",
        "          drop-connection log, packet 1",
        "        match cmd RCPT count gt 100",
    ]
    newer = service_policy.render(load_profile("asa"), counters, "9").splitlines()[3]
    # S-GENIE: the form that parsers of 9.x take.
    taken = re.fullmatch(
        r"Inspect: +(\S+ \S+), +packet +(\d+), +lock +fail +\d+, +drop +(\d+), +reset-drop +\d+, +5-min-pkt-rate +\d+"
        r" +pkts/sec, +v6-fail-close +\d+ +sctp-drop-override +\d+",
        newer.strip(),
    )
    assert taken is not None
    assert taken.groups() == ("esmtp _default_esmtp_map", "12", "1")
    assert "Inspect: esmtp mine," in service_policy.render(
        msgspec.structs.replace(load_profile("asa"), name="mine"), {}
    )
    assert "ehlo-reply-parameter" not in service_policy.render(load_profile("pix63"), counters)


def test_counters_are_those_of_the_box_that_the_events_are_of(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    finding = {"event_type": "mailguard", "mailguard": {"mode": "monitor", "profile": "asa"}}
    stats = {"event_type": "stats", "stats": {"packets": 2}}
    path.write_bytes(msgspec.json.encode(finding) + b"\n" + msgspec.json.encode(stats) + b"\n")
    said = CliRunner().invoke(cli, ["counters", "--events", str(path), "--cisco"]).output
    assert "match cmd RCPT count gt 100" in said
    said = CliRunner().invoke(cli, ["counters", "--events", str(path), "--cisco", "--form", "9"]).output
    assert "Inspect: esmtp _default_esmtp_map, packet 2, " in said
    assert "v6-fail-close 0 sctp-drop-override 0" in said
    said = CliRunner().invoke(cli, ["counters", "--events", str(path), "--cisco", "--profile", "pix63"]).output
    assert "match cmd RCPT" not in said


@pytest.mark.parametrize("padding", [0, 70_000, 200_000])
def test_the_last_stats_event_is_found_from_the_end(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "eve.json"
    lines = [{"event_type": "stats", "stats": {"packets": number}} for number in (1, 2)]
    text = b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n"
    path.write_bytes(text + (b'{"event_type":"flow"}\n' * (padding // 22)))
    assert last_stats(path) == {"packets": 2}
    path.write_bytes(b"{}\n")
    with pytest.raises(ConfigError, match="no stats event"):
        last_stats(path)


def test_an_engine_without_records_logs_nothing() -> None:
    rules = [FlowRule(Mode.ENFORCE, load_profile("asa"))]
    dialogue = Dialogue(Engine(rules, records=False))
    dialogue.say(*GREETING)
    dialogue.client(b"NOOP " + b"x" * 600)
    assert dialogue.records == []
