"""Command lines: verbs that are split, disguised, hidden after line ends or after a change of how bytes are read.

Servers differ in what ends a line, what they strip before a verb, how much of a verb they look at and what they read
after a DATA that they refuse. Sources: RFC 5321 4.1.1 and 2.3.8, RFC 2920 3.1, and Cisco's bug S-113423 (verbs split
over packets).
"""

from __future__ import annotations

from collections.abc import Callable

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, Attack, Table
from nfmailguard.lab.lenient_server import Personality

__all__ = ["COMMANDS"]

COMMANDS = Table("commands")
technique = COMMANDS.technique

ANY_END = Personality(line_ends="any")
PREFIXES = Personality(prefixes=True)


def said(*segments: bytes, pause: float = 0.0) -> Callable[[Attack], None]:
    """A technique that sends the segments, in a session, one after the other."""

    def run(attack: Attack) -> None:
        connection = attack.session()
        for segment in segments:
            connection.put(segment)
            attack.wait(pause)
        connection.read(0.1)

    return run


technique("verb-plain", "the forbidden command, as it is")(said(EVIL))
technique("verb-cut", "TU|RN (S-113423)")(said(EVIL[:2], EVIL[2:]))
technique("verb-cut-allowed", "HEL|P: the first segment could still be HELO")(said(b"HEL", b"P\r\n"))
technique("verb-cut-late", "TURN| root, the verb whole in one segment, its end in the next")(said(EVIL[:4], EVIL[4:]))
technique("verb-cut-crlf", "the line's CR and LF in segments of their own")(said(EVIL[:-2], b"\r", b"\n"))
technique("verb-cut-slow", "TU|RN, the rest only after a pause")(said(EVIL[:2], EVIL[2:], pause=0.1))
technique("leading-space", "spaces before the verb, which servers skip")(said(b"   " + EVIL))
technique("leading-tab", "tabs before the verb")(said(b"\t\t" + EVIL))
technique("leading-nul", "NULs before the verb, which servers drop")(said(b"\0\0" + EVIL))
technique("leading-control", "VT, FF, BS and DEL before the verb")(said(b"\x0b\x0c\x08" + EVIL, b"\x7f" + EVIL))
technique("leading-cut", "a space before the verb, in a segment of its own")(said(b" ", EVIL))
technique("nul-inside", "a NUL inside the verb, which servers drop")(said(b"TU\0RN root\r\n"))
technique("high-bit", "the verb with its eighth bits set: a 7-bit server clears them")(
    said(bytes(octet | 0x80 for octet in EVIL[:4]) + EVIL[4:])
)
technique("tab-behind", "a tab behind the verb in place of the space")(said(b"TURN\troot\r\n"))
technique("lower-case", "the verb in mixed case (RFC 5321 2.4)")(said(b"tUrN root\r\n"))
technique("bare-lf", "a bare LF ends the line before (RFC 5321 2.3.8)")(said(b"NOOP\n" + EVIL))
technique("bare-lf-cut", "the bare LF is a segment's last octet")(said(b"NOOP\n", EVIL))
technique("bare-cr", "a bare CR ends the line before", server=ANY_END)(said(b"NOOP\r" + EVIL))
technique("bare-cr-cut", "the bare CR is a segment's last octet", server=ANY_END)(said(b"NOOP\r", EVIL))
technique("bare-cr-eats", "a bare CR and an octet that may be eaten before the verb", server=ANY_END)(
    said(b"NOOP\rX" + EVIL, b"NOOP\r\0" + EVIL)
)
technique("cr-cr-lf", "CR CR LF ends the line before", server=ANY_END)(said(b"NOOP\r\r\n" + EVIL))
technique("lf-cr", "LF CR ends the line before", server=ANY_END)(said(b"NOOP\n\r" + EVIL))
technique("blank-lines", "empty lines and bare line ends before the verb", server=ANY_END)(
    said(b"\r\n\n\r\r\n\n" + EVIL)
)
technique(
    "long-line", "a line longer than the server's buffer: the rest is its next line", server=Personality(buffer=512)
)(said((b"NOOP " + b"A" * 512)[:512] + EVIL))
technique("long-verb", "a verb of 2,000 letters, then a bare LF")(said(b"N" * 1000, b"N" * 1000 + b"\n" + EVIL))


@technique("data-refused", "a command in the same segment behind a DATA the server refuses (503)")
def data_refused(attack: Attack) -> None:
    attack.session().put(b"DATA\r\n" + EVIL)


@technique("data-refused-next", "a command in the next segment behind a DATA the server refuses")
def data_refused_next(attack: Attack) -> None:
    connection = attack.session()
    connection.put(b"DATA\r\n")
    connection.put(EVIL)
    connection.read()


@technique("data-refused-lost", "a text behind a refused DATA dies behind the gateway; a command takes its place")
def data_refused_lost(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(b"DATA\r\n")
    connection.put(HARMLESS, start + 6, ttl=LOST)
    connection.read()
    connection.put(EVIL, start + 6)


@technique("data-cut", "DAT|A, its line end and a command in the second segment")
def data_cut(attack: Attack) -> None:
    connection = attack.session()
    connection.put(b"DAT")
    connection.put(b"A\r\n" + EVIL)


@technique("data-pipelined", "DATA, a whole text, its dot and a command in one segment (RFC 2920 3.1 forbids it)")
def data_pipelined(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n" + EVIL)
    connection.read()
    connection.put(EVIL)


@technique("data-dot-cut", "DATA and the dot in one segment, the dot's line end and a command in the next")
def data_dot_cut(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA\r\n.")
    connection.read()
    connection.put(b"\r\n" + EVIL)


@technique("data-cut-anywhere", "DATA, a dot and a command, cut in two at every octet")
def data_cut_anywhere(attack: Attack) -> None:
    octets = b"DATA\r\n.\r\n" + EVIL
    for cut in range(1, len(octets)):
        connection = attack.mail()
        connection.put(octets[:cut])
        attack.wait(0.005)
        connection.put(octets[cut:])


@technique("verb-cut-anywhere", "allowed and forbidden verbs in a row, cut in two at every octet")
def verb_cut_anywhere(attack: Attack) -> None:
    octets = b"NOOP\r\nHELP\r\n" + EVIL
    for cut in range(1, len(octets)):
        connection = attack.session()
        connection.put(octets[:cut])
        attack.wait(0.005)
        connection.put(octets[cut:])


@technique("data-lf-cut", "DATA's CR in one segment, its LF, a dot and a command in the next")
def data_lf_cut(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA\r")
    connection.put(b"\n.\r\n" + EVIL)
    connection.read()
    connection.put(EVIL)


@technique("data-twice", "DATA twice in a segment: the server reads the second as text, and a dot behind it")
def data_twice(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA\r\nDATA\r\n")
    connection.put(b".\r\n" + EVIL)
    connection.read()
    connection.put(EVIL)


@technique("text-and-command", "the end of data and a command in one segment")
def text_and_command(attack: Attack) -> None:
    attack.text().put(b"hello\r\n.\r\n" + EVIL)


@technique("prefix-datax", "DATAX, which a server that looks at four letters takes for DATA", server=PREFIXES)
def prefix_datax(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATAX\r\n")
    connection.read()
    connection.put(b"hello\r\n.\r\n" + EVIL)


@technique("prefix-data-cut", "DATA|X: four allowed letters have left when the fifth comes", server=PREFIXES)
def prefix_data_cut(attack: Attack) -> None:
    connection = attack.mail()
    connection.put(b"DATA")
    connection.put(b"X\r\n")
    connection.read()
    connection.put(b"hello\r\n.\r\n" + EVIL)


@technique("prefix-turnx", "TURNX and TURN-cut-X, to a server that looks at four letters", server=PREFIXES)
def prefix_turnx(attack: Attack) -> None:
    connection = attack.session()
    connection.put(b"TURNX root\r\nTURN")
    connection.put(b"X root\r\n")


@technique("pipelined-unread", "500 commands and no window for the replies, then the forbidden one")
def pipelined_unread(attack: Attack) -> None:
    connection = attack.session()
    connection.acknowledges = False
    connection.window = 0
    for _ in range(5):
        connection.put(b"NOOP\r\n" * 100)
        attack.link.dispatch(0.01)
    connection.put(EVIL)
    attack.wait(0.05)
    connection.window = 65535
    connection.acknowledges = True
    connection.put(flags=16)
    attack.wait(0.1)


@technique("pipe-address", "a pipe as recipient, cut before and behind the bar (sendmail's |prog)")
def pipe_address(attack: Attack) -> None:
    attack.forbidden += [rb"\|"] if "|" in attack.policy.address.characters else []
    connection = attack.session()
    connection.say(b"MAIL FROM:<a@example.net>\r\n")
    for segment in (b"RCPT TO:<", b"|", b"prog>\r\n"):
        connection.put(segment)
