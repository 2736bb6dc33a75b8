"""Who talks: a little SMTP server that answers what it has received, and a client that reacts.

Promises: the server answers 354, 334 and STARTTLS's 220 only when it does read on as
they say, and only to what its own TCP received; whatever it reads, it reads in every
way servers are known to, at once, and says so when two ways disagree. Does not know
packets, policies or the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nfmailguard.smtp.verbs import VERBS
from tests.flows import grammar

#: ``below(n)`` is a number from 0 to n - 1; 0 is the honest, ordinary choice everywhere.
Below = Callable[[int], int]

COMMANDS, TEXT, CHUNK, SASL, DEAF = range(5)
#: A keyword that no policy lets through, and nobody says but a server in its reply to EHLO.
HIDDEN = "X-HIDDEN"
KNOWN = {verb.name for verb in VERBS if verb.name[:1].isalpha()} | {"XEXCH50"}
_WORD = re.compile(rb"[\0-\x20]*([A-Za-z][A-Za-z0-9-]*)")
_REPLY = re.compile(rb"\d\d\d(?: |\r|$)")


class DisagreementError(AssertionError):
    """Two servers would read another dialogue out of the same octets."""


class Reading:
    """One way to cut octets into lines and messages."""

    def __init__(self, name: str, line: bytes, dot: bytes) -> None:
        self.name = name
        self._line = re.compile(line)
        self._dot = re.compile(rb"\." + dot)
        self._end = re.compile((rb"\r\n\." if name == "crlf" else rb"\n\." if name == "lf" else rb"[\r\n]\.") + dot)
        self.at = 0
        self.mode = COMMANDS
        self.left = 0
        self.events = 0

    def go_on(self, mode: int, left: int) -> None:
        """How what follows the event is to be read."""
        self.mode, self.left = mode, left
        self.events += 1
        self._begin = self.at

    def event(self, stream: bytearray) -> tuple[int, bytes] | None:
        """The next whole line, message or chunk, if it is there: what it was read as, and the line."""
        if self.mode in (COMMANDS, SASL):
            found = self._line.search(stream, self.at)
            if not found:
                return None
            line = bytes(stream[self.at : found.start()])
            self.at = found.end()
            return self.mode, line
        if self.mode == CHUNK:
            if len(stream) - self.at < self.left:
                return None
            self.at += self.left
            return CHUNK, b""
        if self.mode == TEXT:
            found = self._dot.match(stream, self._begin) or self._end.search(stream, max(self._begin, self.at - 4))
            self.at = found.end() if found else len(stream)
            return (TEXT, b"%d" % self.at) if found else None
        return None


def readings() -> list[Reading]:
    """RFC 5321 to the letter; LF ends a line; CR does, too (RFC 5321 2.3.8 forbids both, servers do it)."""
    return [
        Reading("crlf", rb"\r\n", rb"\r\n"),
        Reading("lf", rb"\r?\n", rb"\r?\n"),
        Reading("any", rb"\r\n|\n|\r(?=[^\n])", rb"(?:\r\n|\n|\r(?=[^\n]))"),
    ]


def understood(line: bytes) -> list[str]:
    """The verbs a server may find in a line: the word, the letters in front, the first four of them."""
    exact = line.split(b" ", 1)[0].decode("latin-1").upper()
    found = _WORD.match(line)
    loose = found[1].decode().upper() if found else ""
    return [exact, loose, loose[:4]]


class Server:
    """Answers lines as its state and its traits have it; ``log`` is what it, or its like, understood."""

    def __init__(self, below: Below, *, every_reading: bool = True) -> None:
        self.below = below
        every = readings()
        self.reading = every.pop(below(3))
        self.others = every if every_reading else []
        self.matching = below(3)
        self.skips_blank = below(4) == 3
        self.eager = below(4) == 3  # 354 without a recipient
        self.moody = below(3) == 2
        self.keywords = [grammar.KEYWORDS[below(len(grammar.KEYWORDS))] for _ in range(below(5))]
        self.keywords += [HIDDEN] * below(2)
        self.chatty = below(4) == 3  # in several lines
        self.twice = below(8) == 7  # an answer, at times
        self.log: list[tuple[list[str], bytes]] = []
        self.events: list[tuple[tuple[int, bytes], int, int]] = []
        self.recipients = 0
        self.skipped = False  # a line has gone unanswered, which the gateway cannot know

    def greet(self) -> bytes:
        greetings = [b"220 mail2 ESMTP 2020\r\n", b"220-mail2\r\n220 b0\r\n", b"220\r\n", b"554 no\r\n", b"421 x\r\n"]
        place = self.below(12)
        return greetings[place] if place < len(greetings) else greetings[0]

    def hear(self, stream: bytearray) -> bytes:
        """What it answers to what has newly come; DisagreementError when its like would read otherwise."""
        answer = bytearray()
        while event := self.reading.event(stream):
            said, mode, left = self.answer(*event)
            answer += said
            self.events.append((event, mode, left))
            self.reading.go_on(mode, left)
        for other in self.others:
            while event := other.event(stream):
                if other.events == len(self.events):
                    raise DisagreementError(f"{other.name} reads {event}, {self.reading.name} nothing yet")
                mine, mode, left = self.events[other.events]
                if event != mine:
                    raise DisagreementError(f"{other.name} reads {event}, {self.reading.name} {mine}")
                other.go_on(mode, left)
        return bytes(answer)

    def behind(self, stream: bytearray) -> str:
        """Who has not read all events though the stream ends with a line end; empty when all have."""
        if not stream.endswith(b"\n"):
            return ""
        return ", ".join(other.name for other in self.others if other.events < len(self.events))

    def answer(self, mode: int, line: bytes) -> tuple[bytes, int, int]:
        """The reply, and how what follows is read."""
        if mode == SASL:
            kind = self.below(3)
            return (b"235 ok\r\n", b"535 no\r\n", b"334 more\r\n")[kind], SASL if kind == 2 else COMMANDS, 0
        if mode in (TEXT, CHUNK):
            if mode == TEXT:
                self.recipients = 0
            return b"451 later\r\n" if self.moody and self.below(4) == 3 else b"250 2.0.0 queued\r\n", COMMANDS, 0
        if not line.strip(b"\0\t\r ") and self.skips_blank:
            self.skipped = True
            return b"", COMMANDS, 0
        verbs = understood(line)
        self.log.append((verbs, line))
        verb = verbs[self.matching] if verbs[self.matching] in KNOWN else verbs[0]
        said, mode, left = self.obey(verb, line)
        if mode == COMMANDS and said.startswith(b"250 ") and self.chatty:
            said = b"250-and more\r\n" + said
        if mode == COMMANDS and verb != "EHLO" and self.twice and self.below(3) == 2:
            self.skipped = True
            said *= 2
        return said, mode, left

    def obey(self, verb: str, line: bytes) -> tuple[bytes, int, int]:
        if self.moody and self.below(6) == 5:
            return (b"500 no\r\n", b"451 later\r\n", b"503-a\r\n503 b\r\n", b"452 full\r\n")[self.below(4)], COMMANDS, 0
        if verb == "EHLO":
            lines = ["mail2", *self.keywords]
            marked = [f"250{' ' if place == len(lines) else '-'}{word}" for place, word in enumerate(lines, 1)]
            return "".join(text + "\r\n" for text in marked).encode(), COMMANDS, 0
        if verb == "RCPT":
            self.recipients += 1
        if verb in ("RSET", "HELO", "MAIL"):
            self.recipients = 0
        if verb == "DATA":
            good = self.recipients or self.eager
            return (b"354 go ahead\r\n", TEXT, 0) if good else (b"503 5.5.1 RCPT first\r\n", COMMANDS, 0)
        if verb in ("AUTH", "X-EXPS"):
            return (b"334 \r\n", SASL, 0) if self.below(2) == 0 else (b"504 no\r\n", COMMANDS, 0)
        if verb == "STARTTLS":
            return b"220 go\r\n", DEAF, 0
        if verb == "BDAT":
            size = line[5:].split(b" ")[0]
            return (b"", CHUNK, int(size)) if size.isdigit() else (b"501 size\r\n", COMMANDS, 0)
        if verb == "QUIT":
            return b"221 bye\r\n", DEAF, 0
        if verb == "HELP":
            return b"214-help\r\n214 none\r\n", COMMANDS, 0
        return b"250 ok\r\n" if verb in KNOWN else b"500 5.5.1 Command unrecognized\r\n", COMMANDS, 0

    def murmur(self) -> bytes:
        """Something nobody asked for, never one that would change how it reads."""
        return (b"421 bye\r\n", b"250 ok\r\n", b"xyz\r\n", b"25", b"\r\n", b"500 what\r\n")[self.below(6)]


class Client:
    """Says the next thing: a mail after the rules, or anything that may do harm."""

    def __init__(self, below: Below) -> None:
        self.below = below
        self.patient = below(3) != 2
        self.wild = below(3)  # 0: honest throughout
        self.verbose = below(3) == 2
        self.at = 0
        self.asked = 1  # the connection asks for the greeting
        self.answered = 0
        self.step = 0
        self.text_wanted = False
        self.line_wanted = False  # by a 334
        self.tls = False

    def hear(self, stream: bytearray) -> None:
        while (end := stream.find(b"\n", self.at)) >= 0:
            line = bytes(stream[self.at : end])
            self.at = end + 1
            if _REPLY.match(line):
                self.answered += 1
                self.text_wanted |= line.startswith(b"354")
                self.line_wanted |= line.startswith(b"334")
                self.tls |= line.startswith(b"220 go")

    def speak(self) -> bytes:
        """Its next octets; none while it waits."""
        if self.text_wanted:
            self.text_wanted = False
            self.asked += 1
            return self.text()
        if self.patient and self.answered < self.asked:
            return b""
        if self.line_wanted:
            self.line_wanted = False
            self.asked += 1
            return b"AHVzZXIAcGFzcw==\r\n"
        if self.tls:
            return b"\x16\x03\x01\x00\x05hello"
        self.asked += 1
        if self.wild == 0 or self.below(3) < 3 - self.wild:
            return self.polite()
        return self.wildly()

    def polite(self) -> bytes:
        self.step += 1
        if self.step == 1:
            return (b"HELO client\r\n", b"EHLO client\r\n")[self.below(2)]
        place = (self.step - 2) % 3
        if place == 2 or place > 2:
            return b"DATA\r\n"
        return (b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n")[place]

    def wildly(self) -> bytes:
        kind = self.below(8)
        if kind == 0:
            return self.line()
        if kind == 1:
            self.asked += 2
            return self.line() + self.line() + self.line()
        if kind == 2:
            cut = self.below(3) * (7 + self.below(6))  # the rest of the text, if any, comes behind the reply
            return (b"DATA\r\n" + self.text())[: cut or None]
        if kind == 3:
            size = self.below(9)
            return b"BDAT %d%s\r\n" % (size, b" LAST" * self.below(2)) + b"EHLO\r\nx.\r\n"[: self.below(3) + size]
        if kind == 4:
            return (b"STARTTLS\r\n", b"AUTH PLAIN\r\nEHLO x\r\n", b"AUTH LOGIN\r\n", b"QUIT\r\n")[self.below(4)]
        if kind == 5:
            return self.line()[: 1 + self.below(6)]
        if kind == 6:
            return b"RSET\r\n\r\n\r\nNOOP\r\n"
        return self.text()

    def line(self) -> bytes:
        pick = grammar.VERBS[self.below(len(grammar.VERBS))] + grammar.ARGUMENTS[self.below(len(grammar.ARGUMENTS))]
        return (pick + grammar.ENDS[self.below(len(grammar.ENDS))]).encode("latin-1")

    def text(self) -> bytes:
        below = self.below
        body = "".join(
            grammar.TEXTS[below(len(grammar.TEXTS))] + (grammar.ENDS[below(len(grammar.ENDS))] if self.wild else "\r\n")
            for _ in range(below(6) + 12 * self.verbose)
        )
        if below(200) == 199:
            body += "long line of text\r\n" * 1500
        end = "\r\n.\r\n" if below(8) < 7 else ("", ".\r\n", "\n.\n")[below(3)]
        return (body + end).encode("latin-1")
