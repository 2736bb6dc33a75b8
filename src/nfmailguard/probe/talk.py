"""A careful client: sends a few commands that no server objects to, and returns the replies.

Promises: three connections to the one host, a pause for every reply, no mail, no address tried. Does not know what an
answer means.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from nfmailguard.errors import NfmailguardError

__all__ = ["NONSENSE", "Answer", "ProbeError", "Session", "Talk", "addresses_of", "converse", "data_first"]

#: A command that no server knows, from Cisco's own test of the feature; no filter treats it specially.
NONSENSE = "goodmorning"
NAME = "probe.invalid"
_MOST_OCTETS = 65_536


class ProbeError(NfmailguardError):
    """The host cannot be reached, or does not speak SMTP."""

    exit_code = 3


@dataclass(frozen=True)
class Answer:
    """A whole reply: its lines without CRLF; code 0 where it had none."""

    lines: tuple[str, ...]

    @property
    def code(self) -> int:
        head = self.lines[-1][:3] if self.lines else ""
        return int(head) if head.isdigit() and head.isascii() else 0

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(line[4:] for line in self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order this machine would try them; ProbeError where there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ProbeError(f"{host} port {port}: {getattr(error, 'strerror', None) or error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Session:
    """One connection; ``said`` is the whole dialogue, as evidence. ``wrapped``: TLS from the first byte (port 465)."""

    def __init__(self, host: str, port: int, timeout: float, *, wrapped: bool = False) -> None:
        self.said: list[tuple[str, Answer]] = []
        try:
            self._socket = socket.create_connection((host, port), timeout=timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if wrapped:
                # The certificate is not verified: no secret is sent, and the replies are only compared.
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                self._socket = context.wrap_socket(self._socket)
        except OSError as error:
            raise ProbeError(f"{host} port {port}: {error.strerror or error}") from error
        self.source = str(self._socket.getsockname()[0])
        self._where = f"{host} port {port}"
        self._timeout = timeout
        self._buffer = b""
        self._closed = False
        self.greeting = self._read()
        self.said.append(("", self.greeting))

    def ask(self, command: str, *, cut: int = 0) -> Answer:
        """Sends one command line; with ``cut`` its first bytes are sent in a separate segment.

        The answer is empty if the server has ended the connection: some do after a few unknown commands.
        """
        if self._closed:
            return Answer(())
        octets = command.encode("ascii") + b"\r\n"
        self._socket.settimeout(self._timeout)
        try:
            if cut:
                self._socket.sendall(octets[:cut])
                self._pause()
            self._socket.sendall(octets[cut:])
            answer = self._read()
        except (OSError, ProbeError):
            self._closed = True
            answer = Answer(())
        self.said.append((command, answer))
        return answer

    @staticmethod
    def _pause() -> None:
        time.sleep(0.1)  # A pause, so that the two parts of the command leave in separate TCP segments.

    def _read(self) -> Answer:
        lines: list[str] = []
        size = 0
        until = time.monotonic() + self._timeout
        while True:
            while b"\n" not in self._buffer:
                try:
                    # The time limit is for the whole reply, so that a server that sends a byte now and then cannot
                    # delay the probe.
                    self._socket.settimeout(max(0.001, until - time.monotonic()))
                    octets = self._socket.recv(4096)
                except OSError as error:
                    raise ProbeError(f"{self._where}: no whole reply: {error.strerror or error}") from error
                size += len(octets)
                if not octets or size > _MOST_OCTETS:
                    raise ProbeError(f"{self._where}: closed in the middle of a reply")
                self._buffer += octets
            line, _, self._buffer = self._buffer.partition(b"\n")
            lines.append(line.decode("latin-1").removesuffix("\r"))
            # "SSH-2.0" has a dash in the fourth place too, but is not an SMTP line that continues.
            if lines[-1][3:4] != "-" or not lines[-1][:3].isdigit():
                return Answer(tuple(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()


@dataclass
class Talk:
    """The answers of all connections, by command. ``source``: the address they came from."""

    greeting: Answer
    answers: dict[str, Answer] = field(default_factory=dict)
    said: list[tuple[str, Answer]] = field(default_factory=list)
    source: str = ""


def converse(host: str, port: int, timeout: float) -> Talk:
    """The first two connections: greeting, EHLO or else HELO, and verbs that only some firewalls let through."""
    with Session(host, port, timeout) as session:
        talk = Talk(session.greeting, source=session.source)
        talk.said = session.said
        if session.greeting.code != 220:
            return talk
        talk.answers["EHLO"] = session.ask(f"EHLO {NAME}")
        if talk.answers["EHLO"].code != 250 or len(talk.answers["EHLO"].lines) == 1:
            talk.answers["HELO"] = session.ask(f"HELO {NAME}")
        talk.answers["NOOP"] = session.ask("NOOP")
        talk.answers["cut NOOP"] = session.ask("NOOP", cut=2)
        talk.answers[NONSENSE] = session.ask(NONSENSE)
        session.ask("QUIT")
    # A connection of their own for these commands, because some servers disconnect after three unknown commands.
    with Session(host, port, timeout) as session:
        talk.said = [*talk.said, *session.said]
        if session.greeting.code != 220:
            return talk
        session.ask(f"{'HELO' if 'HELO' in talk.answers else 'EHLO'} {NAME}")
        for command in ("HELP", "VRFY", "STARTTLS"):
            if command != "STARTTLS" or "HELO" not in talk.answers:
                talk.answers[command] = session.ask(command)
        # After a reply of 220 to STARTTLS the server expects TLS, so QUIT cannot be sent.
        if talk.answers.get("STARTTLS", Answer(())).code != 220:
            session.ask("QUIT")
        talk.said += session.said[1:]
    return talk


def data_first(host: str, port: int, timeout: float) -> tuple[Answer, Answer, list[tuple[str, Answer]]]:
    """The third connection: DATA without a mail, which a server refuses, then a command (Nessus 10520)."""
    with Session(host, port, timeout) as session:
        session.ask(f"HELO {NAME}")
        refused = session.ask("DATA")
        after = session.ask(NONSENSE) if refused.code != 354 else Answer(())
        return refused, after, session.said
