"""A real SMTP client that keeps what it sent and what it read, line by line.

Promises: it behaves as mail software does (EHLO, falling back to HELO; STARTTLS when
it is offered; no command before the last one's reply), and what it recorded is what
went through its socket, or through its TLS where that was begun.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import NamedTuple, Self

from nfmailguard.errors import LabError

__all__ = ["Client", "Exchange", "Reply"]


class Reply(NamedTuple):
    """A complete reply: its code and all its bytes."""

    code: int
    octets: bytes


class Exchange(NamedTuple):
    """What the client sent at once, and the reply it read; for the greeting nothing was sent."""

    sent: bytes
    read: bytes
    secured: bool


class Client:
    """One connection to an SMTP server; ``exchanges`` is its record, in order."""

    def __init__(self, address: str, port: int = 25, *, timeout: float = 20.0) -> None:
        try:
            self._socket = socket.create_connection((address, port), timeout=timeout)
        except OSError as error:
            raise LabError(f"lab: no connection to {address} port {port}: {error.strerror or error}") from error
        self._buffer = self._unanswered = b""
        self.secured = False
        self.exchanges: list[Exchange] = []
        self.greeting = self._read()
        self.exchanges.append(Exchange(b"", self.greeting.octets, False))

    @property
    def local_port(self) -> int:
        """The client's port."""
        return int(self._socket.getsockname()[1])

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            octets = self._socket.recv(65536)
            if not octets:
                raise LabError("lab: the server closed the connection in the middle of a reply")
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def _read(self) -> Reply:
        lines = [self._line()]
        while lines[-1][3:4] == b"-":
            lines.append(self._line())
        code = lines[-1][:3]
        return Reply(int(code) if code.isdigit() else 0, b"".join(lines))

    def send(self, octets: bytes) -> None:
        """Sends a part of what ``say`` will complete; the record has both as one."""
        self._socket.sendall(octets)
        self._unanswered += octets

    def say(self, octets: bytes) -> Reply:
        """Sends ``octets`` as they are and reads one reply."""
        secured = self.secured
        self.send(octets)
        reply = self._read()
        self.exchanges.append(Exchange(self._unanswered, reply.octets, secured))
        self._unanswered = b""
        return reply

    def command(self, line: str) -> Reply:
        """Sends one command line."""
        return self.say(line.encode("latin-1") + b"\r\n")

    def hello(self, name: str) -> bool:
        """Sends EHLO, and HELO if the server does not know EHLO (RFC 5321 3.2); whether EHLO was accepted."""
        if self.command(f"EHLO {name}").code == 250:
            return True
        self.command(f"HELO {name}")
        return False

    def start_tls(self) -> bool:
        """Sends STARTTLS; whether the connection is encrypted now. RFC 3207: only 220 means yes."""
        if self.command("STARTTLS").code != 220:
            return False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # The lab server's certificate is self-signed, so it is not verified.
        self._socket = context.wrap_socket(self._socket)
        self.secured = True
        return True

    def message(self, text: bytes) -> Reply:
        """Sends DATA and ``text``, dot-stuffed (RFC 5321 4.5.2); the reply to the end of data, or to DATA."""
        reply = self.command("DATA")
        if reply.code != 354:
            return reply
        lines = text.split(b"\r\n")
        stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
        return self.say(stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
