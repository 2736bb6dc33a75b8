"""Lines longer than a server's buffer: the server reads the rest of the line as its next command, or as an AUTH answer.

Exim gives up a command line after 16,384 bytes and one more, and reads on (src/smtp_in.c, SMTP_CMD_BUFFER_SIZE);
Postfix before 3.4 cut lines at 2,048 (line_length_limit), those of SASL too; others read with fgets into 1,000 to 8,192
bytes (RFC 5321 4.5.3.1.4: at least 512; RFC 4954 4: 12,288 after AUTH).
"""

from __future__ import annotations

from collections.abc import Callable

from nfmailguard.lab.evasions.extensions import OPEN
from nfmailguard.lab.evasions.technique import EVIL, Attack, Table
from nfmailguard.lab.lenient_server import Personality

__all__ = ["LONG_LINES"]

LONG_LINES = Table("long lines")
technique = LONG_LINES.technique

SEGMENT = 1000


def said(line: Callable[[int], bytes], size: int) -> Callable[[Attack], None]:
    """A technique: a line that exactly fills a buffer of ``size`` bytes, and a command after it."""

    def run(attack: Attack) -> None:
        connection = attack.session()
        connection.put_each(line(size) + EVIL, SEGMENT)
        attack.wait(0.05)

    return run


def noop(size: int) -> bytes:
    return b"NOOP ".ljust(size, b"A")


def masked(size: int) -> bytes:
    """A line with a masked verb: what follows belongs to no argument."""
    return b"XYZZY ".ljust(size, b"A")


def recipient(size: int) -> bytes:
    return b"RCPT TO:<b@example.com> NOTIFY=".ljust(size, b"N")


def verb(size: int) -> bytes:
    return b"A" * size


for _size in (1000, 2048, 4096, 8192, 16384, 16385):
    technique(
        f"long-noop-{_size}", f"a NOOP of {_size} octets: the rest is the next line", server=Personality(buffer=_size)
    )(said(noop, _size))
for _name, _line, _what in (
    ("masked", masked, "a denied verb and"),
    ("recipient", recipient, "RCPT and"),
    ("verb", verb, ""),
):
    technique(
        f"long-{_name}-16385",
        f"{_what} 16,385 octets: the rest is the next line".strip(),
        server=Personality(buffer=16385),
    )(said(_line, 16385))


def sasl(size: int, evil: bytes = EVIL) -> Callable[[Attack], None]:
    def run(attack: Attack) -> None:
        connection = attack.session(b"EHLO")
        connection.say(b"AUTH LOGIN\r\n")
        connection.put_each(b"A" * size + evil, SEGMENT)
        attack.wait(0.05)

    return run


for _size in (2048, 4096, 8192, 12288):
    technique(
        f"long-sasl-{_size}",
        f"a line behind AUTH of {_size} octets: the rest is a command (Postfix before 3.4: 2,048)",
        options=OPEN,
        server=Personality(buffer=_size),
    )(sasl(_size))
    technique(
        f"long-sasl-letters-{_size}",
        f"a line behind AUTH of {_size} octets, letters behind the verb's: a server may know it by its first four",
        options=OPEN,
        server=Personality(buffer=_size),
    )(sasl(_size, EVIL[:4] + b"AAAA\r\n"))


def crossed(octets: bytes, *, cut: int = 0) -> Callable[[Attack], None]:
    """A technique: EHLO and HELO, sent together; then a chunk that the server no longer accepts."""

    def run(attack: Attack) -> None:
        connection = attack.opened()
        connection.put(octets[:cut] if cut else octets)
        if cut:
            connection.put(octets[cut:])
        connection.read()
        attack.wait(0.05)
        for line in (b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<b@example.com>\r\n"):
            connection.say(line)
        connection.put(b"BDAT 11\r\n" + EVIL)
        connection.read()

    return run


CHUNKS = Personality(chunking="strict")
CROSSED = b"EHLO evade.example\r\nHELO evade.example\r\n"
for _name, _why, _octets, _cut in (
    ("bdat-crossed", "EHLO and HELO in one packet: EHLO's reply comes behind the HELO it is taken back by", CROSSED, 0),
    ("bdat-crossed-cut", "as bdat-crossed, in two packets without waiting", CROSSED, 20),
    ("bdat-crossed-thrice", "as bdat-crossed, HELO, EHLO and HELO", CROSSED[20:] + CROSSED, 0),
    ("bdat-crossed-noop", "as bdat-crossed, a NOOP between them", CROSSED[:20] + b"NOOP\r\n" + CROSSED[20:], 0),
    ("bdat-crossed-rset", "as bdat-crossed, RSET behind them", CROSSED + b"RSET\r\n", 0),
):
    technique(_name, _why, options=OPEN, server=CHUNKS)(crossed(_octets, cut=_cut))
