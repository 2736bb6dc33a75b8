"""Nothing that others wrote reaches a terminal or a log as anything but printable text."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.errors import ConfigError
from nfmailguard.plain import block, json_safe, octets, printable
from tests.support.captures import RAW as RAW_IP
from tests.support.captures import Conversation, framed, pcap
from tests.support.listening import serving

SOURCES = Path(__file__).parents[2] / "src" / "nfmailguard"
#: A title for the window, colours, the 8-bit CSI, DEL, BS, CR, reversed and invisible text, line ends of
#: others, rich's markup; what is no line of ours.
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b1m\x7f\x08\r\x85\u202e\u2066\u2028\u200b\ufeff[red]:smile:[/nonsense]"
#: The same for TOML's strings and keys.
IN_TOML = '"' + "".join(c if " " <= c <= "~" else f"\\u{ord(c):04x}" for c in HOSTILE) + '\\nfaked: a line"'
RAW = HOSTILE.encode() + b"\x9b\xff\x90"
LOOK = re.compile(r"\x1b\[\??[0-9;]*[A-Za-z]|\r(?=\x1b)")


def only_printable(text: str, *, tabs: bool = False) -> None:
    odd = {character for line in text.split("\n") for character in line if not character.isprintable()}
    assert odd <= ({"\t"} if tabs else set())


def ran(
    *arguments: str | bytes, given: bytes = b"", tabs: bool = False, terminal: bool = False
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COLUMNS": "200", **({"FORCE_COLOR": "1"} if terminal else {})}
    command = [sys.executable, "-m", "nfmailguard", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, input=given, timeout=60, env=environment)
    for stream in (done.stdout, done.stderr):
        text = stream.decode()
        only_printable(LOOK.sub("", text) if terminal else text, tabs=tabs)
        assert "Traceback" not in text
        assert not re.search("^faked", text, re.MULTILINE)
    return done


@given(st.text())
def test_printable_is_what_it_says_and_leaves_the_rest(text: str) -> None:
    shown = printable(text)
    only_printable(shown)
    assert "\n" not in shown
    assert (shown == text) is all(character.isprintable() for character in text)
    assert printable(shown) == shown
    only_printable(block(text))
    assert block(text).count("\n") == text.count("\n")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_says_the_same_and_is_printable(text: str) -> None:
    safe = json_safe(json.dumps([text], ensure_ascii=False).encode())
    only_printable(safe.decode())
    assert json.loads(safe) == [text]


def test_octets_are_shown_as_octets() -> None:
    assert octets(bytes(range(30, 34)) + b"\x7f\x9b") == "\\x1e\\x1f !\\x7f\\x9b"


def test_an_error_is_a_line_whatever_is_in_it() -> None:
    error = ConfigError(f"{HOSTILE}\nfaked: a line", "x" * 10_000)
    assert [len(line) < 2500 for line in error.lines] == [True, True]
    assert str(error).count("\n") == 1
    only_printable(str(error))


def test_everything_printed_goes_through_what_escapes() -> None:
    """``click.echo`` is the command line's ``echo`` alone, and a console is ours."""
    texts = {path.relative_to(SOURCES): path.read_text() for path in SOURCES.rglob("*.py")}
    assert [str(path) for path, text in texts.items() if re.search(r"click\.s?echo\(|\bsecho\(", text)] == [
        "cli/common.py"
    ]
    made = [str(path) for path, text in texts.items() if re.search(r"\bConsole\(", text)]
    assert made
    for path in made:
        assert path == "reports/console.py" or "from nfmailguard.reports.console import Console" in texts[Path(path)]


def test_nothing_is_written_past_it() -> None:
    """Words of our own, and JSON that is made printable (so are the lines of sinks); programs of ours talk to us."""
    ours = re.compile(r"\.write\(\"ready|\.write\(json_safe\(|print\(\"ready|# noqa: T201|join\(lines\)|write\(block\)")
    for path in SOURCES.rglob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"\bstd(out|err)\.(buffer\.)?write\(|(?<![\w.])print\(", line):
                assert ours.search(line), f"{path}: {line}"


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A folder with a name that nobody expects."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + RAW.replace(b"/", b"") + b"\nfaked"))
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("terminal", "as_json"), [(False, []), (True, []), (False, ["--json"])])
def test_check(named: Path, terminal: bool, as_json: list[str]) -> None:
    path = named / "nfmailguard.toml"
    for text, code in {
        f"{IN_TOML} = 3\n": 2,
        f"[gateway]\n{IN_TOML} = 3\n": 2,
        f"[gateway]\nprofile = {IN_TOML}\n": 2,
        f"[gateway]\naddresses = [{IN_TOML}]\n": 2,
        f"[gateway]\nmode = {IN_TOML}\n": 2,
        f"[policy]\n{IN_TOML} = 3\n": 2,
        f"[queue]\nnumbers = {IN_TOML}\n": 2,
        f"[syslog]\ntarget = 'x://y'\nhost = {IN_TOML}\n": 2,
        f"[syslog.interfaces]\n{IN_TOML} = ['::/0']\n": 2,
        f"[restore]\nbanner = {IN_TOML}\n": 2,
        f"[log]\neve = {IN_TOML}\n": 0,
        f"[[rule]]\nin = {IN_TOML}\n": 0,
        f"a = 1\n# {HOSTILE}": 2,
    }.items():
        path.write_text(text)
        assert ran("check", "-c", str(path), *as_json, tabs=True, terminal=terminal).returncode == code, text
    path.write_bytes(RAW)
    assert ran("check", "-c", str(path)).returncode == 2
    for override in (f"queue.{HOSTILE}=1", f"{HOSTILE}=1", f"gateway.mode={HOSTILE}", f"commands.letter={HOSTILE}"):
        assert ran("check", "--set", override).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [f"{HOSTILE}\nfaked"],
        ["check", f"--{HOSTILE}\nfaked"],
        [HOSTILE],
        ["check", f"--{HOSTILE}"],
        ["run", "--queue", HOSTILE],
        ["lab", HOSTILE],
    ],
)
def test_what_is_no_command(arguments: list[str]) -> None:
    assert ran(*arguments).returncode == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_profiles(named: Path, terminal: bool) -> None:
    path = named / "mine.toml"
    path.write_text(f"title = {IN_TOML}\n# \u202e\u009b\n[commands]\nallow = ['HELO']\n")
    for options in ([], ["--json"], ["--cisco"]):
        done = ran("profile", "show", str(path), *options, terminal=terminal)
        assert done.returncode in (0, 1)
    assert ran("check", "--profile", str(path), tabs=True, terminal=terminal).returncode == 0
    path.write_text(f"[{IN_TOML}]\n")
    assert ran("profile", "show", str(path), terminal=terminal).returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_cisco_configuration(named: Path, options: list[str], encoding: str) -> None:
    odd = HOSTILE.replace("\r", "").replace(" ", "").encode(encoding, "replace").decode(encoding)
    text = (
        f"policy-map type inspect esmtp {odd}\n description {odd}\n match cmd line length gt 512\n  log\n {odd} x\n"
        f" match cmd verb {odd}\n  mask\n"
    )
    path = named / "fw.cfg"
    path.write_bytes(text.encode(encoding))
    done = ran("profile", "import", str(path), *options)
    assert done.returncode in (1, 2)
    path.write_bytes(
        f"policy-map type inspect esmtp m\n description {odd}\n parameters\n  mask-banner\n".encode(encoding)
    )
    done = ran("profile", "import", str(path), *options)
    assert done.returncode == 0
    title = (
        json.loads(done.stdout)["maps"][0]["policy"]["title"]
        if options
        else tomllib.loads(done.stdout.decode())["title"]
    )
    assert "[red]:smile:" in title
    assert ran("profile", "import", str(path), "--map", HOSTILE).returncode == 2


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_translate(named: Path, terminal: bool, options: list[str]) -> None:
    path = named / "dialogue"
    path.write_text(f"S: 220 {HOSTILE.replace(chr(13), '')}\n".replace("\x85", "").replace("\u2028", ""))
    assert ran("translate", str(path), *options, terminal=terminal).returncode == 0
    for text in (HOSTILE, f"C: \\{HOSTILE[0]}", f"C| {HOSTILE}"):
        path.write_text(text)
        assert ran("translate", str(path), *options, terminal=terminal).returncode == 2
    path.write_bytes(RAW)
    assert ran("translate", str(path), *options).returncode == 2


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_replay_and_diagnose(named: Path, terminal: bool, options: list[str]) -> None:
    path = named / "in.pcap"
    talk = Conversation()
    talk.server(b"220 ****" + RAW + b"****\r\n")
    talk.client(RAW + b"\r\nEHLO " + RAW + b"\r\nMAIL FROM:<" + RAW + b">\r\n")
    talk.server(b"250-XXXA\x1b[31m\r\n250 ok\x9b\r\n")
    path.write_bytes(pcap(framed(talk), RAW_IP))
    events = named / "eve.json"
    done = ran("replay", str(path), str(named / "out"), "--events", str(events), *options, terminal=terminal)
    assert done.returncode == 0
    assert b"banner" in events.read_bytes()
    only_printable(events.read_text())
    assert ran("diagnose", str(path), *options, terminal=terminal).returncode == 0
    for text in (RAW, b"postfix/smtp: said: unknown command XXXX " + RAW, b'postfix 220 ****"' + RAW):
        path.write_bytes(text)
        assert ran("diagnose", str(path), *options, terminal=terminal).returncode in (1, 3)
        assert ran("replay", str(path), *options, terminal=terminal).returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_counters(named: Path, options: list[str]) -> None:
    path = named / "eve.json"
    for stats in ({HOSTILE: 1}, {"x": HOSTILE}):
        path.write_text('{"event_type":"stats","stats":' + json.dumps(stats, ensure_ascii=False) + "}\n")
        assert ran("counters", "--events", str(path), *options).returncode in (0, 2)


@contextmanager
def hostile_server(greeting: bytes, reply: bytes) -> Iterator[int]:

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(greeting)
            for line in lines:
                if line.upper().startswith(b"QUIT"):
                    break
                connection.sendall(reply)

    with serving(socket.create_server(("127.0.0.1", 0)), talk) as port:
        yield port


@contextmanager
def server_of(replies: dict[bytes, bytes], asked: set[bytes]) -> Iterator[int]:
    """Answers each verb with a reply of its own; the verbs that came."""

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(b"220 ****2******0***\r\n")
            for line in lines:
                verb = line.split()[0].upper()
                asked.add(verb)
                connection.sendall(replies.get(verb, b"250 ok\r\n"))

    with serving(socket.create_server(("127.0.0.1", 0)), talk) as port:
        yield port


ODD = {
    "ESC": b"\x1b[2J\x1b]52;c;b3duZWQ=\x07",
    "BEL and BS": b"\x07\x08\x7f",
    "C1": b"\x9b31m\x90q\x9c",
    "CR": b"\rfaked: a line",
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "verb", ["EHLO", "HELO", "NOOP", "GOODMORNING", "XXXXXXXXXXX", "HELP", "VRFY", "STARTTLS", "DATA"]
)
def test_probe_whatever_a_server_answers_to(verb: str, odd: str) -> None:
    octets, asked = ODD[odd], set[bytes]()
    replies = {
        b"EHLO": b"250-mail\r\n250-XXXXXXXA\r\n250 SIZE 1\r\n" if verb != "HELO" else b"500 XXXX\r\n",
        b"GOODMORNING": b'500 "XXXXXXXXXXX" not recognized\r\n',
        b"DATA": b"503 no\r\n",
    }
    code = {"EHLO": b"250-mail\r\n250-XXXX", "GOODMORNING": b"500 XXXXXXXXXXX ", "DATA": b"503 "}.get(verb, b"250 ")
    replies[verb.encode()] = code + octets + (b"\r\n250 " + octets if verb == "EHLO" else b"") + b"\r\n"
    with server_of(replies, asked) as port:
        done = ran("probe", f"127.0.0.1:{port}", "--timeout", "3")
    assert done.returncode in (0, 1, 3)
    assert verb == "XXXXXXXXXXX" or verb.encode() in asked


@pytest.mark.parametrize(
    ("terminal", "options"),
    [(False, []), (True, []), (False, ["--json"]), (False, ["--message"]), (False, ["--learn"])],
)
@pytest.mark.parametrize(
    ("greeting", "reply"),
    [
        (b"220 ****" + RAW + b"\r\n", b"500 XXXX " + RAW + b"\r\n"),
        (b"220-" + RAW + b"\r\n220 mail\r\n", b"250-" + RAW + b"\r\n250-XXXA\r\n250 " + RAW + b"\r\n"),
        (b"554 " + RAW + b"\r\n", b""),
        (RAW + b"\r\n", b""),
        (b"220 mail\r\n", b"250-mail\r\n250-SIZE " + RAW + b"\r\n250 ok\r\n"),
    ],
)
def test_probe(terminal: bool, options: list[str], greeting: bytes, reply: bytes) -> None:
    with hostile_server(greeting, reply) as port:
        ran("probe", f"127.0.0.1:{port}", "--timeout", "3", *options, terminal=terminal)
