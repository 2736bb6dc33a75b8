"""Real mail servers in the recorder's place: what each read as commands and what it answered, by its own log.

Promises: only the server's most detailed log is used (Postfix: smtpd -v; Exim: -d+receive; OpenSMTPD: -T smtp;
sendmail: -X), never the gateway's. Bytes that the server did not take for a command line are not recorded here. Does
not judge.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from nfmailguard.errors import LabError
from nfmailguard.lab.lenient_server import CHUNK, Conversation, Personality
from nfmailguard.lab.postfix import Postfix
from nfmailguard.lab.topology import SERVER, Topology
from nfmailguard.lab.unpacked import KINDS, Unpacked

__all__ = ["SERVERS", "Reader", "Server", "Spoken", "read_exim", "read_opensmtpd", "read_postfix", "read_sendmail"]

#: Servers that can be used: "recorder" is lab/recorder.py, the others are real mail servers.
SERVERS = ("recorder", "postfix", *KINDS)
PROMPT = 5.0


class Server(Protocol):
    """What lab/testbed.py needs of a server."""

    @property
    def multipath(self) -> bool: ...

    def expect(self, address: str, port: int, personality: Personality) -> None: ...

    def conversations(self, address: str, port: int | None = None) -> list[Conversation]: ...

    def compare(self, address: str, port: int, sent: bytes, seen: Sequence[bytes], mail: bytes) -> str: ...


class Spoken(NamedTuple):
    """One relevant line of a log. ``session``: what identifies a connection in the log.

    ``what``: ``begin`` (the text is its address and port), ``read`` or ``said``.
    """

    session: str
    what: str
    text: bytes


BEGIN, READ, SAID = "begin", "read", "said"
_POSTFIX = re.compile(rb"smtpd\[(\d+)\]: (?:(connect from|<|>) [^\[]*\[([0-9a-f.:]+)\](?::(\d+))?(?:: ?(.*))?)$")


def read_postfix(lines: Iterator[bytes], state: dict[str, str]) -> Iterator[Spoken]:
    """``smtpd -v`` with client ports: one line each, which names the client."""
    for line in lines:
        found = _POSTFIX.search(line)
        if not found:
            continue
        session = f"{found[1].decode()} {found[3].decode()} {(found[4] or b'0').decode()}"
        if found[2] == b"connect from":
            yield Spoken(session, BEGIN, found[3] + b" " + (found[4] or b"0"))
        else:
            yield Spoken(session, READ if found[2] == b"<" else SAID, found[5] or b"")


_EXIM = re.compile(
    rb"^ *(\d+) (?:Process \d+ is handling incoming connection from \[([^\]]+)\](?::(\d+))?"
    rb"|SMTP(<<|>>) (.*)|(       \d.*))$"
)


def read_exim(lines: Iterator[bytes], state: dict[str, str]) -> Iterator[Spoken]:
    """``-d-all+receive+pid``: one process per connection; a reply's further lines are indented."""
    for line in lines:
        found = _EXIM.match(line)
        if not found:
            continue
        session = found[1].decode()
        if found[2]:
            yield Spoken(session, BEGIN, found[2] + b" " + (found[3] or b"0"))
        elif found[6]:
            yield Spoken(session, SAID, found[6].strip())
        else:
            yield Spoken(session, READ if found[4] == b"<<" else SAID, found[5])


_OPENSMTPD = re.compile(rb"^smtp: (0x[0-9a-f]+): (?:(<<<|>>>) (.*)|STATE_NEW -> STATE_CONNECTED)$")
_CONNECTED = re.compile(rb"smtp connected address=\[?([0-9a-f.:]+)\]?")


def read_opensmtpd(lines: Iterator[bytes], state: dict[str, str]) -> Iterator[Spoken]:
    """``-T smtp``: sessions are pointers, and the line after a session's beginning has its address."""
    for line in lines:
        if connected := _CONNECTED.search(line):
            yield Spoken(state.pop("begun", ""), BEGIN, connected[1] + b" 0")
        elif found := _OPENSMTPD.match(line):
            if found[2]:
                yield Spoken(found[1].decode(), READ if found[2] == b"<<<" else SAID, found[3])
            else:
                state["begun"] = found[1].decode()


_SENDMAIL = re.compile(rb"^(\d+) (<<<|>>>) ?(.*)$")
_GREETED = re.compile(rb"\{((?:IPv6:)?[0-9a-fA-F.:]+) (\d+)\}$")


def read_sendmail(lines: Iterator[bytes], state: dict[str, str]) -> Iterator[Spoken]:
    """``-X``: one process per connection; the greeting, which the lab configures, names the client.

    What sendmail reads between its 354 and its next reply is a message.
    """
    for line in lines:
        found = _SENDMAIL.match(line)
        if not found:
            continue
        session = found[1].decode()
        # sendmail logs a line that it cut at a NUL without a line end, so the next entry follows on the same line.
        if found[2] == b"<<<" and (both := _SENDMAIL.match(found[3])):
            yield Spoken(session, READ, b"")
            found = both
        if found[2] == b">>>" and (greeted := _GREETED.search(found[3])):
            address = str(ipaddress.ip_address(greeted[1].decode().removeprefix("IPv6:")))
            yield Spoken(session, BEGIN, address.encode() + b" " + greeted[2])
        if found[2] == b">>>":
            state[session] = "text" if found[3].startswith(b"354") else ""
            yield Spoken(session, SAID, found[3])
        elif state.get(session) != "text" and found[3] != b"[EOF]":
            yield Spoken(session, READ, found[3].removesuffix(b"\r"))


_READINGS: dict[str, Callable[[Iterator[bytes], dict[str, str]], Iterator[Spoken]]] = {
    "postfix": read_postfix,
    "exim": read_exim,
    "opensmtpd": read_opensmtpd,
    "sendmail": read_sendmail,
}
_POSTFIX_SETTINGS = """\
smtpd_client_port_logging = yes
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
smtpd_junk_command_limit = 100000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {directory}/certificate.pem
smtpd_tls_key_file = {directory}/key.pem
"""


class Reader:
    """A real server of ``kind``. A context manager: listens on entry."""

    multipath = False

    def __init__(self, topology: Topology, directory: Path, kind: str) -> None:
        self._topology, self._directory, self._kind = topology, directory, kind
        self._stack = ExitStack()
        self._at = 0
        self._rest = b""
        self._state: dict[str, str] = {}
        self._sessions: dict[str, Conversation] = {}
        self._conversations: list[Conversation] = []
        self._read = _READINGS[kind]
        self._mails: Callable[[], list[bytes]]

    def __enter__(self) -> Self:
        server: Postfix | Unpacked
        if self._kind == "postfix":
            addresses = tuple(self._topology.address(SERVER, family=family) for family in (4, 6))
            server = Postfix(
                self._topology, SERVER, self._directory, addresses=addresses, settings=_POSTFIX_SETTINGS, verbose=True
            )
            self._log = self._directory / "log/mail.log"
        else:
            server = Unpacked(self._topology, self._directory, self._kind)
            self._log = server.said
        self._stack.enter_context(server)
        self._mails = server.mails
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def expect(self, address: str, port: int, personality: Personality) -> None:
        """Does nothing: a real server's behaviour cannot be chosen."""

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._log.open("rb") as log:
                log.seek(self._at)
                octets = log.read()
        except OSError as error:
            raise LabError(f"lab: {self._kind} has no log: {error.strerror}") from error
        self._at += len(octets)
        *lines, self._rest = (self._rest + octets).split(b"\n")
        yield from lines

    def conversations(self, address: str, port: int | None = None) -> list[Conversation]:
        """Connections from that address so far, in order; port 0: the log does not show the port."""
        for spoken in self._read(self._lines(), self._state):
            self._take(spoken)
        return [one for one in self._conversations if one.peer[0] == address and port in (None, 0, one.peer[1])]

    def _take(self, spoken: Spoken) -> None:
        if spoken.what == BEGIN:
            address, _, port = spoken.text.decode().partition(" ")
            begun = Conversation((address, int(port)), Personality(), octets=False, changed=time.monotonic())
            self._sessions[spoken.session] = begun
            self._conversations.append(begun)
            return
        one = self._sessions.get(spoken.session)
        if one is None:
            return
        one.changed = time.monotonic()
        if spoken.what == READ:
            one.lines.append(spoken.text)
            one.answers.append(b"")
            # Counted as a chunk, so that the judge tries no other reading of these bytes: the server's own reading is
            # known.
            one.spans.append((CHUNK, spoken.text + b"\r\n"))
            one.received += spoken.text + b"\r\n"
        else:
            one.sent += spoken.text + b"\r\n"
            if one.answers:
                one.answers[-1] += spoken.text + b"\r\n"

    def compare(self, address: str, port: int, sent: bytes, seen: Sequence[bytes], mail: bytes) -> str:
        """``ok`` if the mail arrived as it was sent and its client was told so; otherwise what went wrong."""
        if [reply[:3] for reply in seen[-2:]] != [b"250", b"221"]:
            return "the mail was refused"
        body = mail.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").rstrip(b"\n")
        deadline = time.monotonic() + PROMPT
        while not any(body in kept for kept in self._mails()):
            if time.monotonic() > deadline:
                return "the mail did not arrive"
            time.sleep(0.05)
        return "ok"
