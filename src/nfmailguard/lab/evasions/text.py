"""Message text: ends of data that only some servers recognise (SMTP smuggling).

Sources: Longin, "SMTP Smuggling", SEC Consult, 2023 (also for NUL); Postfix, smtp-smuggling; the lists of the test
programs smtpsmug and smtp_smuggling_checker. The server here takes every shape for an end, so a command after one is
read as a command.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from nfmailguard.lab.evasions.technique import EVIL, Attack, Table
from nfmailguard.lab.lenient_server import Personality

__all__ = ["SHAPES", "TEXT"]

TEXT = Table("text")
technique = TEXT.technique
LOOSE = Personality(loose_end=True, line_ends="any")

#: Shapes of an end of data: name -> (bytes, servers that take them for an end of data).
SHAPES: dict[str, tuple[bytes, str]] = {
    "lf-dot-lf": (b"\n.\n", "Postfix, Sendmail until 2023"),
    "lf-dot-crlf": (b"\n.\r\n", "Postfix, Exim, Sendmail until 2023"),
    "crlf-dot-lf": (b"\r\n.\n", "Postfix until 2023"),
    "crlf-dot-cr": (b"\r\n.\r", "SEC Consult 2023"),
    "cr-dot-cr": (b"\r.\r", "Cisco Secure Email, which made CRLF of it"),
    "cr-dot-crlf": (b"\r.\r\n", "Cisco Secure Email, which made CRLF of it"),
    "crcrlf-dot-crcrlf": (b"\r\r\n.\r\r\n", "servers that drop a CR before CRLF"),
    "nul-before-dot": (b"\r\n\0.\r\n", "SEC Consult 2023: servers that drop NUL"),
    "crlf-dot-octet-lf": (b"\r\n.x\n", "Apache James before 3.7.5: any line of a dot and two octets"),
    "lf-dot-dot-lf": (b"\n..\n", "Apache James before 3.7.5"),
    "nul-behind-dot": (b"\r\n.\0\r\n", "smtp_smuggling_checker: servers that drop NUL"),
}


def smuggled(shape: bytes, size: int) -> Callable[[Attack], None]:
    def run(attack: Attack) -> None:
        connection = attack.text()
        octets = b"Subject: one\r\n\r\nhello" + shape
        if size:
            connection.put_each(octets + EVIL, size)
        else:
            connection.put(octets)
            attack.wait(0.02)
            connection.put(EVIL)
        attack.wait(0.02)
        connection.put(b"more text\r\n.\r\n")

    return run


for _name, (_shape, _whose) in SHAPES.items():
    technique(f"smuggling-{_name}", f"{_shape!r} as an end of data: {_whose}", server=LOOSE)(smuggled(_shape, 0))
    technique(f"smuggling-{_name}-octets", f"as smuggling-{_name}, one octet a segment", server=LOOSE)(
        smuggled(_shape, 1)
    )


@technique("smuggling-ahead", "LF.LF and a command go ahead of the segment before them", server=LOOSE)
def smuggling_ahead(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"\n.\n" + EVIL, start + 5)
    attack.wait(0.02)
    connection.put(b"hello", start)


@technique("smuggling-at-start", "a dot and LF as the first octets of the text", server=LOOSE)
def smuggling_at_start(attack: Attack) -> None:
    connection = attack.text()
    connection.put(b".\n")
    connection.put(EVIL)


@technique("smuggling-first-dots", "two dots as a text's first line: nodemailer's smtp-server", server=LOOSE)
def smuggling_first_dots(attack: Attack) -> None:
    for dots in (b"..", b"....."):
        connection = attack.text()
        for part in (dots[:1], dots[1:], b"\r\n", EVIL):
            connection.put(part)
            attack.wait(0.02)
        connection.put(b"more text\r\n.\r\n")


@technique("smuggling-long-line", "a dot and CRLF behind 100,000 octets of a line: hMailServer", server=LOOSE)
def smuggling_long_line(attack: Attack) -> None:
    connection = attack.text()
    for _ in range(100):
        connection.put(b"a" * 1010)
        attack.wait(0.01)
    for part in (b".\r\n", EVIL, b"more text\r\n.\r\n"):
        attack.wait(0.05)
        connection.put(part)


@technique("data-lone-lf", "DATA ended by LF, then a dot and its line: was there a text at all?", server=LOOSE)
def data_lone_lf(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA\n.\r\n" + EVIL)
    connection.read()
    connection.put(EVIL)


@technique(
    "smuggling-seven-bits",
    "ends of data and a pipe with eighth bits, to a server that clears them (sendmail's SevenBitInput)",
    options=("--set", "data.seven_bits=true"),
    server=LOOSE,
)
def smuggling_seven_bits(attack: Attack) -> None:
    attack.forbidden += [b"[\x80-\xff]"]
    for end in (b"\r\n\xae\r\n", b"\x8d\x8a\xae\x8d\x8a", b"\r\n.\x8d\x8a"):
        connection = attack.text()
        connection.put(b"Subject: one\r\n\r\nhello" + end + EVIL)
        connection.put(b"more text\r\n.\r\n")


@technique(
    "seven-bits-commands",
    "BODY=7BIT with an eighth bit in it, and a pipe in an address, where an earlier MAIL has said 7BIT",
    server=Personality(seven_bits=True),
)
def seven_bits_commands(attack: Attack) -> None:
    attack.forbidden += [b"RCPT TO:<\xfc"]
    connection = attack.session()
    connection.say(b"MAIL FROM:<evil@example.net> BODY=7BIT\r\n")
    connection.say(b"RCPT TO:<\xfcprogram>\r\n")
    connection.say(b"RSET\r\n")
    connection.say(b"MAIL FROM:<evil@example.net> BODY=\xb7BIT\r\n")
    for line in (b"RCPT TO:<bob@example.com>\r\n", b"DATA\r\n"):
        connection.say(line)
    connection.put(b"Subject: one\r\n\r\nhello\r\n\xae\r\n" + EVIL)
    connection.put(b"more text\r\n.\r\n")
    connection.read()


@technique(
    "smuggling-body-7bit",
    "MAIL's BODY=7BIT, by which sendmail clears the eighth bits of the message: 0x8D 0x8A 0xAE ends it",
    server=Personality(seven_bits=True),
)
def smuggling_body_7bit(attack: Attack) -> None:
    for waits, end in product((True, False), (b"\r\n\xae\r\n", b"\x8d\x8a\xae\x8d\x8a", b"\r\n.\x8d\x8a")):
        connection = attack.session()
        for line in (b"MAIL FROM:<evil@example.net> BODY=7BIT\r\n", b"RCPT TO:<bob@example.com>\r\n"):
            connection.say(line)
        if waits:
            connection.say(b"DATA\r\n")
        connection.put(b"DATA\r\n" * (not waits) + b"Subject: one\r\n\r\nhello" + end + EVIL)
        connection.put(b"more text\r\n.\r\n")
        connection.read()
