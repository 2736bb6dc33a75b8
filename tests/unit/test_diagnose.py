"""``diagnose``: silent on ordinary logs, and every trace found in those that have some, with the side."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.cli import cli
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.syslog import open_syslog
from nfmailguard.events.targets import Format, Interfaces
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import FlowRule, Mode
from nfmailguard.probe import journal, traces
from nfmailguard.probe.signs import KINDS, signs, speaker
from nfmailguard.probe.traces import Trace, Traces
from tests.support.dialogue import Dialogue
from tests.support.mail_logs import PROGRAMS, journald, ordinary
from tests.unit.test_cisco_log import GREETING
from tests.unit.test_cisco_log import LINES as LOGGED

FOLDER = Path(__file__).parents[1] / "fixtures" / "logs"
CASES = tomllib.loads((FOLDER / "lines.toml").read_text())["case"]
DAMAGE = tomllib.loads((FOLDER / "damage.toml").read_text())
SILENT = {case["name"]: case["line"] for case in CASES if "kind" not in case}
SURE = {case["name"]: (case["line"], case["kind"]) for case in CASES if "kind" in case and case.get("sure", True)}
WEAK = {case["name"]: (case["line"], case["kind"]) for case in CASES if not case.get("sure", True)}


def found_in(tmp_path: Path, *lines: str) -> Traces:
    path = tmp_path / "mail.log"
    path.write_text("".join(f"{line}\n" for line in lines))
    return traces.read(path)


def one_of(found: Traces) -> Trace:
    (trace,) = found.traces
    return trace


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_ordinary_log_has_no_trace(program: str, tmp_path: Path) -> None:
    lines = ordinary(program, 2000)
    assert len(lines) >= 2000
    found = found_in(tmp_path, *lines)
    assert (found.traces, found.exit_code, found.of_mail) == ((), 0, True)


#: Of the lab's servers (tests/support/recording_logs.py): without a box, with one before this server, with one before
#: one of four that it speaks with.
RECORDED = sorted((FOLDER / "recorded").glob("*.log"))
SIGNS = {
    "postfix": {"postfix-workaround", "ehlo-not-understood"},
    "exim": {"masked-command"},
    "opensmtpd": {"masked-command"},
    "sendmail": {"masked-command"},
}
FIRST = "10.25.1.11"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_log_of_a_real_server_tells_whether_a_box_is_there_and_on_whose_side(path: Path) -> None:
    program, _, behind = path.stem.partition("-")
    found = traces.read(path)
    assert found.of_mail
    if behind == "nothing":
        assert (found.traces, found.exit_code) == ((), 0)
        return
    assert {trace.kind for trace in found.traces} == SIGNS[program]
    assert found.exit_code == 1
    for trace in found.traces:
        assert trace.side == behind
        assert trace.peers_with == (4 if behind == "yours" else 1)
        assert FIRST in trace.peers


def test_ordinary_lines_of_real_servers_are_many() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in RECORDED if path.stem.endswith("-nothing"))
    assert lines >= 1000
    assert {path.stem.partition("-")[0] for path in RECORDED} == set(SIGNS)


@pytest.mark.parametrize("name", SILENT)
def test_what_is_no_trace_is_none(name: str, tmp_path: Path) -> None:
    assert found_in(tmp_path, SILENT[name]).traces == ()


@pytest.mark.parametrize("name", SURE)
def test_a_sure_trace_is_found(name: str, tmp_path: Path) -> None:
    line, kind = SURE[name]
    found = found_in(tmp_path, line, "Jan 1 mx postfix/qmgr[1]: 4F1: removed", line)
    trace = one_of(found)
    assert (trace.kind, trace.count, trace.sure, trace.first, trace.last) == (kind, 2, True, "line 1", "line 3")
    assert found.exit_code == 1


@pytest.mark.parametrize("name", WEAK)
def test_a_trace_with_other_causes_is_told_as_one(name: str, tmp_path: Path) -> None:
    line, kind = WEAK[name]
    found = found_in(tmp_path, line)
    trace = one_of(found)
    assert (trace.kind, trace.sure, found.exit_code) == (kind, False, 3)
    assert trace.advice


def test_a_lost_end_of_data_names_the_network_first(tmp_path: Path) -> None:
    advice = one_of(found_in(tmp_path, WEAK["Exim, a block"][0])).advice
    assert advice.index("path MTU") < advice.index("PIX")
    assert "5.2(4)" in advice
    assert "8.4(1)" in advice


WORKAROUND = (
    "Aug 9 11:33:04 mx postfix/smtp[1]: 51: enabling PIX workarounds: delay_dotcrlf for mx{n}.example[192.0.2.{n}]:25"
)
SENT = "Aug 9 11:33:04 mx postfix/smtp[1]: 51: to=<a@b>, relay=mx{n}.example[192.0.2.{n}]:25, status=sent (250 ok)"
MASKED = "Aug 9 11:33:04 mx postfix/smtpd[1]: warning: non-SMTP command from c{n}.example[192.0.2.{n}]: XXXX c.example"
CLEAN = "Aug 9 11:33:04 mx postfix/smtpd[1]: 51: client=c{n}.example[192.0.2.{n}]"


@pytest.mark.parametrize(
    ("with_it", "without", "sign", "other", "side"),
    [
        ((1, 2, 3), (), WORKAROUND, SENT, "yours"),
        ((1, 2), (1, 2), WORKAROUND, SENT, "yours"),
        ((1,), (1, 2, 3, 4), WORKAROUND, SENT, "theirs"),
        ((1,), (1,), WORKAROUND, SENT, "unknown"),
        ((1, 2, 3), (), MASKED, CLEAN, "yours"),
        ((7,), (1, 2, 3), MASKED, CLEAN, "theirs"),
        ((1, 2, 3, 4), (5,), MASKED, CLEAN, "yours"),
        ((1, 2, 3), (5, 6), MASKED, CLEAN, "unknown"),
        ((7,), (), MASKED, SENT, "unknown"),
    ],
)
def test_the_side_follows_from_who_shows_it(
    tmp_path: Path, with_it: tuple[int, ...], without: tuple[int, ...], sign: str, other: str, side: str
) -> None:
    lines = [*(sign.format(n=n) for n in with_it), *(other.format(n=n) for n in without)]
    trace = one_of(found_in(tmp_path, *lines))
    assert (trace.side, trace.peers_with) == (side, len(with_it))
    if "smtp[" in sign or other is CLEAN:
        assert trace.peers_seen == len({*with_it, *without})


@pytest.mark.parametrize("program", DAMAGE)
@pytest.mark.parametrize(("damaged", "side"), [((1, 2, 3, 4), "yours"), ((3,), "theirs")])
def test_damage_is_found_in_a_long_log_with_its_side(
    program: str, damaged: tuple[int, ...], side: str, tmp_path: Path
) -> None:
    honest, sign = DAMAGE[program]["honest"], DAMAGE[program]["damaged"]
    lines = [f"#Log-type: SMTP {'Send' if program == 'exchange' else 'Other'} Protocol Log"]
    lines += [(sign if n in damaged else honest).format(n=n) for n in range(1, 5)] * 3
    trace = one_of(found_in(tmp_path, *lines))
    assert (trace.count, trace.side, trace.peers_with, trace.peers_seen) == (3 * len(damaged), side, len(damaged), 4)
    among = one_of(found_in(tmp_path, *ordinary(program, 300), *lines, *ordinary(program, 300, seed=8)))
    assert among.count == trace.count


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("case", LOGGED)
def test_the_lines_that_a_gateway_of_ours_writes_are_a_trace(case: str, form: Format, tmp_path: Path) -> None:
    profile, settings, turns, _ = LOGGED[case]
    policy = override(load_profile(profile), settings)
    dialogue = Dialogue.under(policy)
    for turn in [GREETING, *turns]:
        dialogue.say(*turn)
    log = tmp_path / "cisco.log"
    target = open_syslog(str(log), facility="local4", host="gw", form=form)
    CiscoWriter([FlowRule(Mode.ENFORCE, policy)], target, interfaces=Interfaces()).write(dialogue.records)
    target.close()
    assert log.read_text().count("\n") >= 1
    found = traces.read(log)
    assert found.exit_code == 1
    assert {trace.side for trace in found.traces} == {"yours"}


def test_classes_of_a_firewall_are_counted_apart(tmp_path: Path) -> None:
    line = "fw %ASA-4-108004: ESMTP Classification: Dropped connection for ESMTP Request from a:1/2 to b:3/25; matched "
    trace = one_of(
        found_in(tmp_path, *[line + "Class 4: header line length gt 998"] * 3, line + "Class 2: cmd RCPT count gt 100")
    )
    assert trace.details == {"Class 4: header line length gt 998": 3, "Class 2: cmd RCPT count gt 100": 1}
    assert trace.side == "yours"


def test_a_session_s_peer_is_what_its_first_line_said(tmp_path: Path) -> None:
    """OpenSMTPD and sendmail say a client's address once, and the session on every line."""
    head = "Jan 1 1:0:0 mx smtpd[1]:"
    refused = 'command="XXXX c" result="500 5.5.1 Invalid command: Command unrecognized"'
    lines = [f"{head} {n:x} smtp connected address=192.0.2.{n} host=c" for n in range(1, 6)]
    lines += [f"{head} 2 smtp failed-command {refused}", f"{head} ff smtp failed-command {refused}"]
    assert one_of(found_in(tmp_path, *lines)).peers == ("192.0.2.2",)
    lines = [f"mx sendmail[{n}]: NOQUEUE: connect from c [192.0.2.{n}]" for n in range(1, 6)]
    assert one_of(found_in(tmp_path, *lines, "mx sendmail[4]: 6A1: <-- XXXX c.example")).peers == ("192.0.2.4",)


def test_the_peers_of_sessions_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_MOST_PEERS", 3)
    refused = 'smtp failed-command command="XXXX c" result="500 Command unrecognized"'
    lines = [f"mx smtpd[1]: {n:x} smtp connected address=192.0.2.{n}" for n in range(1, 6)]
    lines += [f"mx smtpd[1]: {n} {refused}" for n in (1, 5)]
    assert one_of(found_in(tmp_path, *lines)).peers == ("192.0.2.5",)


# A greeting is all of its lines, and an FTP server's is none.


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["220-********************", "220 ****2***"], 1),
        (
            [
                "220-********************",
                "220-          ** WARNING ** WARNING **",
                "220 ****** Unauthorised use ******",
            ],
            0,
        ),
        (["220-********************", "220 mx.example.com"], 0),
        (["220-********************"], 1),
        (["Response: 220 ***************", "Command: USER anonymous", "Response: 331 Anonymous login ok"], 0),
        (["220 ***************", "EHLO me", "500 what?"], 1),
    ],
)
def test_a_greeting_of_stars_is_stars_to_its_end(lines: list[str], count: int, tmp_path: Path) -> None:
    assert sum(trace.count for trace in found_in(tmp_path, *lines).traces) == count


# Files.

LINES = [WORKAROUND.format(n=1), SENT.format(n=2)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda octets: octets])
def test_packed_logs_are_read(pack: object, tmp_path: Path) -> None:
    path = tmp_path / "mail.log.1"
    path.write_bytes(pack("\n".join(LINES).encode()))  # type: ignore[operator]
    assert one_of(traces.read(path)).side == "theirs"


def test_a_packed_log_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "mail.log.1.gz"
    whole = gzip.compress("\n".join([LINES[0], *ordinary("postfix", 2000)]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    assert one_of(traces.read(path)).count == 1


def test_several_files_are_one_log(tmp_path: Path) -> None:
    paths = []
    for number in (1, 2, 3):
        paths.append(tmp_path / f"mail.{number}")
        paths[-1].write_text(WORKAROUND.format(n=number) + "\n")
    trace = one_of(traces.read_all(paths))
    assert (trace.count, trace.side) == (3, "yours")
    assert trace.first == f"{paths[0]} line 1"
    assert trace.last == f"{paths[2]} line 1"


def test_journald_is_read_as_syslog(tmp_path: Path) -> None:
    quiet = found_in(tmp_path, *journald(ordinary("postfix", 2000)))
    assert (quiet.traces, quiet.of_mail) == ((), True)
    loud = found_in(tmp_path, *journald([WORKAROUND.format(n=n) for n in range(1, 60)]))
    assert (one_of(loud).count, one_of(loud).side) == (59, "yours")


def test_events_of_ours_are_named_with_what_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_text('{"timestamp":"x","event_type":"mailguard","mailguard":{"before":"220 ****************"}}\n')
    done = CliRunner().invoke(cli, ["diagnose", str(path)])
    assert "events of nfmailguard itself: read them with `nfmailguard report`" in done.output


def test_standard_input_and_stable_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["diagnose", "-", "--json"], input="\n".join(LINES))
    told = json.loads(done.output)
    assert done.exit_code == 1
    assert set(told) == {"file", "kind", "of_mail", "traces", "events", "exit_code"}
    assert set(told["traces"][0]) == {
        *("kind", "meaning", "count", "first", "shown", "last", "sure", "side", "peers_with", "peers_seen", "peers"),
        *("details", "advice"),
    }


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "queue.txt"
    path.write_text("LastError : 451 5.7.3 Cannot achieve Exchange Server authentication\r\n", encoding="utf-16")
    assert one_of(traces.read(path)).kind == "auth-not-offered"


def test_people_are_told_the_side_and_what_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_text("\n".join(WORKAROUND.format(n=n) for n in (1, 2)))
    shown = " ".join(CliRunner().invoke(cli, ["diagnose", str(path)]).output.split())
    assert "all of them in the log (2 of 2) show it: the box is on your side of the path" in shown
    path.write_text(WEAK["Exim, a block"][0])
    shown = " ".join(CliRunner().invoke(cli, ["diagnose", str(path)]).output.split())
    assert "path MTU" in shown
    assert "None of this is sure" in shown


# Nothing is quadratic in a line.

HOSTILE = [
    "X",
    "XXXX ",
    "x",
    '"XXXX ',
    "220 ",
    "220 ****",
    "**** a",
    '"****" ',
    "[1.1.1.1",
    "relay=a ",
    "command ",
    "< a[",
]
HOSTILE += ["250-XX", "syntax error ", "timed out ", "disconnect from a", " a=1", "Class 1: ", "address=smtp://", "H=["]
HOSTILE += ["delivery 1: a: ", "%ASA-4-108004 ", "1,", "postfix/", "sendmail[1]: ", "In: ", "1 < ", 'rejected "']


@pytest.mark.parametrize("part", HOSTILE)
def test_time_is_linear_in_a_line(part: str) -> None:
    taken = []
    for size in (2_000, 16_000):
        line = (part * (size // len(part) + 1))[:size] + "\x01"
        best = []
        for _ in range(3):
            begun = time.process_time()
            signs(line)
            speaker(line)
            best.append(time.process_time() - begun)
        taken.append(min(best))
    assert taken[1] < 8 * 4 * max(taken[0], 0.0005)


PARTS = st.sampled_from(
    [*HOSTILE, *SILENT.values(), *(line for line, _ in SURE.values()), "{", '{"MESSAGE":', "}", "\n"]
)


@given(st.lists(PARTS | st.binary(max_size=40).map(lambda octets: octets.decode("latin-1")), max_size=12))
def test_whatever_a_log_holds_is_read_and_shown_in_printable_letters(parts: list[str]) -> None:
    text = "".join(parts).encode("latin-1", "replace")
    for _, line in journal.lines(io.BufferedReader(io.BytesIO(text))):  # type: ignore[arg-type]
        speaker(line)
        for sign in signs(line):
            assert sign.kind in KINDS
            assert sign.shown


def test_every_kind_has_a_meaning_and_the_weak_ones_advice() -> None:
    assert all(kind.meaning and (kind.sure or kind.advice) for kind in KINDS.values())
