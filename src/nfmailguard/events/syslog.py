"""Sends log lines to a syslog daemon, journald or a server on the network.

Promises: sending never waits and never raises; what could not be sent is counted, and the first failure is kept for the
operator. What a server has not taken over TCP waits, in whole lines and up to a limit in bytes: the newest lines are
lost, and a line is either counted as lost or sent. RFC 3164, RFC 5424 with RFC 5426 (UDP) and RFC 6587 (TCP) framing.
Does not know what a message says.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from nfmailguard.errors import ConfigError
from nfmailguard.events.cisco import Message
from nfmailguard.events.journal import IDENTIFIER, MESSAGE_IDS, Journal, emit_entry
from nfmailguard.events.sinks import Sink, open_sink
from nfmailguard.events.targets import FACILITIES, JOURNAL, Format

__all__ = ["Syslog", "open_syslog"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RETRY_SECONDS = 5.0
_PATIENCE = 1.0
_MOST_OCTETS = 2048  # Largest datagram in bytes (RFC 5424 6.1).
_MOST_WAITING = 64 * _MOST_OCTETS  # Most bytes of log lines that wait while a TCP syslog server does not take them.
_SECOND = 1_000_000_000


class Syslog:
    """Sends messages to one target. ``host`` is the host name in them; ``facility`` a name of FACILITIES."""

    def __init__(self, target: str, *, facility: str = "local4", host: str = "", form: Format = Format.RFC3164) -> None:
        self.target = target
        self.lost = 0
        #: One-line description of the first failure; None: none yet.
        self.failure: str | None = None
        #: Why the last messages could not be sent; None: they were sent.
        self.trouble: str | None = None
        self._facility = FACILITIES[facility]
        self._host = host or socket.gethostname().partition(".")[0] or "localhost"
        self._form = form
        self._socket: socket.socket | None = None
        self._file: Sink | None = None
        self._journal = Journal()
        # Thread that looks up the server's name or connects to it; None: none was started.
        self._asking: threading.Thread | None = None
        self._again = 0.0  # Earliest time of the next connection attempt.
        #: For a TCP connection: bytes not sent yet, and how many of them belong to each waiting line.
        self._pending = bytearray()
        self._lines: deque[int] = deque()
        url = urlsplit(target)
        self._kind = url.scheme if "://" in target else "journal" if target == JOURNAL else "file"
        if self._kind in ("udp", "tcp"):
            self._end = (url.hostname or "", url.port or 514)
        elif self._kind == "unix":
            self._path = url.netloc + url.path
        elif self._kind == "file":
            self._file = open_sink(target)

    def send(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Sends all messages at once, or counts them as lost."""
        if self._file is not None:
            before = self._file.lost
            self._file.write([self._line(now, message) + b"\n" for now, message in messages])
            self.lost += self._file.lost - before
            self.trouble = self._file.trouble and self._file.trouble.replace("events are", "log lines are")
            return
        left = len(messages)
        self._notice_its_end()
        try:
            for now, message in messages:
                self._transmit(self._framed(now, message))
                left -= 1
            self._push()
        except OSError as error:
            self.lost += left
            self._failed(error)
        else:
            if messages:
                self.trouble = None

    def flush(self) -> None:
        """Sends what waits for a server that has begun to read again, even if there is no new message."""
        self._notice_its_end()
        try:
            self._push()
        except OSError as error:
            self._failed(error)

    def _notice_its_end(self) -> None:
        """Notices that a TCP server has closed the connection (it was restarted); the next lines would be lost without
        an error.
        """
        if self._kind != "tcp" or self._socket is None:
            return
        try:
            # A syslog server sends nothing: an empty read means that it has closed the connection.
            ended = not self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            # The retry delay counts from the connection's beginning, not from its end; most connections have lasted
            # longer, so they are renewed at once.
            again = self._again
            self._forget()
            self._again = again

    def _failed(self, error: OSError) -> None:
        self.trouble = f"{self.target}: {error.strerror or error}; log lines are lost"
        self.failure = self.failure or f"syslog.target: {self.target}: {error.strerror or error}"
        if not isinstance(error, BlockingIOError):
            self._forget()

    def look(self) -> None:
        """Checks at the start whether the target can be reached, not only with the first message."""
        if self._file is None and self._socket is None:
            try:
                if self._kind == "journal":
                    self._journal.look()
                else:
                    self._connect()
            except OSError as error:
                self.trouble = f"{self.target}: {error.strerror or error}; log lines would be lost"

    def reopen(self) -> None:
        """Opens the file anew after a log rotation has moved it."""
        if self._file is not None:
            self._file.reopen()

    def close(self) -> None:
        """Closes the target; what a server has not taken is lost. May be called repeatedly."""
        if self._file is not None:
            self._file.close()
        with suppress(OSError):
            self._push()
        self._forget()

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._again = time.monotonic() + _RETRY_SECONDS
        self._journal.close()
        if self._lines:
            self.lost += len(self._lines)
            self.failure = self.failure or f"syslog.target: {self.target}: it did not read them"
        self._pending.clear()
        self._lines.clear()

    def _transmit(self, octets: bytes) -> None:
        """Sends a datagram, or adds a line to the bytes waiting for a TCP connection, which ``_push`` sends."""
        if self._kind == "journal":
            self._journal.send(octets)
            return
        link = self._socket or self._connect()
        if self._kind != "tcp":
            link.send(octets[:_MOST_OCTETS])
            return
        if len(self._pending) + len(octets) > _MOST_WAITING:
            self._push()
        if len(self._pending) + len(octets) > _MOST_WAITING:
            raise BlockingIOError(errno.EAGAIN, "the server does not keep up")
        self._pending += octets
        self._lines.append(len(octets))

    def _push(self) -> None:
        """Sends as many waiting bytes as the TCP connection takes at once."""
        while self._socket is not None and self._pending:
            try:
                with memoryview(self._pending) as view:
                    sent = self._socket.send(view)
            except BlockingIOError:
                return
            del self._pending[:sent]
            while self._lines and sent >= self._lines[0]:
                sent -= self._lines.popleft()
            if self._lines:
                self._lines[0] -= sent

    def _connect(self) -> socket.socket:
        if time.monotonic() < self._again:
            raise ConnectionRefusedError(111, "Connection refused")
        self._again = time.monotonic() + _RETRY_SECONDS
        if self._kind not in ("udp", "tcp"):
            link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._reach(link, self._path)
        else:
            link = self._connected()
        self._socket = link
        return link

    def _connected(self) -> socket.socket:
        """A connected socket. A name lookup may take minutes, so it runs in a thread, and only a moment is waited for
        it.
        """
        found: queue.SimpleQueue[socket.socket | OSError] = queue.SimpleQueue()

        def connect() -> None:
            try:
                stream = socket.SOCK_STREAM if self._kind == "tcp" else socket.SOCK_DGRAM
                family, kind, protocol, _, address = socket.getaddrinfo(*self._end, type=stream)[0]
                link = socket.socket(family, kind, protocol)
                self._reach(link, address)
                found.put(link)
            except OSError as error:
                found.put(error)

        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=connect, daemon=True)
            self._asking.start()
            with suppress(queue.Empty):
                answer = found.get(timeout=_PATIENCE)
                if isinstance(answer, OSError):
                    raise answer
                return answer
        raise TimeoutError(110, "no answer yet")

    @staticmethod
    def _reach(link: socket.socket, address: str | tuple[object, ...]) -> None:
        try:
            link.settimeout(_PATIENCE)
            link.connect(address)
            link.setblocking(False)
        except OSError:
            link.close()
            raise

    def _framed(self, now: int, message: Message) -> bytes:
        if self._kind == "journal":
            number = str(message.number)
            return emit_entry(
                [
                    ("MESSAGE", str(message)),
                    ("MESSAGE_ID", MESSAGE_IDS[number]),
                    ("PRIORITY", str(message.severity)),
                    ("SYSLOG_FACILITY", str(self._facility)),
                    ("SYSLOG_IDENTIFIER", IDENTIFIER),
                    ("MESSAGE_NUMBER", number),
                ]
            )
        priority = self._facility * 8 + message.severity
        if self._form is Format.RFC5424:
            stamp = datetime.fromtimestamp(now // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            stamp += f".{now % _SECOND // 1000:06d}Z"
            line = f"<{priority}>1 {stamp} {self._host} nfmailguard - {message.number} - {message}".encode()
            return b"%d " % len(line) + line if self._kind == "tcp" else line
        line = b"<%d>" % priority + self._line(now, message)
        return line + b"\n" if self._kind == "tcp" else line

    def _line(self, now: int, message: Message) -> bytes:
        # RFC 3164 4.1.2: local time, the month in English whatever the locale, the day padded with a space.
        local = time.localtime(now // _SECOND)
        stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
        return f"{stamp} {self._host} {message}".encode()


def open_syslog(target: str, *, facility: str, host: str, form: Format) -> Syslog:
    """Opens a target. ConfigError when a file cannot be opened; a server that does not answer yet
    is tried again later.
    """
    try:
        return Syslog(target, facility=facility, host=host, form=form)
    except ConfigError as error:
        raise ConfigError(str(error).replace("log.eve", "syslog.target", 1)) from error
