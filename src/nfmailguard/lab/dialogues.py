"""The dialogues of ``lab diff``: what mail inspections may treat differently, each on a connection of its own.

Promises: data only. Each has one subject, reached by commands that every firewall lets through (HELO, MAIL, RCPT,
DATA), so that a difference concerns that subject only. docs/lab-diff.md lists them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DIALOGUES", "GREETING", "Dialogue", "Step"]

GREETING = b"220 mail2.example.com ESMTP 8.12.10\r\n"
#: Lines of an EHLO reply with keywords that no known firewall hides; the keyword under test is placed between them.
_OFFER = ("250-mail2.example.com", "250-SIZE 10485760", "250 8BITMIME")
_HEAD = b"From: alice@example.net\r\nTo: bob@example.com\r\nSubject: x\r\n"


class Step(NamedTuple):
    """What the client sends, in one packet or several, and what the server answers.

    ``says`` None: what a server would answer to what has arrived. ``pieces`` may be empty: the server sends without
    being asked.
    """

    pieces: tuple[bytes, ...]
    says: bytes | None = None


class Dialogue(NamedTuple):
    """One connection. ``offer``: the server's reply to EHLO, if not the usual one."""

    name: str
    about: str
    steps: tuple[Step, ...] = ()
    greeting: bytes = GREETING
    offer: str = ""


def _send(*pieces: bytes, says: bytes | None = None) -> Step:
    return Step(pieces, says)


_HELO, _EHLO = _send(b"HELO client.example.net\r\n"), _send(b"EHLO client.example.net\r\n")
_MAIL, _RCPT = _send(b"MAIL FROM:<alice@example.net>\r\n"), _send(b"RCPT TO:<bob@example.com>\r\n")
_DATA, _NOOP, _QUIT = _send(b"DATA\r\n"), _send(b"NOOP\r\n"), _send(b"QUIT\r\n")


def _verb(name: str, line: bytes, about: str = "") -> Dialogue:
    return Dialogue(f"verb.{name}", about or f"the verb {name.upper()}", (_HELO, _send(line + b"\r\n"), _NOOP))


def _keyword(name: str, line: str, about: str = "") -> Dialogue:
    offer = "\r\n".join((*_OFFER[:2], f"250-{line}", _OFFER[2]))
    return Dialogue(f"ehlo.{name}", about or f"the keyword {line} in the reply to EHLO", (_EHLO,), offer=offer)


def _sender(name: str, address: bytes, about: str) -> Dialogue:
    return Dialogue(f"mail.{name}", about, (_HELO, _send(b"MAIL FROM:" + address + b"\r\n"), _NOOP))


def _recipient(name: str, address: bytes, about: str) -> Dialogue:
    return Dialogue(f"rcpt.{name}", about, (_HELO, _MAIL, _send(b"RCPT TO:" + address + b"\r\n"), _NOOP))


def _text(name: str, about: str, *pieces: bytes, head: bytes = _HEAD + b"\r\n", end: bytes = b".\r\n") -> Dialogue:
    """A mail: its text, and a command after its end."""
    whole = (head + pieces[0], *pieces[1:-1], pieces[-1] + end) if len(pieces) > 1 else (head + pieces[0] + end,)
    return Dialogue(f"text.{name}", about, (_HELO, _MAIL, _RCPT, _DATA, _send(*whole), _NOOP))


def _answer(name: str, about: str, says: bytes, line: bytes = b"NOOP\r\n") -> Dialogue:
    return Dialogue(f"reply.{name}", about, (_HELO, _send(line, says=says), _NOOP))


_GREETINGS = (
    Dialogue("greeting.plain", "a greeting with digits", (_QUIT,)),
    Dialogue(
        "greeting.lines", "a greeting of two lines", (_QUIT,), b"220-mail2.example.com ESMTP\r\n220 2020 users\r\n"
    ),
    Dialogue("greeting.bare", "a greeting that is a code alone", (_QUIT,), b"220 \r\n"),
    Dialogue("greeting.refusal", "554 in place of a greeting", (_QUIT,), b"554 no service 2020\r\n"),
    Dialogue(
        "greeting.early", "a client that speaks before it is greeted", (_send(b"HELO a\r\n", says=b"250 a\r\n"),), b""
    ),
)
_VERBS = (
    _verb("helo", b"HELO again.example.net"),
    Dialogue("verb.ehlo", "the verb EHLO", (_EHLO, _NOOP), offer="\r\n".join(_OFFER)),
    _verb("rset", b"RSET"),
    _verb("vrfy", b"VRFY postmaster"),
    _verb("expn", b"EXPN staff"),
    _verb("help", b"HELP"),
    _verb("etrn", b"ETRN example.com"),
    _verb("turn", b"TURN"),
    _verb("atrn", b"ATRN example.com"),
    _verb("send", b"SEND FROM:<alice@example.net>"),
    _verb("soml", b"SOML FROM:<alice@example.net>"),
    _verb("saml", b"SAML FROM:<alice@example.net>"),
    _verb("auth", b"AUTH", "the verb AUTH, without a mechanism"),
    _verb("starttls", b"STARTTLS", "the verb STARTTLS, which the server refuses"),
    _verb("bdat", b"BDAT 0 LAST", "the verb BDAT, where no mail has begun"),
    _verb("xclient", b"XCLIENT NAME=spike.example"),
    _verb("unknown", b"goodmorning", "a word that is no verb, as in Cisco's own test"),
    _verb("lower", b"noop", "a verb in lower case"),
    _verb("argument", b"NOOP an argument", "an argument where a verb has none"),
    _verb("space", b"NOOP ", "a space behind a verb"),
    _verb("indented", b" NOOP", "a space before a verb"),
    _verb("tab", b"NOOP\tx", "a tab behind a verb"),
    _verb("empty", b"", "an empty line"),
    _verb("first-letters", b"NOOPS", "a verb and one more letter"),
    _verb("eight-bits", b"NOOP \xe4\xf6", "bytes of eight bits in a command"),
    Dialogue("verb.before-helo", "MAIL before HELO", (_MAIL, _NOOP)),
    Dialogue(
        "verb.data-early", "DATA that the server refuses, and a word behind it", (_HELO, _DATA, _send(b"HELP\r\n"))
    ),
)
_KEYWORDS = (
    _keyword("starttls", "STARTTLS"),
    _keyword("auth", "AUTH LOGIN PLAIN"),
    _keyword("auth-equals", "AUTH=LOGIN PLAIN"),
    _keyword("dsn", "DSN"),
    _keyword("pipelining", "PIPELINING"),
    _keyword("enhanced", "ENHANCEDSTATUSCODES"),
    _keyword("chunking", "CHUNKING"),
    _keyword("binarymime", "BINARYMIME"),
    _keyword("smtputf8", "SMTPUTF8"),
    _keyword("etrn", "ETRN"),
    _keyword("vrfy", "VRFY"),
    _keyword("expn", "EXPN"),
    _keyword("help", "HELP"),
    _keyword("exchange", "X-EXPS GSSAPI"),
    _keyword("own", "XFOO"),
    _keyword("lower", "dsn", "a keyword in lower case"),
    Dialogue(
        "ehlo.refused", "EHLO that the server refuses, then HELO", (_send(*_EHLO.pieces, says=b"502 no\r\n"), _HELO)
    ),
)
_SECRETS = (
    Dialogue("auth.initial", "AUTH PLAIN with its answer", (
        _EHLO, _send(b"AUTH PLAIN AGEAYg==\r\n"), _send(b"AGEAYg==\r\n"))),
    Dialogue("auth.login", "AUTH LOGIN, asked twice", (
        _EHLO, _send(b"AUTH LOGIN\r\n", says=b"334 VXNlcm5hbWU6\r\n"), _send(b"YQ==\r\n", says=b"334 UGFzc3dvcmQ6\r\n"),
        _send(b"Yg==\r\n", says=b"235 2.7.0 Ok\r\n"), _send(b"NOOP\r\n", says=b"250 2.0.0 Ok\r\n"))),
    Dialogue("auth.cancelled", "AUTH that the client gives up", (
        _EHLO, _send(b"AUTH LOGIN\r\n", says=b"334 VXNlcm5hbWU6\r\n"), _send(b"*\r\n", says=b"501 5.7.0 cancelled\r\n"),
        _send(b"NOOP\r\n", says=b"250 2.0.0 Ok\r\n"))),
    Dialogue("starttls.begun", "STARTTLS that the server takes, and a first TLS record", (
        _EHLO, _send(b"STARTTLS\r\n", says=b"220 2.0.0 Ready to start TLS\r\n"),
        _send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", says=b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"))),
)  # fmt: skip
_CHUNKED = "\r\n".join((*_OFFER[:2], "250-CHUNKING", _OFFER[2]))
_CHUNKS = (
    Dialogue("bdat.one", "a mail in one chunk", (
        _EHLO, _MAIL, _RCPT, _send(b"BDAT 14 LAST\r\nSubject: x\r\n\r\n", says=b"250 2.0.0 Ok\r\n")), offer=_CHUNKED),
    Dialogue("bdat.two", "a mail in two chunks, which look like commands", (
        _EHLO, _MAIL, _RCPT, _send(b"BDAT 12\r\n" + b"Subject: x\r\n", says=b"250 2.0.0 Ok\r\n"),
        _send(b"BDAT 15 LAST\r\n" + b"\r\nEHLO a.ex\r\n\r\n", says=b"250 2.0.0 Ok\r\n")), offer=_CHUNKED),
)  # fmt: skip
_TOGETHER = (
    Dialogue("pipelining.mail", "MAIL, RCPT and DATA in one packet", (
        _HELO, _send(b"".join(part for one in (_MAIL, _RCPT, _DATA) for part in one.pieces)),
        _send(_HEAD + b"\r\nx\r\n.\r\n"))),
    Dialogue("pipelining.denied", "an unknown verb between commands of one packet", (
        _HELO, _send(b"NOOP\r\nXFOO\r\nRSET\r\n"))),
    Dialogue("pipelining.text", "the text of a mail that does not wait for 354", (
        _HELO, _MAIL, _RCPT, _send(b"DATA\r\n", _HEAD + b"\r\nx\r\n.\r\n"))),
    Dialogue("cut.verb", "a verb cut over two packets", (_HELO, _send(b"NO", b"OP\r\n"))),
    Dialogue("cut.unknown", "an unknown verb cut over two packets", (_HELO, _send(b"XF", b"OO\r\n"))),
    Dialogue("cut.bytes", "a command a byte a packet", (_HELO, _send(*(bytes([one]) for one in b"RSET\r\n")))),
    Dialogue("cut.line-end", "a command's CRLF cut over two packets", (_HELO, _send(b"NOOP\r", b"\n"))),
)  # fmt: skip
_LONG = (
    Dialogue(
        "long.command", "a command of 512 bytes with its CRLF", (_HELO, _send(b"NOOP " + b"a" * 505 + b"\r\n"), _NOOP)
    ),
    Dialogue("long.too", "a command of 600 bytes", (_HELO, _send(b"NOOP " + b"a" * 593 + b"\r\n"), _NOOP)),
    Dialogue("long.helo", "HELO of 300 bytes", (_send(b"HELO " + b"a" * 293 + b"\r\n"), _NOOP)),
)
_ADDRESSES = (
    _sender("empty", b"<>", "the empty sender"),
    _sender("space", b" <alice@example.net>", "a space behind MAIL FROM:"),
    _sender("parameter", b"<alice@example.net> SIZE=100", "a parameter of MAIL"),
    _sender("unpaired", b"alice@example.net>", "a bracket without its other half"),
    _sender("long", b"<" + b"a" * 318 + b"@example.net>", "a sender of 330 bytes"),
    _recipient("pipe", b"<|prog@example.com>", "a pipe in an address"),
    _recipient("unpaired", b"<bob@example.com", "a bracket without its other half"),
    _recipient("route", b"<@a.example:bob@example.com>", "a source route"),
    _recipient("percent", b"<bob%b.example@example.com>", "a per cent sign in an address"),
    _recipient("bang", b"<host!bob@example.com>", "a bang path"),
    _recipient("quoted", b'<"bob jones"@example.com>', "a quoted local part"),
    _recipient("bare", b"bob@example.com", "no brackets at all"),
    Dialogue("rcpt.many", "101 recipients", (
        _HELO, _MAIL, *(_send(b"RCPT TO:<u%d@example.com>\r\n" % number) for number in range(101)), _NOOP)),
    Dialogue("rcpt.refused", "twelve recipients that the server refuses", (
        _HELO, _MAIL, *(_send(b"RCPT TO:<u%d@example.com>\r\n" % number, says=b"550 5.1.1 unknown\r\n")
                        for number in range(12)), _NOOP)),
)  # fmt: skip
_TEXTS = (
    _text("plain", "a mail of one line", b"x\r\n"),
    _text("verbs", "lines of a mail that look like commands", b"EHLO a.example\r\nXFOO\r\nVRFY root\r\n"),
    _text("dots", "lines that begin with dots", b"..\r\n...x\r\n"),
    _text("eight-bits", "bytes of eight bits", b"caf\xe9 \x80\xff\r\n"),
    _text("zero", "a byte of zero", b"a\x00b\r\n"),
    _text("bare-lf", "an LF alone in a line", b"a\nb\r\n"),
    _text("bare-cr", "a CR alone in a line", b"a\rb\r\n"),
    _text("lf-dot", "LF, a dot and CRLF: an end of data for some", b"a\n.\r\nb\r\n"),
    _text("dot-lf", "CRLF, a dot and LF: an end of data for some", b"a\r\n.\nb\r\n"),
    _text("cr-dot", "CR, a dot and CR: an end of data for few", b"a\r.\rb\r\n"),
    _text("cut-end", "the end of data cut between its CR and LF", b"x\r\n.\r", b"\n", end=b""),
    _text("cut-dot", "the end of data cut behind its dot", b"x\r\n.", b"\r\n", end=b""),
    _text("long-line", "a line of 1,100 bytes", b"a" * 1100 + b"\r\n"),
    _text("long-header", "a header line of 1,100 bytes", b"x\r\n",
          head=_HEAD + b"X-Long: " + b"a" * 1092 + b"\r\n\r\n"),
    _text("file-name", "a MIME file name of 300 bytes", b"x\r\n",
          head=_HEAD + b'Content-Disposition: attachment;\r\n filename="' + b"a" * 296 + b'.txt"\r\n\r\n'),
    _text("to-fields", "30 To fields", b"x\r\n", head=_HEAD + b"To: bob@example.com\r\n" * 29 + b"\r\n"),
    _text("no-header", "a mail without a header", b"x\r\n", head=b""),
    Dialogue("text.none", "a mail without a byte", (_HELO, _MAIL, _RCPT, _DATA, _send(b".\r\n"), _NOOP)),
    Dialogue("text.after-noop", "verbs in a mail behind a NOOP", (
        _HELO, _NOOP, _MAIL, _RCPT, _DATA, _send(_HEAD + b"\r\nVRFY root\r\n.\r\n"), _NOOP)),
    Dialogue("text.two", "two mails on one connection", (
        _HELO, *(_MAIL, _RCPT, _DATA, _send(_HEAD + b"\r\nx\r\n.\r\n")) * 2, _NOOP)),
    Dialogue("text.behind-end", "a command in the packet of the end of data", (
        _HELO, _MAIL, _RCPT, _DATA, _send(_HEAD + b"\r\nx\r\n.\r\nRSET\r\n"))),
)  # fmt: skip
_REPLIES = (
    _answer("lines", "a reply of two lines", b"250-one\r\n250 two\r\n"),
    _answer("bare", "a reply that is a code alone", b"250\r\n"),
    _answer("long", "a reply line of 600 bytes", b"250 " + b"a" * 594 + b"\r\n"),
    _answer("eight-bits", "bytes of eight bits in a reply", b"250 caf\xc3\xa9\r\n"),
    _answer("codes", "a reply whose lines have two codes", b"250-one\r\n550 two\r\n"),
    _answer("354", "354 to a command that is not DATA", b"354 go on\r\n"),
    _answer("421", "421, and the connection goes on", b"421 4.3.2 closing\r\n"),
    _answer("twice", "two replies to one command", b"250 one\r\n250 two\r\n"),
    _answer("bare-lf", "a reply that ends with LF alone", b"250 one\n"),
    Dialogue("reply.unasked", "a reply nobody asked for", (_HELO, _send(says=b"250 unasked\r\n"), _NOOP)),
    _answer(
        "keywords",
        "a reply to HELO that looks like EHLO's",
        b"250-mail2.example.com\r\n250 STARTTLS\r\n",
        b"HELO b\r\n",
    ),
)
#: All dialogues, in the order in which they are sent.
DIALOGUES: tuple[Dialogue, ...] = (
    *_GREETINGS,
    *_VERBS,
    *_KEYWORDS,
    *_SECRETS,
    *_CHUNKS,
    *_TOGETHER,
    *_LONG,
    *_ADDRESSES,
    *_TEXTS,
    *_REPLIES,
)
