"""A permissive SMTP server: how it reads what its kernel delivers, and the record of that.

Promises: each byte is recorded with what the server took it for (command, message text, chunk, SASL line), in a way
that a real server is known to read; where servers differ, a ``Personality`` decides. Its greeting is that of
lab/mailserver.py. Does not know sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["CHUNK", "COMMAND", "HOST", "SASL", "TEXT", "Conversation", "Personality", "Session"]

HOST = "mail2.example.com"
COMMAND, TEXT, CHUNK, SASL = "command", "text", "chunk", "sasl"
#: Patterns of what a server takes for the end of a line; for "any", a bare CR that is the last byte received also
#: counts.
LINE_ENDS = {"crlf": re.compile(rb"\r\n"), "lf": re.compile(rb"\r?\n"), "any": re.compile(rb"\r\n|\n|\r")}
STRICT_END = re.compile(rb"\r\n\.\r\n")
#: Ends of data that some servers accept besides the shapes published in 2023: any line of a dot and two bytes (Apache
#: James before 3.7.5), a first line of dots (nodemailer's smtp-server before 3.21), and .CRLF after 100,000 bytes of a
#: line (hMailServer 5.7).
LOOSE_END = re.compile(
    rb"(?:\r\n|\n|\r)\x00?\.\x00?(?:\r\n|\n|\r)|[\r\n]\.[^\r\n]\n|\A\r\n\.\.+\r\n|\.\r\n(?<=[^\n]{100000}\.\r\n)"
)
SASL_COMMANDS = frozenset({b"HELO", b"EHLO", b"QUIT", b"RSET", b"VRFY", b"NOOP", b"HELP", b"STARTTLS", b"EXPN"})
SEVEN_BITS = bytes(octet & 0x7F for octet in range(256))
CHUNK_SIZE = re.compile(rb"(\d{1,18})( LAST)?", re.IGNORECASE)
LOOSE_SIZE = re.compile(rb"\s*([+]?)(\d+)")


class Personality(NamedTuple):
    """Options where real servers differ.

    ``line_ends``: crlf, lf (with or without CR) or any (a bare CR as well). ``loose_end``: more than CRLF.CRLF ends a
    message (SMTP smuggling, 2023). ``prefixes``: a verb is recognised by its first four letters. ``buffer``: a longer
    line is read in pieces of this size (fgets). ``silent_blank``: no reply to an empty line. ``chunking``: BDAT is
    offered, and how sizes are read: strict, loose (what begins with digits, in 32 bits) or octal (strtol, base 0).
    ``starttls``: offered and answered with 220; no TLS follows. ``refuses_auth``: 535. ``stalled``: seconds in which it
    reads nothing of a message, with a small buffer. ``gives_up``: between a message's chunks it refuses everything but
    BDAT, and from then on accepts nothing but RSET (Exim 4.96). ``offer``: its complete reply to EHLO. ``seven_bits``:
    MAIL's BODY=7BIT clears the text's eighth bits (sendmail). ``sasl_commands``: after 334 it looks for its own verbs
    first (Haraka 3.1).
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
    gives_up: bool = False
    offer: str = ""
    seven_bits: bool = False
    sasl_commands: bool = False


@dataclass
class Conversation:
    """One connection: what arrived and what it was taken for, what was answered, and how it ended."""

    peer: tuple[str, int]
    personality: Personality
    received: bytearray = field(default_factory=bytearray)
    #: True: ``received`` is every byte that arrived; False: only what a real server has logged.
    octets: bool = True
    #: The bytes read so far, as pairs (kind, bytes) in order; together they are the part of ``received`` that has been
    #: read.
    spans: list[tuple[str, bytes]] = field(default_factory=list)
    #: Command lines as this server read them.
    lines: list[bytes] = field(default_factory=list)
    #: The server's answer to each command line.
    answers: list[bytes] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)
    messages: list[bytes] = field(default_factory=list)
    changed: float = 0.0
    ended: str = ""

    @property
    def unread(self) -> bytes:
        """The received part of a command line that is not complete yet."""
        return bytes(self.received[sum(len(octets) for _, octets in self.spans) :])


class Session:
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
        self._last_chunk = self._chunks = self._given_up = False
        self._sender = self._extended = self._seven = False
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
        # A server that takes a bare CR for a line end ignores a LF after it as part of the same line end.
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
        if self.kind == SASL and not (
            self.personality.sasl_commands and line.split(b" ", 1)[0].upper() in SASL_COMMANDS
        ):
            self.kind = COMMAND
            self.say("235 2.7.0 Authentication successful")
        else:
            self.conversation.lines.append(line)
            before = len(self.conversation.sent)
            self._command(line)
            self.conversation.answers.append(bytes(self.conversation.sent[before:]))
        return True

    def _read_text(self) -> bool:
        # The line end before the dot may be the one that ended the DATA command line.
        pattern = LOOSE_END if self.personality.loose_end else STRICT_END
        text = b"\r\n" + self._text + self._buffer
        found = pattern.search(text.translate(SEVEN_BITS) if self._seven else text)
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
            self._chunks = True
            if self._last_chunk:
                self._end_mail()
            self.say("250 2.0.0 Ok: chunk")

    def _end_mail(self) -> None:
        self.kind, self._text = COMMAND, b""
        self._sender, self._recipients = False, 0
        self._chunks = self._given_up = False

    def _gives_up(self, verb: str, argument: bytes) -> bool:
        """Whether a command between chunks is refused, and everything after it."""
        if not self.personality.gives_up or not self._chunks or verb in ("RSET", "QUIT"):
            return False
        fits = argument.split()[:1] != [b"0"] if verb == "BDAT" else verb == "NOOP" and not self._buffer
        self._given_up |= not fits
        if self._given_up:
            self.say("503 only RSET accepted now")
        return self._given_up

    def _command(self, line: bytes) -> None:
        words = line.strip(bytes(range(33))).split(None, 1)
        verb = words[0].upper().decode("latin-1") if words else ""
        argument = words[1] if len(words) > 1 else b""
        if self.personality.prefixes:
            verb = verb[:4]
        if self._gives_up(verb, argument):
            return
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
        if self.personality.offer:
            self.say(self.personality.offer)
            return
        offers = ["PIPELINING", "SIZE 10485760", "8BITMIME", "AUTH PLAIN LOGIN"]
        offers += ["STARTTLS"] if self.personality.starttls else []
        offers += ["CHUNKING"] if self.personality.chunking else []
        self.say("\r\n".join([f"250-{HOST}", *(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"]))

    def on_mail(self, argument: bytes) -> None:
        self._seven = self.personality.seven_bits and b"BODY=7BIT" in argument.upper()
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
            # BDAT is refused, and the bytes that follow it are read as commands.
            self.say("502 5.5.1 Error: command not implemented")
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
