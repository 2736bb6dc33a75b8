"""Transcripts: what people write, and what they are shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nfmailguard.errors import ConfigError
from nfmailguard.policy.load import load_profile
from nfmailguard.reports.translation import render
from nfmailguard.smtp.transcript import as_json, parse
from nfmailguard.smtp.turns import Turn


def test_each_line_is_a_packet_with_its_crlf() -> None:
    assert parse("# note\n\nS: 220 x\nC: HELO a\n") == [Turn(False, b"220 x\r\n"), Turn(True, b"HELO a\r\n")]


def test_a_bar_goes_on_in_the_same_packet() -> None:
    assert parse("C: NOOP\nC| QUIT\n") == [Turn(True, b"NOOP\r\nQUIT\r\n")]


def test_escapes_and_cuts() -> None:
    text = "C: EH\\c\nC: \\0LO\\t\\x41\\\\\\n\n"
    assert parse(text) == [Turn(True, b"EH"), Turn(True, b"\0LO\tA\\\n")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HELO a", """t:1: 'HELO a'; a line begins with "C: " or "S: \""""),
        ("C: a\n\nS| b", "t:3: S| goes on where no packet of that side is"),
        (r"C: \q", r"t:1: \\q is no escape"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, "t")


DIALOGUE = "S: 220 mail2\nC: EHLO a\nS: 500 no\nC: HELO a\n"


def test_a_pipe_gets_plain_lines_changed_ones_twice() -> None:
    out = io.StringIO()
    render(load_profile("pix63"), parse(DIALOGUE), Console(file=out, width=80), apply=True)
    assert out.getvalue().splitlines() == [
        "S: 220 mail2",
        "S> 220 ****2",
        "C: EHLO a",
        "C> XXXX a",
        "S: 500 no",
        "C: HELO a",
        (
            "# banner.masked: mask; the server's 220 greeting is hidden by the profile's banner rule"
            ' [S-Q295725, S-MS320027, S-HVERA: stars except 2, 0 and "0 SPACE"]'
        ),
        "# command.denied: mask; the verb EHLO is not let through by this profile [S-4733: RFC 821 4.5.1]",
    ]


def test_json_says_the_same() -> None:
    told = as_json(load_profile("pix63"), parse(DIALOGUE), apply=True)
    assert [line["seen"] for line in told["lines"]] == ["220 ****2", "XXXX a", "500 no", "HELO a"]
    assert [finding["finding"] for finding in told["findings"]] == ["banner.masked", "command.denied"]


def test_what_a_dropped_connection_never_saw_is_said() -> None:
    told = as_json(load_profile("asa"), parse("S: 220 x\nC: NOOP " + "a" * 600 + "\nC: QUIT\n"), apply=True)
    assert told["ended"] == "drop-connection"
    assert [line["seen"] for line in told["lines"]] == ["220 *", None, None]
