"""``probe --learn``: what a server always says is learned; what changes is not, and that is told."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nfmailguard.cli import cli
from nfmailguard.config import load
from tests.support.listening import serving
from tests.unit.test_probe_servers import PLAIN, said
from tests.unit.test_probe_servers import server as fixed_server


def learn(greeting: Callable[[int], str], ehlo: Callable[[int], str] = lambda number: PLAIN["EHLO"]) -> Result:
    """Of a server whose greeting and EHLO reply are made for each connection, by its number."""
    import socket

    numbers = itertools.count(1)

    def talk(connection: socket.socket) -> None:
        number = next(numbers)
        with connection.makefile("rb") as lines:
            connection.sendall(said(greeting(number)))
            for line in lines:
                verb = line.split()[0].decode().upper()
                reply = ehlo(number) if verb == "EHLO" else PLAIN.get(verb, PLAIN["*"])
                connection.sendall(said(reply.replace("{}", verb.lower())))
                if verb == "QUIT":
                    break

    with serving(socket.create_server(("127.0.0.1", 0)), talk) as port:
        return CliRunner().invoke(cli, ["probe", f"127.0.0.1:{port}", "--learn", "--timeout", "5"])


def table(done: Result, tmp_path: Path) -> dict[str, object]:
    """What was learned, as a configuration that can be loaded."""
    path = tmp_path / "restore.toml"
    path.write_text('[gateway]\nmode = "restore"\nprofile = "asa"\n' + done.stdout)
    load(path)
    (learned,) = tomllib.loads(done.stdout)["restore"]["server"]
    assert isinstance(learned, dict)
    return learned


def test_what_stays_the_same_is_learned(tmp_path: Path) -> None:
    done = learn(lambda number: "220 mx.example.com ESMTP")
    assert (done.exit_code, done.stderr) == (0, "")
    assert table(done, tmp_path) == {
        "addresses": ["127.0.0.1"],
        "banner": "mx.example.com ESMTP",
        "keywords": ["SIZE 1000", "STARTTLS", "CHUNKING", "8BITMIME"],
    }


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (lambda number: f"220 mx Exim 4.96 Sun, 29 Nov 2026 12:00:{number:02}", "it changes from one connection to"),
        (lambda number: f"220 mx ESMTP Haraka ready ({number:08X})", "it changes from one connection to the next"),
        (lambda number: "220 mx Sendmail {127.0.0.1 4025}", "it names who asks (127.0.0.1)"),
    ],
)
def test_a_greeting_that_changes_or_names_who_asks_is_left_out(
    greeting: Callable[[int], str], why: str, tmp_path: Path
) -> None:
    done = learn(greeting)
    assert "banner" not in table(done, tmp_path)
    assert f"# left out: banner: {why}" in done.stdout
    assert done.stderr.startswith(f"nfmailguard: left out: banner: {why}")
    assert done.stderr.count("\n") == 1


def test_a_keyword_that_changes_is_left_out(tmp_path: Path) -> None:
    done = learn(lambda number: "220 mx", lambda number: f"250-mx|250-XID {number}|250 8BITMIME")
    assert table(done, tmp_path)["keywords"] == ["8BITMIME"]
    assert "keywords: XID 1: not said again" in done.stderr


def test_a_server_that_is_busy_the_second_time_teaches_no_greeting(tmp_path: Path) -> None:
    done = learn(lambda number: "220 mx" if number < 3 else "421 too many connections")
    learned = table(done, tmp_path)
    assert ("banner" in learned, learned["keywords"]) == (False, [])


def test_what_is_masked_already_is_an_error() -> None:
    masked = {**PLAIN, "": "220 ****************2********"}
    with fixed_server(masked) as port:
        done = CliRunner().invoke(cli, ["probe", f"127.0.0.1:{port}", "--learn", "--timeout", "5"])
    assert done.exit_code != 0
    assert done.stdout == ""
