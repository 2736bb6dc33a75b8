"""Dialogues from a grammar: what clients and servers say, honest and otherwise, as turns."""

from __future__ import annotations

from hypothesis import strategies as st

from nfmailguard.smtp.turns import Turn

VERBS = [
    "HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "VRFY", "EXPN", "HELP", "NOOP", "QUIT", "STARTTLS", "AUTH",
    "BDAT", "ETRN", "TURN", "XEXCH50", "DAT", "DATAX", "HE", "helo", "Mail", "eHLO", " EHLO", "\tNOOP", "\0NOOP", "W",
]  # fmt: skip
ARGUMENTS = ["", " ", " a", " FROM:<a@b>", " TO:<|x@y>", " FROM:a>b@x", " <a<b>", " TO:<c@d> AUTH=<>", " 5 LAST", "\tx"]
ENDS = ["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r\n"]
KEYWORDS = [
    "PIPELINING", "SIZE 1000", "STARTTLS", "AUTH PLAIN", "AUTH=LOGIN", "CHUNKING", "8BITMIME", "HELP", "DSN", "X",
    "SIZ", "SIZEX", "", "DELIVERBY", "size 3", "SIZE\rX", "XY\r",
]  # fmt: skip
REPLIES = [
    "250 ok",
    "250-a\r\n250 b",
    "500 no",
    "354 go",
    "334 more",
    "220 go",
    "421 bye",
    "503 bad",
    "xyz",
    "25",
    "250",
]
TEXTS = ["text", ".", "..", ".text", "", "EHLO x", "a.", "\0"]


@st.composite
def command(draw: st.DrawFn, ends: list[str] = ENDS) -> bytes:
    line = draw(st.sampled_from(VERBS)) + draw(st.sampled_from(ARGUMENTS)) + draw(st.sampled_from(ends))
    return line.encode("latin-1")


@st.composite
def text(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(ENDS)), max_size=5))
    body = "".join(word + end for word, end in parts)
    return (body + draw(st.sampled_from(["\r\n.\r\n", "", ".\r\n"]))).encode("latin-1")


@st.composite
def reply(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        return (draw(st.sampled_from(REPLIES)) + "\r\n").encode()
    words = draw(st.lists(st.sampled_from(KEYWORDS), min_size=1, max_size=5))
    lines = ["250-host", *(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"]
    return "".join(line + "\r\n" for line in lines).encode()


@st.composite
def wild_turns(draw: st.DrawFn) -> list[Turn]:
    """Anything, in any order; every turn holds whole lines."""
    greeting = draw(
        st.sampled_from(["220 mail2 ready\r\n", "220-a\r\n220 b0\r\n", "554 no\r\n", "220\r\n", "421 x\r\n"])
    )
    turns = [Turn(False, greeting.encode())]
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            pieces = draw(st.lists(st.one_of(command(), text()), min_size=1, max_size=3))
            # Whatever the line ends were, the turn's last line is complete.
            turns.append(Turn(True, b"".join(pieces) + b"\r\nNOOP\r\n"))
        else:
            turns.append(Turn(False, b"".join(draw(st.lists(reply(), min_size=1, max_size=2)))))
    return [turn for turn in turns if turn.data]


@st.composite
def polite_turns(draw: st.DrawFn) -> list[Turn]:
    """A client that waits where it must (RFC 2920) and a server that answers every line once."""
    turns = [Turn(False, b"220 mail2 ready\r\n")]
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["command", "command", "ehlo", "mail"]))
        if kind == "mail":
            turns.append(Turn(True, b"DATA\r\n"))
            turns.append(Turn(False, b"354 go\r\n"))
            body = draw(text())
            turns.append(Turn(True, body + b"\r\n.\r\n"))
            turns.append(Turn(False, b"250 queued\r\n"))
            continue
        line = b"EHLO a\r\n" if kind == "ehlo" else draw(command(["\r\n"]))
        if line.strip().upper().startswith((b"STARTTLS", b"AUTH", b"BDAT", b"DATA")) or line.strip(b"\t\0 ") == b"\r\n":
            line = b"X" + line
        turns.append(Turn(True, line))
        turns.append(Turn(False, draw(reply()) if kind == "ehlo" else b"250 ok\r\n"))
    return turns


SAID = [
    *(b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"NOOP\r\n", b"RSET\r\n", b"XYZ\r\n", b"DATA\r\n", b"EHLO b\r\n"),
    *(b"BDAT 6\r\nEXPN\r\n", b"BDAT 6 LAST\r\nEXPN\r\n", b"BDAT 0 LAST\r\n", b"BDAT 0\r\n", b"BDATA 1\r\n", b"\r\n"),
    *(b"bdat 1\r\nx", b"BDAT\r\n", b"BURL x\r\n", b"\rBDAT 6\r\n", b" BDAT 6\r\n"),
]


@st.composite
def chunk_turns(draw: st.DrawFn) -> list[Turn]:
    """Chunks, pipelined and otherwise, to a server that takes and refuses what it likes."""
    turns = [
        Turn(False, b"220 mail2 ready\r\n"),
        Turn(True, b"EHLO a\r\n"),
        Turn(False, b"250-mail2\r\n250 CHUNKING\r\n"),
    ]
    if draw(st.booleans()):
        turns += [Turn(True, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"), Turn(False, b"250 ok\r\n" * 2)]
    for _ in range(draw(st.integers(1, 10))):
        if draw(st.booleans()):
            turns.append(Turn(True, b"".join(draw(st.lists(st.sampled_from(SAID), min_size=1, max_size=3)))))
        else:
            replies = [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"503 no\r\n", b"452 later\r\n", b"354 go\r\n"]
            turns.append(Turn(False, b"".join(draw(st.lists(st.sampled_from(replies), min_size=1, max_size=3)))))
    return turns


BEGINNINGS = [
    "250-",
    "250 ",
    "251-",
    "050-",
    "150 ",
    "220 ",
    "25-",
    "550-",
    "550 ",
    "450 ",
    "junk ",
    "2500-",
    "250\t",
    "2",
    " ",
    "",
    "x",
]


@st.composite
def offer_turns(draw: st.DrawFn) -> list[Turn]:
    """EHLO and other commands, and replies of lines that begin in any way."""
    turns = [Turn(False, b"220 mail2 ready\r\n")]
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            said = draw(st.sampled_from(["EHLO a", "EHLO a", "NOOP", "MAIL FROM:<a@b>", "", " EHLO b"]))
            turns.append(Turn(True, said.encode() + b"\r\n"))
        lines = draw(
            st.lists(st.tuples(st.sampled_from(BEGINNINGS), st.sampled_from(KEYWORDS)), min_size=1, max_size=5)
        )
        turns.append(Turn(False, "".join(begin + word + "\r\n" for begin, word in lines).encode()))
    return turns
