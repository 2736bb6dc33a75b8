"""systemd's journal gets whole entries with fields, at its socket and from its own program; nobody waits for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nfmailguard.events import journal
from nfmailguard.events.cisco import SEVERITIES, Message
from nfmailguard.events.journal import MESSAGE_IDS, JournalSink, emit_entry
from nfmailguard.events.schema import FIELDS
from nfmailguard.events.syslog import Syslog

JOURNALD = Path("/lib/systemd/systemd-journald")
EVENT = {
    "timestamp": "2026-11-29T16:39:29.416116+0000",
    "flow_id": 7,
    "event_type": "mailguard",
    "src_ip": "192.0.2.1",
    "src_port": 35088,
    "dest_ip": "2001:db8::25",
    "dest_port": 25,
    "mailguard": {"finding": "command.denied", "action": "mask", "applied": True, "before": 'EHLO\n_PID=1\n"'},
}


def line(event: dict[str, object]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def parsed(entry: bytes) -> dict[str, str]:
    """What a journal makes of it: a second reading of the protocol."""
    found, at = {}, 0
    while at < len(entry):
        end = entry.index(b"\n", at)
        name, equals, value = entry[at:end].partition(b"=")
        at = end + 1
        if not equals:
            (length,) = struct.unpack_from("<Q", entry, at)
            value = entry[at + 8 : at + 8 + length]
            at += 8 + length
            assert entry[at : at + 1] == b"\n"
            at += 1
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "socket"
    monkeypatch.setattr(journal, "SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.settimeout(5)
        yield made


@pytest.fixture
def sink() -> Iterator[JournalSink]:
    made = JournalSink()
    yield made
    made.close()


def test_an_event_is_an_entry_with_its_fields(listener: socket.socket, sink: JournalSink) -> None:
    sink.write([line(EVENT)])
    found = parsed(listener.recv(1 << 16))
    assert json.loads(found.pop("NFMAILGUARD_EVENT")) == EVENT
    assert found == {
        "MESSAGE": "mailguard: command.denied, mask 192.0.2.1:35088 -> [2001:db8::25]:25",
        "MESSAGE_ID": MESSAGE_IDS["mailguard"],
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "nfmailguard",
        "NFMAILGUARD_TIMESTAMP": EVENT["timestamp"],
        "NFMAILGUARD_FLOW_ID": "7",
        "NFMAILGUARD_EVENT_TYPE": "mailguard",
        "NFMAILGUARD_SRC_IP": "192.0.2.1",
        "NFMAILGUARD_SRC_PORT": "35088",
        "NFMAILGUARD_DEST_IP": "2001:db8::25",
        "NFMAILGUARD_DEST_PORT": "25",
        "NFMAILGUARD_MAILGUARD_FINDING": "command.denied",
        "NFMAILGUARD_MAILGUARD_ACTION": "mask",
        "NFMAILGUARD_MAILGUARD_APPLIED": "true",
        "NFMAILGUARD_MAILGUARD_BEFORE": 'EHLO\n_PID=1\n"',
    }
    assert sink.lost == 0


def test_a_peers_line_feeds_make_no_field() -> None:
    entry = emit_entry([("A", "x\n_UID=0\nMESSAGE=y"), ("B", "z")])
    assert parsed(entry) == {"A": "x\n_UID=0\nMESSAGE=y", "B": "z"}


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_every_event_has_a_message_id_and_names_the_journal_takes(kind: str) -> None:
    body = {name.replace("[]", ""): 1 for name in FIELDS[kind]}
    entry = parsed(emit_entry(journal._fields(line({"timestamp": "t", "event_type": kind, kind: body}))))
    assert entry["MESSAGE_ID"] == MESSAGE_IDS[kind]
    assert entry["MESSAGE"].startswith(kind)
    assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", name) for name in entry)


def test_message_ids_are_128_bits_each_its_own_and_documented() -> None:
    assert set(MESSAGE_IDS) == {*FIELDS, *map(str, SEVERITIES)}
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in MESSAGE_IDS.values())


@pytest.mark.sources
def test_message_ids_are_those_of_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    table = text.partition("| event, log line | `MESSAGE_ID` |\n|---|---|\n")[2]
    assert dict(re.findall(r"^\| (\w+) \| `(\w+)` \|$", table, re.MULTILINE)) == MESSAGE_IDS


def test_what_a_datagram_does_not_hold_comes_as_a_sealed_file(listener: socket.socket, sink: JournalSink) -> None:
    text = "x" * (9 << 20)
    sink.write([line({**EVENT, "mailguard": {"before": text}})])
    octets, descriptors, _, _ = socket.recv_fds(listener, 10, 1)
    assert octets == b""
    with os.fdopen(descriptors[0], "r+b") as file:
        assert parsed(file.read() or os.pread(file.fileno(), 1 << 26, 0))["NFMAILGUARD_MAILGUARD_BEFORE"] == text
        with pytest.raises(PermissionError):
            os.ftruncate(file.fileno(), 1)
    assert sink.lost == 0


def test_a_journal_that_does_not_read_is_not_waited_for(listener: socket.socket, sink: JournalSink) -> None:
    began = time.monotonic()
    sink.write([line(EVENT)] * 5000)
    assert time.monotonic() - began < 3
    assert 0 < sink.lost < 5000
    assert sink.trouble == "journald: Resource temporarily unavailable; events are lost"
    taken = 0
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while listener.recv(1 << 16):
            taken += 1
    assert taken + sink.lost == 5000
    sink.write([line(EVENT)])
    assert (taken + sink.lost, sink.trouble) == (5000, None)


def test_a_journal_that_goes_and_comes_back(
    listener: socket.socket, sink: JournalSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_AGAIN", 0.0)
    listener.close()
    sink.write([line(EVENT)] * 3)
    assert (sink.lost, sink.trouble) == (3, "journald: Connection refused; events are lost")
    (tmp_path / "socket").unlink()
    sink.write([line(EVENT)])
    assert (sink.lost, sink.trouble) == (4, "journald: No such file or directory; events are lost")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as back:
        back.bind(str(tmp_path / "socket"))
        sink.write([line(EVENT)])
        assert parsed(back.recv(1 << 16))["NFMAILGUARD_FLOW_ID"] == "7"
    assert (sink.lost, sink.trouble) == (4, None)


def test_log_lines_that_the_journal_does_not_take_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "none")
    lines = Syslog("journald")
    lines.look()
    assert lines.trouble == "journald: No such file or directory; log lines would be lost"
    lines.send([(0, Message(108007, "TLS started", "ASA"))] * 2)
    assert lines.lost == 2
    assert lines.failure == "syslog.target: journald: No such file or directory"


ISOLATED = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount --bind /dev/null /dev/kmsg
mkdir -p /run/systemd/journal /run/log/journal
exec {journald}
"""
SEND = """
import json, sys
from nfmailguard.events.cisco import Message
from nfmailguard.events.journal import JournalSink
from nfmailguard.events.syslog import Syslog
sink, event = JournalSink(), json.loads(sys.argv[1])
sink.write([json.dumps(event).encode(), json.dumps({**event, "flow_id": 8, "long": "x" * 500000}).encode()])
lines = Syslog("journald")
lines.send([(0, Message(108007, "TLS started", "ASA"))])
assert (sink.lost, lines.lost) == (0, 0), sink.trouble
"""


@pytest.mark.skipif(os.geteuid() != 0 or not JOURNALD.exists(), reason="needs root and systemd-journald")
@pytest.mark.skipif(not shutil.which("journalctl") or not shutil.which("nsenter"), reason="needs journalctl, nsenter")
def test_systemds_own_journal_takes_them() -> None:
    """With a ``/run`` of its own, so that the machine's journal sees nothing."""
    command = ["unshare", "-m", "sh", "-c", ISOLATED.format(journald=JOURNALD)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    inside = ["nsenter", "-t", str(server.pid), "-m"]
    try:
        ready = Path(f"/proc/{server.pid}/root/run/systemd/journal/socket")
        deadline = time.monotonic() + 20
        while not ready.is_socket():
            assert server.poll() is None, "systemd-journald does not run here"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        subprocess.run([*inside, sys.executable, "-c", SEND, json.dumps(EVENT)], check=True, env=environment)
        shown = [*inside, "journalctl", "-D", "/run/log/journal", "-o", "json", "--all", "-t", "nfmailguard"]
        entries: list[dict[str, str]] = []
        while len(entries) < 3 and time.monotonic() < deadline:
            out = subprocess.run(shown, capture_output=True, check=True, text=True).stdout
            entries = [json.loads(text) for text in out.splitlines()]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    first, second, third = entries
    assert first["MESSAGE"] == "mailguard: command.denied, mask 192.0.2.1:35088 -> [2001:db8::25]:25"
    assert first["MESSAGE_ID"] == second["MESSAGE_ID"] == MESSAGE_IDS["mailguard"]
    assert json.loads(first["NFMAILGUARD_EVENT"]) == EVENT
    assert (first["NFMAILGUARD_FLOW_ID"], second["NFMAILGUARD_FLOW_ID"]) == ("7", "8")
    assert second["NFMAILGUARD_LONG"] == "x" * 500000
    assert (third["MESSAGE"], third["MESSAGE_ID"]) == ("%ASA-6-108007: TLS started", MESSAGE_IDS["108007"])
    assert {entry["_TRANSPORT"] for entry in entries} == {"journal"}
