"""`report`: what enforcing would break, counted from events."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from nfmailguard.cli import cli
from nfmailguard.errors import ConfigError
from nfmailguard.events.outlook import Outlook, Redaction, Senders, lines_of, since
from nfmailguard.reports import outlook
from tests.support.captures import RAW, framed, mail, pcap

SECRET = "c2VjcmV0LXBhc3N3b3Jk"
ESCAPE = "\x1b[31mred\x1b]0;title\x07"
KEY = b"0123456789abcdef"


def event(flow: int, kind: str, body: dict[str, Any] | None = None, source: str = "192.0.2.7", **more: Any) -> bytes:
    fields = {"timestamp": "2026-11-24T16:20:00.000123+0000", "flow_id": flow, "event_type": kind, "src_ip": source}
    return json.dumps({**fields, **more, **({kind: body} if body else {})}).encode() + b"\n"


def finding(flow: int, name: str, action: str = "mask", source: str = "192.0.2.7", **more: Any) -> bytes:
    return event(flow, "mailguard", {"finding": name, "action": action, **more}, source)


def masked(flow: int, keyword: str, **more: Any) -> bytes:
    return finding(flow, "reply.keyword_masked", keyword=keyword, **more)


def told(
    *lines: bytes, redaction: Redaction = Redaction.PREFIX, key: bytes = b"", start: datetime | None = None
) -> Outlook:
    found = Outlook(Senders(redaction, key), start)
    found.read(lines)
    found.finish()
    return found


def test_a_session_is_counted_once_in_each_row() -> None:
    found = told(
        *(masked(1, "STARTTLS"), masked(1, "STARTTLS"), masked(1, "CHUNKING")),
        *(event(1, "smtp", {"tls": True}), event(1, "smtp", {"tls": True}), event(1, "flow", {"reason": "timeout"})),
        *(masked(2, "STARTTLS"), event(2, "flow", {"age": 1})),
    )
    assert (found.sessions, found.changed, found.mails) == (2, 2, 2)
    assert (found.hidden["STARTTLS"], found.used["STARTTLS"]) == (2, 1)
    assert (found.hidden["CHUNKING"], found.used["CHUNKING"]) == (1, 0)
    assert found.senders["192.0.2.0/24"].lost == {"TLS": 1}


def test_what_is_lost_is_what_was_used() -> None:
    denied = told(finding(1, "command.denied", verb="STARTTLS"), finding(2, "command.denied", verb="BDAT"))
    assert (denied.used["STARTTLS"], denied.used["CHUNKING"]) == (1, 1)
    no_ehlo = told(finding(1, "command.denied", verb="EHLO"), event(1, "smtp", {"tls": True, "auth": True}))
    assert (no_ehlo.no_ehlo, no_ehlo.used["STARTTLS"], no_ehlo.used["AUTH"]) == (1, 1, 1)
    kept = told(masked(1, "CHUNKING"), event(1, "smtp", {"tls": True, "auth": True}))
    assert (kept.used["STARTTLS"], kept.used["AUTH"]) == (0, 0)
    assert told(masked(1, "auth=LOGIN"), event(1, "smtp", {"auth": True})).used["AUTH"] == 1


def test_a_finding_that_changes_nothing_breaks_nothing() -> None:
    found = told(
        finding(1, "data.bare_lf", "log"),
        finding(2, "upstream.banner_masked", "log"),
        finding(3, "recipients.too_many", "drop-connection"),
        finding(0, "packet.fragment", "drop"),
        event(4, "flow", {"age": 1}),
    )
    assert (found.sessions, found.changed, found.cut) == (4, 1, 1)


def test_the_numbers_of_an_earlier_start_are_other_sessions() -> None:
    found = told(masked(1, "STARTTLS"), masked(1, "STARTTLS", source="198.51.100.9"))
    assert (found.sessions, found.hidden["STARTTLS"]) == (2, 2)


def test_lines_nested_deeper_than_python_reads_are_no_events() -> None:
    found = told(b"[" * 100_000 + b"\n", b'{"a":' * 100_000 + b"\n", event(1, "flow", {"age": 1}))
    assert (found.unreadable, found.sessions) == (2, 1)


def test_only_events_since_then_are_counted_whatever_their_offset() -> None:
    lines = [
        event(number, "flow", {"age": 1}, timestamp=text)
        for number, text in enumerate(
            ("2026-11-24T09:59:59.999999+0000", "2026-11-24T10:00:00.000000+0000", "2026-11-24T11:59:59.999999+0200",
             "2026-11-24T12:00:00.000000+0200", "2026-11-24T04:30:00.000000-0530", "2026-11-24T04:29:59.000000-0530",
             "2026-11-24T10:00:00.000000+9999"), 1)
    ]  # fmt: skip
    assert told(*lines, start=datetime(2026, 11, 24, 10, tzinfo=UTC)).sessions == 4
    assert told(*lines).sessions == 7


@pytest.mark.parametrize(("text", "when"), [("7d", 17), ("48h", 22), ("2026-11-20T00:00:00+00:00", 20)])
def test_a_time_is_written_as_a_span_or_a_date(text: str, when: int) -> None:
    assert since(text, datetime(2026, 11, 24, tzinfo=UTC)).day == when


@pytest.mark.parametrize("text", ["7", "7y", "d", "-7d", "yesterday", "2026-13-01", "999999w"])
def test_what_is_no_time_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--since"):
        since(text, datetime(2026, 11, 24, tzinfo=UTC))


SOURCES = ("192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8:1::5", "2001:db8:1:2::5", "2001:db8:2::5")


def test_redaction_keeps_counts_and_joins() -> None:
    lines = [masked(number, "STARTTLS", source=source) for number, source in enumerate(SOURCES, 1)]
    plain = told(*lines, redaction=Redaction.NONE)
    networks = told(*lines)
    hashed, again = (told(*part, redaction=Redaction.HASH, key=KEY) for part in (lines, lines[:3]))
    other = told(*lines, redaction=Redaction.HASH, key=KEY[::-1])
    assert set(plain.senders) == set(SOURCES)
    assert list(networks.senders) == ["192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/48", "2001:db8:2::/48"]
    for found in (plain, networks, hashed, other):
        assert (found.sessions, found.hidden["STARTTLS"]) == (6, 6)
    assert [one.sessions for one in hashed.senders.values()] == [one.sessions for one in networks.senders.values()]
    assert set(again.senders) < set(hashed.senders)  # the same name in another report
    assert not set(other.senders) & set(hashed.senders)
    page = outlook.html(hashed) + json.dumps(outlook.as_json(hashed))
    assert not any(part in page for part in ("192.0.2", "198.51.100", "2001:db8"))


def written(tmp_path: Path) -> Path:
    hostile = {"before": f"AUTH PLAIN {SECRET}{ESCAPE}", "after": SECRET, "keyword": f"<b>{ESCAPE}"}
    lines = [
        finding(1, "command.denied", verb="AUTH", **hostile),
        masked(1, "STARTTLS"),
        finding(1, f"x.{ESCAPE}", verb=ESCAPE, source="<script>"),
        event(1, "smtp", {"tls": True, "mail_from": f"{ESCAPE}@x", "helo": SECRET, "reply": ESCAPE}),
        b'{"torn": \n' + b"\xff\xfe\n[]\n",
    ]
    path = tmp_path / "eve.json"
    path.write_bytes(b"".join(lines))
    return path


def run(*options: str) -> str:
    done = CliRunner().invoke(cli, ["report", *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_no_secret_and_nothing_of_peers_reaches_an_output(tmp_path: Path) -> None:
    path, page = written(tmp_path), tmp_path / "page.html"
    outputs = [run("--since", "all", *more, str(path)) for more in ((), ("--json",), ("--redact", "none"))]
    run("--since", "all", "--html", str(page), str(path))
    for text in (*outputs, page.read_text()):
        assert SECRET not in text
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text) is None
        assert "<script>" not in text
        assert "@x" not in text
    assert "3 lines were no events" in outputs[0]
    assert json.loads(outputs[1])["lost"] == {"AUTH": 1}


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("--since", "all", "--html", str(page), str(written(tmp_path)))
    assert re.search(r"src=|href=|url\(|@import|<script", page.read_text()) is None


def test_the_events_of_a_capture_are_understood(tmp_path: Path) -> None:
    capture, eve = tmp_path / "in.pcap", tmp_path / "eve.json"
    capture.write_bytes(pcap(framed(mail()), RAW))
    for profile, findings in (("pix63", {"banner.masked": 1, "command.denied": 1}), ("rfc821", {"command.denied": 1})):
        eve.unlink(missing_ok=True)
        options = ["--mode", "monitor", "--profile", profile, "--set", "limits.cookies=0", "--events", str(eve)]
        done = CliRunner().invoke(cli, ["replay", "-c", "/dev/null", str(capture), *options], catch_exceptions=False)
        assert done.exit_code == 0
        told = json.loads(run("--since", "all", "--json", str(eve)))
        assert (told["sessions"], told["changed"], told["mails"], told["no_ehlo"]) == (1, 1, 1, 1)
        assert told["findings"] == findings


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "eve.json.1.gz"
    path.write_bytes(gzip.compress(masked(1, "STARTTLS")))
    assert json.loads(run("--since", "all", "--json", str(path)))["hidden"] == {"STARTTLS": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--redact", "sha"], "--redact sha: one of none, prefix, hash"),
        (["--redact", "hash"], "--key"),
        (["--since", "x"], "--since x: write 7d"),
        (["/nowhere/eve.json"], "/nowhere/eve.json: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        CliRunner().invoke(cli, ["report", "-c", "/dev/null", "--since", "all", *options], catch_exceptions=False)


@pytest.mark.parametrize(
    "text",
    [
        *("0001-01-01", "0001-01-01T00:00+14:00", "0001-01-01T23:59Z", "9999-12-31T23:59", "9999-12-31T00:00-14:00"),
        *("9999-12-31", f"{datetime.now(UTC).toordinal() - 1}d", "999999d", "999999w"),
    ],
)
def test_a_time_beyond_all_dates_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(event(1, "flow", {"age": 1}) + event(2, "flow", timestamp="2026-11-24T10:00:00.000000-1400"))
    with pytest.raises(ConfigError, match=rf"--since {re.escape(text)}: there are no such dates"):
        CliRunner().invoke(cli, ["report", "--since", text, str(path)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0001-01-02T00:00Z", 2),
        ("0800-01-01T00:00Z", 2),
        ("0999-12-31", 2),
        ("9999-12-30T00:00Z", 0),
        ("9998-01-01", 0),
    ],
)
def test_a_time_long_ago_or_to_come_is_one(text: str, count: int) -> None:
    lines = [event(1, "flow", {"age": 1}), event(2, "flow", timestamp="2026-11-24T10:00:00.000000-1400")]
    assert told(*lines, start=since(text, datetime.now().astimezone())).sessions == count


def test_a_packed_file_that_is_damaged_anywhere_is_read_or_one_line(tmp_path: Path) -> None:
    path = tmp_path / "eve.json.1.gz"
    lines = b"".join(masked(number, "STARTTLS", source=f"10.{number % 7}.{number % 201}.1") for number in range(1, 200))
    packed = gzip.compress(lines)
    said = set()
    for place in range(0, len(packed), 5):
        for damaged in (packed[:place], packed[:place] + bytes([packed[place] ^ 0x5A]) + packed[place + 1 :]):
            path.write_bytes(damaged)
            try:
                list(lines_of(path))
            except ConfigError as error:
                said.add(str(error).partition(" (")[0])
    assert f"{path}: the compressed data is damaged" in said
    assert {line.partition(": ")[0] for line in said} == {str(path)}
    path.write_bytes(packed[:200] + b"\xff" * 20 + packed[220:])
    argv = [sys.executable, "-m", "nfmailguard", "report", "--since", "all", str(path)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"nfmailguard: {path}: the compressed data is damaged (")


def sessions(count: int) -> float:
    """Processor seconds for the events of so many sessions."""
    lines = [
        line
        for number in range(count)
        for source in (f"10.{number % 200}.{number // 200}.7",)
        for line in (
            *(masked(number + 1, word, source=source) for word in ("STARTTLS", "CHUNKING")),
            event(number + 1, "smtp", {"tls": True}, source),
            event(number + 1, "flow", {"age": 1}, source),
        )
    ]
    before = time.thread_time()
    found = told(*lines, start=datetime(2026, 11, 17, tzinfo=UTC))
    took = time.thread_time() - before
    assert found.sessions == found.used["STARTTLS"] == count
    assert found._open == {}
    return took


def test_eight_times_the_events_take_no_more_than_their_time() -> None:
    assert sessions(24_000) < 8 * 3 * sessions(3_000)  # where each event goes through all sessions it is 64


@pytest.mark.sources
def test_the_fields_are_those_that_events_have() -> None:
    from nfmailguard.events import outlook as counted

    docs = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    for kind in (counted._Event, counted._Finding, counted._Mail):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in docs, field.name
