"""An SMTP server that forgives everything and remembers everything, on a real kernel's TCP.

Promises: each octet the kernel delivered is on record, with what the server took it for
(command, message text, chunk, SASL line) by a reading that a real server is known to have.
Where servers differ, a ``Personality`` picks. Runs as one thread of the calling process on a
host of the lab, so that a test reads the record while the connection is open. Its greeting
is that of lab/mailserver.py. Does not know the gateway.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from nfmailguard.errors import LabError
from nfmailguard.lab.topology import SERVER, Topology

__all__ = ["CHUNK", "COMMAND", "HOST", "SASL", "TEXT", "Conversation", "Personality", "Recorder"]

HOST = "mail2.example.com"
COMMAND, TEXT, CHUNK, SASL = "command", "text", "chunk", "sasl"
TCP_FASTOPEN = 23
IPPROTO_MPTCP = 262
#: Server side on; data on a SYN is taken without a cookie, from every listener (ip-sysctl.rst).
FASTOPEN_FOR_ALL = 0x1 | 0x2 | 0x200 | 0x400
BACKLOG = 64
#: Whom of two line-end rules a server follows; a bare CR at the end of what is there counts.
LINE_ENDS = {"crlf": re.compile(rb"\r\n"), "lf": re.compile(rb"\r?\n"), "any": re.compile(rb"\r\n|\n|\r")}
STRICT_END = re.compile(rb"\r\n\.\r\n")
LOOSE_END = re.compile(rb"(?:\r\n|\n|\r)\x00?\.\x00?(?:\r\n|\n|\r)")
CHUNK_SIZE = re.compile(rb"(\d{1,18})( LAST)?", re.IGNORECASE)
LOOSE_SIZE = re.compile(rb"\s*([+]?)(\d+)")


class Personality(NamedTuple):
    """Where real servers differ.

    ``line_ends``: crlf, lf (with or without CR) or any (a bare CR as well). ``loose_end``:
    more than CRLF.CRLF ends a message (SMTP smuggling, 2023). ``prefixes``: a verb is its
    first four letters. ``buffer``: a longer line is read in pieces of this size (fgets).
    ``silent_blank``: no reply to an empty line. ``chunking``: offered, and with what reading
    of sizes: strict, loose (what begins with digits, in 32 bits) or octal (strtol, base 0). ``starttls``:
    offered and answered with 220; no TLS follows. ``refuses_auth``: 535. ``stalled``:
    seconds in which it reads nothing of a message, with a small buffer.
    """

    line_ends: str = "lf"
    loose_end: bool = False
    prefixes: bool = False
    buffer: int = 0
    silent_blank: bool = False
    chunking: str = ""
    starttls: bool = False
    refuses_auth: bool = False
    stalled: float = 0.0


@dataclass
class Conversation:
    """One connection: what came and what it was taken for, what was said, and how it ended."""

    peer: tuple[str, int]
    personality: Personality
    received: bytearray = field(default_factory=bytearray)
    #: (kind, octets) in order; together they are what has been read of ``received``.
    spans: list[tuple[str, bytes]] = field(default_factory=list)
    #: Command lines as this server read them.
    lines: list[bytes] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)
    messages: list[bytes] = field(default_factory=list)
    changed: float = 0.0
    ended: str = ""

    @property
    def unread(self) -> bytes:
        """What has come of a command line that has no end yet."""
        return bytes(self.received[sum(len(octets) for _, octets in self.spans) :])


class _Session:
    """The dialogue of one connection."""

    def __init__(self, conversation: Conversation, write: Callable[[bytes], None]) -> None:
        self.conversation = conversation
        self.personality = conversation.personality
        self._write = write
        self.kind = COMMAND
        self.closing = False
        self._buffer = self._text = b""
        self._after_cr = False
        self._chunk_left = 0
        self._last_chunk = False
        self._sender = self._extended = False
        self._recipients = 0

    def say(self, text: str) -> None:
        octets = text.encode() + b"\r\n"
        self.conversation.sent += octets
        self._write(octets)

    def feed(self, octets: bytes) -> None:
        self.conversation.received += octets
        self._buffer += octets
        while self._buffer and not self.closing and self._step():
            pass

    def _take(self, length: int, kind: str) -> bytes:
        octets, self._buffer = self._buffer[:length], self._buffer[length:]
        self.conversation.spans.append((kind, octets))
        self._after_cr = octets.endswith(b"\r")
        return octets

    def _skip_line_feed(self) -> None:
        # Who takes a CR for a line's end takes the LF behind it for the same one's.
        if self._after_cr and self.kind == COMMAND and self._buffer.startswith(b"\n"):
            kind, octets = self.conversation.spans[-1]
            self.conversation.spans[-1] = kind, octets + b"\n"
            self._buffer = self._buffer[1:]
        self._after_cr = False

    def _step(self) -> bool:
        self._skip_line_feed()
        if self.kind == TEXT:
            return self._read_text()
        if self.kind == CHUNK:
            self._read_chunk()
            return True
        found = LINE_ENDS[self.personality.line_ends].search(self._buffer)
        limit = self.personality.buffer
        end, behind = (found.start(), found.end()) if found else (len(self._buffer), len(self._buffer))
        if limit and end > limit:
            end = behind = limit
        elif not found:
            return False
        line = self._take(behind, self.kind)[:end]
        if self.kind == SASL:
            self.kind = COMMAND
            self.say("235 2.7.0 Authentication successful")
        else:
            self.conversation.lines.append(line)
            self._command(line)
        return True

    def _read_text(self) -> bool:
        # The line end before the dot may be that of the DATA line itself.
        pattern = LOOSE_END if self.personality.loose_end else STRICT_END
        found = pattern.search(b"\r\n" + self._text + self._buffer)
        if not found:
            self._text += self._take(len(self._buffer), TEXT)
            return False
        self._text += self._take(found.end() - 2 - len(self._text), TEXT)
        self.conversation.messages.append(self._text)
        self._end_mail()
        self.say("250 2.0.0 Ok: queued")
        return True

    def _read_chunk(self) -> None:
        octets = self._take(min(self._chunk_left, len(self._buffer)), CHUNK)
        self._chunk_left -= len(octets)
        if not self._chunk_left:
            self.kind = COMMAND
            if self._last_chunk:
                self._end_mail()
            self.say("250 2.0.0 Ok: chunk")

    def _end_mail(self) -> None:
        self.kind, self._text = COMMAND, b""
        self._sender, self._recipients = False, 0

    def _command(self, line: bytes) -> None:
        words = line.strip(bytes(range(33))).split(None, 1)
        verb = words[0].upper().decode("latin-1") if words else ""
        argument = words[1] if len(words) > 1 else b""
        if self.personality.prefixes:
            verb = verb[:4]
        if not verb:
            if not self.personality.silent_blank:
                self.say("500 5.5.2 Error: bad syntax")
            return
        known = getattr(self, f"on_{verb.lower()}", None) if verb.isalpha() and len(verb) < 9 else None
        if known is None:
            self.say("502 5.5.2 Error: command not recognized")
        else:
            known(argument)

    def on_helo(self, _: bytes) -> None:
        self._extended = False
        self.say(f"250 {HOST}")

    def on_ehlo(self, _: bytes) -> None:
        self._extended = True
        offers = ["PIPELINING", "SIZE 10485760", "8BITMIME", "AUTH PLAIN LOGIN"]
        offers += ["STARTTLS"] if self.personality.starttls else []
        offers += ["CHUNKING"] if self.personality.chunking else []
        self.say("\r\n".join([f"250-{HOST}", *(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"]))

    def on_mail(self, _: bytes) -> None:
        self._sender = True
        self.say("250 2.1.0 Ok")

    def on_rcpt(self, _: bytes) -> None:
        if self._sender:
            self._recipients += 1
        self.say("250 2.1.5 Ok" if self._sender else "503 5.5.1 Error: need MAIL command")

    def on_data(self, _: bytes) -> None:
        if not self._recipients:
            self.say("503 5.5.1 Error: need RCPT command")
            return
        self.kind = TEXT
        self.say("354 End data with <CR><LF>.<CR><LF>")

    def on_bdat(self, argument: bytes) -> None:
        rule = self.personality.chunking
        size: int | None = None
        if rule == "strict":
            whole = CHUNK_SIZE.fullmatch(argument)
            size = int(whole[1]) if whole else None
            self._last_chunk = bool(whole and whole[2])
        elif loose := LOOSE_SIZE.match(argument):
            size = int(loose[2], 8) if rule == "octal" and loose[2].startswith(b"0") else int(loose[2])
            size %= 1 << 32
            self._last_chunk = argument.upper().endswith(b"LAST")
        if not rule or not self._extended:
            self.say("502 5.5.1 Error: command not implemented")  # and what follows is read as commands
        elif size is None:
            self.say("501 5.5.4 Syntax: BDAT count [LAST]")
        else:
            self._chunk_left, self.kind = size, CHUNK
            if not size:
                self._read_chunk()

    def on_starttls(self, _: bytes) -> None:
        self.say("220 2.0.0 Ready to start TLS" if self.personality.starttls else "454 4.7.0 TLS not available")

    def on_auth(self, argument: bytes) -> None:
        if self.personality.refuses_auth:
            self.say("535 5.7.8 Error: authentication failed")
        else:
            self.kind = SASL
            self.say("334 VXNlcm5hbWU6")

    def on_rset(self, _: bytes) -> None:
        self._end_mail()
        self.say("250 2.0.0 Ok")

    def on_noop(self, _: bytes) -> None:
        self.say("250 2.0.0 Ok")

    def on_vrfy(self, argument: bytes) -> None:
        self.say(f"252 2.0.0 {argument.decode('latin-1')}")

    def on_expn(self, argument: bytes) -> None:
        self.say(f"250 2.1.5 <{argument.decode('latin-1')}@{HOST}>")

    def on_quit(self, _: bytes) -> None:
        self.say("221 2.0.0 Bye")
        self.closing = True


@dataclass
class _Connection:
    session: _Session
    out: bytearray
    stalled: bool = False


class Recorder:
    """The server, on ``host``'s port 25 of both families. A context manager: listens on entry."""

    def __init__(
        self, topology: Topology, host: str = SERVER, port: int = 25, *, multipath: Iterable[str] = ()
    ) -> None:
        self._topology, self._host, self._port = topology, host, port
        self._multipath_addresses = tuple(multipath)
        #: Whether the kernel has Multipath TCP, and so listens for it at the addresses given.
        self.multipath = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._stop = os.pipe()
        self._lock = threading.Lock()
        self._conversations: list[Conversation] = []
        self._personalities: dict[tuple[str, int], Personality] = {}
        self._stalled: list[tuple[float, socket.socket, _Connection]] = []
        self._thread = threading.Thread(target=self._serve, name="recorder", daemon=True)
        self.failure: BaseException | None = None

    def expect(self, address: str, port: int, personality: Personality) -> None:
        """What the server is like to connections from there; to all others as ``Personality()``."""
        with self._lock:
            self._personalities[address, port] = personality

    def conversations(self, address: str, port: int | None = None) -> list[Conversation]:
        """Connections from there so far, in order."""
        if self.failure is not None:
            raise LabError(f"lab: the recording server has ended: {self.failure!r}")
        with self._lock:
            return [one for one in self._conversations if one.peer[0] == address and port in (None, one.peer[1])]

    def __enter__(self) -> Self:
        try:
            with self._topology.enter(self._host):
                Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(FASTOPEN_FOR_ALL))
                for family in (4, 6):
                    listener = self._listen(self._topology.address(self._host, family=family), socket.IPPROTO_TCP)
                    listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, BACKLOG)
                with contextlib.suppress(OSError):  # EPROTONOSUPPORT
                    for address in self._multipath_addresses:
                        self._listen(address, IPPROTO_MPTCP)
                    self.multipath = bool(self._multipath_addresses)
        except OSError as error:
            raise LabError(f"lab: the recording server cannot listen: {error.strerror or error}") from error
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def _listen(self, address: str, protocol: int) -> socket.socket:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(kind, socket.SOCK_STREAM, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, self._port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.write(self._stop, b"x")
        self._thread.join(5)
        open_ones = [key.fileobj for key in self._selector.get_map().values()]
        for one in [*open_ones, *(accepted for _, accepted, _ in self._stalled)]:
            if isinstance(one, socket.socket):
                one.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._stop)

    def _serve(self) -> None:
        try:
            while True:
                for key, events in self._selector.select(0.02):
                    if key.fileobj == self._wake:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    if key.data is None:
                        self._accept(key.fileobj)
                    else:
                        self._serve_connection(key.fileobj, key.data, events)
                self._wake_stalled()
        except BaseException as error:  # told by ``conversations``: a silent server would look like a good gateway
            self.failure = error
            raise

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, peer = listener.accept()
        except OSError:  # gone before it was taken
            return
        accepted.setblocking(False)
        address = (peer[0], peer[1])
        with self._lock:
            personality = self._personalities.get(address, Personality())
            conversation = Conversation(address, personality, changed=time.monotonic())
            self._conversations.append(conversation)
        out = bytearray()
        connection = _Connection(_Session(conversation, out.extend), out)
        connection.session.say(f"220 {HOST} ESMTP 8.12.10")
        self._flush(accepted, connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _wake_stalled(self) -> None:
        for stalled in self._stalled.copy():
            if time.monotonic() >= stalled[0]:
                self._stalled.remove(stalled)
                self._selector.register(stalled[1], selectors.EVENT_READ, stalled[2])

    def _flush(self, accepted: socket.socket, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while connection.out:
                del connection.out[: accepted.send(connection.out)]

    def _serve_connection(self, accepted: socket.socket, connection: _Connection, events: int) -> None:
        conversation = connection.session.conversation
        ended = ""
        if events & selectors.EVENT_READ:
            try:
                octets = accepted.recv(65536)
                ended = "" if octets else "fin"
            except BlockingIOError:
                return
            except OSError:
                octets, ended = b"", "reset"
            with self._lock:
                connection.session.feed(octets)
                conversation.changed = time.monotonic()
                conversation.ended = ended
        self._flush(accepted, connection)
        stalled = conversation.personality.stalled
        if stalled and connection.session.kind == TEXT and not connection.stalled and not ended:
            connection.stalled = True
            self._selector.unregister(accepted)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self._stalled.append((time.monotonic() + stalled, accepted, connection))
        elif ended or (connection.session.closing and not connection.out):
            conversation.ended = ended or "quit"
            self._selector.unregister(accepted)
            accepted.close()
        else:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
            self._selector.modify(accepted, wanted, connection)
