"""What ``probe`` answers before servers and boxes of every kind: the table of docs/probe.md, row by row.

    python -m tests.live.test_probe_table [ROW ...]

prints the table as it is now. Needs root; servers that are not here are skipped, each with what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nfmailguard.lab.postfix import Postfix, installed
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.policy.load import profile_names
from tests.live.test_mail import is_real_root
from tests.support.listening import serving
from tests.support.mailservers import Other, unpacked

pytestmark = pytest.mark.live
PAGE = Path(__file__).parents[2] / "docs" / "probe.md"
HEAD = ("before the client", "found", "sure", "TLS", "named", "exit")
Ends = contextlib.ExitStack
Scene = Callable[[Ends, Topology, Path], None]
#: Of a Postfix with a certificate, as any in service has.
_PLAIN = "smtpd_peername_lookup = no\n"  # nobody here answers, and it would wait for that
_TLS = (
    _PLAIN
    + "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {directory}/key.pem, {directory}/certificate.pem\n"
)
_STARS = "smtpd_banner = ************************************\n"


def _listen(topology: Topology, address: str | None = None) -> socket.socket:
    with topology.enter(SERVER):
        return socket.create_server((address or topology.address(SERVER), 25))


def _postfix(settings: str = _TLS, profile: str = "") -> Scene:
    def begin(ends: Ends, topology: Topology, directory: Path) -> None:
        if not installed():
            pytest.skip("no Postfix here; apt-get install postfix")
        address = (topology.address(SERVER),)
        ends.enter_context(Postfix(topology, SERVER, directory / "mail", addresses=address, settings=settings))
        _box(ends, topology, directory, profile)

    return begin


def _unpacked(kind: str, profile: str = "") -> Scene:
    def begin(ends: Ends, topology: Topology, directory: Path) -> None:
        if not unpacked(kind):
            pytest.skip(f"no {kind} under build/servers; deploy/setup test unpacks it")
        ends.enter_context(Other(topology, directory / "mail", kind))
        _box(ends, topology, directory, profile)

    return begin


def _aiosmtpd(profile: str = "") -> Scene:
    def begin(ends: Ends, topology: Topology, directory: Path) -> None:
        ends.enter_context(MailServer(topology, directory / "mail"))
        _box(ends, topology, directory, profile)

    return begin


def _box(ends: Ends, topology: Topology, directory: Path, profile: str) -> None:
    if profile:
        ends.enter_context(Gateway(topology, directory / "gateway", "--mode", "enforce", "--profile", profile))


def _proxy(*, refuses: bool) -> Scene:
    """In front of a Postfix: takes three lines out of what EHLO is answered; ``refuses``: STARTTLS, too."""

    def begin(ends: Ends, topology: Topology, directory: Path) -> None:
        if not installed():
            pytest.skip("no Postfix here; apt-get install postfix")
        ends.enter_context(Postfix(topology, SERVER, directory / "mail", addresses=("127.0.0.1",), settings=_TLS))

        def talk(client: socket.socket) -> None:
            with contextlib.suppress(OSError), topology.enter(SERVER):
                server = socket.create_connection(("127.0.0.1", 25), 10)
            with server, client.makefile("rb") as commands, contextlib.suppress(OSError):
                back = threading.Thread(target=_without, args=(server, client), daemon=True)
                back.start()
                for line in commands:
                    if refuses and line.upper().startswith(b"STARTTLS"):
                        client.sendall(b"502 5.5.2 Error: command not recognized\r\n")
                    else:
                        server.sendall(line)
                server.shutdown(socket.SHUT_WR)
                back.join(5)

        ends.enter_context(serving(_listen(topology), talk))

    return begin


def _without(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError), server.makefile("rb") as replies:
        for line in replies:
            if not re.match(rb"250-(STARTTLS|CHUNKING|SMTPUTF8)\r", line):
                client.sendall(line)
        client.shutdown(socket.SHUT_WR)


def _says(*words: bytes, stays: bool = False) -> Scene:
    """A server that says so much, and closes, or ``stays`` without a further word."""

    def begin(ends: Ends, topology: Topology, directory: Path) -> None:
        over = threading.Event()
        ends.callback(over.set)

        def talk(client: socket.socket) -> None:
            for word in words:
                client.sendall(word)
            if stays:
                over.wait(20)

        ends.enter_context(serving(_listen(topology), talk))

    return begin


def _nobody(ends: Ends, topology: Topology, directory: Path) -> None:
    """Port 25 is closed."""


def _dropped(ends: Ends, topology: Topology, directory: Path) -> None:
    """A packet filter that drops what comes for port 25."""
    rules = "table inet dead { chain in { type filter hook input priority 0; tcp dport 25 drop; }; }"
    subprocess.run(topology.command(SERVER, ["nft", rules]), check=True)
    ends.callback(subprocess.run, topology.command(SERVER, ["nft", "delete table inet dead"]), check=True)


SCENES: dict[str, Scene] = {
    "Postfix": _postfix(),
    "Exim": _unpacked("exim"),
    "OpenSMTPD": _unpacked("opensmtpd"),
    "sendmail": _unpacked("sendmail"),
    "aiosmtpd": _aiosmtpd(),
    "Postfix without TLS": _postfix(_PLAIN),
    "Postfix that stars its own greeting": _postfix(_TLS + _STARS),
    "Postfix without TLS that stars its own greeting": _postfix(
        _PLAIN + _STARS + "smtpd_discard_ehlo_keywords = chunking, smtputf8\n"
    ),
    "a proxy that deletes lines": _proxy(refuses=True),
    "a proxy that deletes lines, and lets commands through": _proxy(refuses=False),
    **{f"aiosmtpd behind {name}": _aiosmtpd(name) for name in profile_names()},
    **{f"Postfix behind {name}": _postfix(_TLS, name) for name in ("pix63", "asa", "asa-tls")},
    **{f"{title} behind asa": _unpacked(title.lower(), "asa") for title in ("Exim", "OpenSMTPD", "sendmail")},
    "a server that is busy (421)": _says(b"421 4.3.2 Service not available\r\n"),
    "a server that takes no mail (554)": _says(b"554 5.7.1 No SMTP service here\r\n"),
    "a server of another protocol": _says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a server that closes at once": _says(),
    "a server that says nothing": _says(stays=True),
    "a server that ends in the middle of its greeting": _says(b"220-mx.example.com\r\n"),
    "a host with port 25 closed": _nobody,
    "a host that drops packets": _dropped,
}


def row(topology: Topology, directory: Path, name: str) -> tuple[str, ...]:
    """What ``probe`` answers there, as a row of the table."""
    with contextlib.ExitStack() as ends:
        SCENES[name](ends, topology, directory)
        command = [sys.executable, "-m", "nfmailguard", "probe", topology.address(SERVER), "--json"]
        done = topology.run(CLIENT, [*command, "--timeout", "5"], capture_output=True, text=True)
    if not done.stdout:
        (told,) = done.stderr.splitlines()
        begins = f"nfmailguard: {topology.address(SERVER)} port 25: "
        assert told.startswith(begins)
        return (name, "-", "-", "-", told.removeprefix(begins), str(done.returncode))
    found: dict[str, Any] = json.loads(done.stdout)
    check(found)
    profile = name.partition(" behind ")[2]
    assert not profile or profile in found["candidates"]
    answer = {True: "yes", False: "no", None: "cannot tell"}[found["found"]]
    named = found["family"] or "; ".join(found["evidence"]) or "-"
    return (name, answer, found["sure"], found["tls"] or "-", named, str(done.returncode))


def check(found: dict[str, Any]) -> None:
    """What holds of every answer."""
    assert found["exit_code"] == {True: 1, False: 0, None: 3}[found["found"]]
    assert found["evidence"] or found["sure"] == "high"
    assert bool(found["message"]) is (bool(found["found"]) and found["sure"] != "low")
    for line in found["remedy"]:
        assert not found["message"] or line in found["message"]


def table() -> dict[str, tuple[str, ...]]:
    """The page's rows, by their first cell."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
    assert rows[0] == HEAD
    return {cells[0]: cells for cells in rows[1:] if set(cells[0]) != {"-"}}


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"pt{os.getpid()}-") as made:
        yield made


@pytest.mark.parametrize("name", SCENES)
def test_the_answer_and_its_certainty_are_those_of_the_page(topology: Topology, tmp_path: Path, name: str) -> None:
    if "aiosmtpd" not in name and not name.startswith("a ") and not is_real_root():
        pytest.skip("needs the machine's root: the server changes users")
    assert row(topology, tmp_path, name) == table()[name]


def test_every_row_of_the_page_is_tried() -> None:
    assert set(table()) == set(SCENES)


def main(names: Sequence[str]) -> None:
    """Prints the table, or these rows of it."""
    sys.stdout.write(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n")
    with Topology(f"pt{os.getpid()}-") as made:
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                sys.stdout.write(f"| {' | '.join(row(made, Path(directory), name))} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(SCENES))
