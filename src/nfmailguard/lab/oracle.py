"""Judges what a server received, by the server's own record and nothing else.

Promises: strict, and the same for every gateway. A denied verb must not be readable where any server would read a
command line: under every reading of line ends, and of bytes before and inside a verb. A message must not have an end
that only some servers recognise. The gateway's reports are not used. Does not know how the bytes came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from nfmailguard.lab.lenient_server import CHUNK, COMMAND, SASL, TEXT, Conversation
from nfmailguard.policy.model import Policy
from nfmailguard.smtp.verbs import VERBS

__all__ = ["denied_verbs", "faults", "readable_verbs", "unlike_ends"]

READINGS = {
    "CRLF": re.compile(rb"\r\n"),
    "LF": re.compile(rb"\r?\n"),
    "CR": re.compile(rb"\r\n|\r|\n"),
}
SEVEN_BITS = bytes(octet & 0x7F for octet in range(256))
BEFORE_A_VERB = bytes(range(33)) + b"\x7f"
WORD = re.compile(rb"[A-Za-z0-9-]+")
END = re.compile(rb"(?:\r\n|\n|\r)\0*\.\0*(?:\r\n|\n|\r)")
STANDARD_END = b"\r\n.\r\n"
#: Historic SMTP verbs that are not in nfmailguard's table of verbs; no profile lets them through.
OLD_VERBS = frozenset({"WIZ", "DEBUG", "KILL", "SHOWQ"})


def denied_verbs(policy: Policy) -> frozenset[bytes]:
    """The verbs that no server behind ``policy`` may be able to read at the beginning of a line."""
    if "*" in policy.commands.allow:
        return frozenset()
    known = {verb.name for verb in VERBS if verb.name.isascii() and verb.name.replace("-", "").isalpha()} | OLD_VERBS
    return frozenset(name.encode() for name in known - set(policy.commands.allow))


def _ways_to_read(line: bytes) -> Iterator[bytes]:
    # A line as it is, without NUL bytes, and with the eighth bits cleared; each without the bytes that servers skip
    # before a verb.
    for octets in (line, line.replace(b"\0", b""), line.translate(SEVEN_BITS)):
        yield octets.lstrip(BEFORE_A_VERB)


def readable_verbs(octets: bytes, denied: Iterable[bytes]) -> Iterator[str]:
    """Denied verbs that some server reads in ``octets``, each with the reading of line ends that shows it."""
    verbs = tuple(denied)
    for name, line_end in READINGS.items():
        for line in line_end.split(octets):
            for read in _ways_to_read(line):
                word = WORD.match(read)
                # A server that compares only the first letters of a verb reads EXPNX as EXPN.
                found = word and next((verb for verb in verbs if word[0].upper().startswith(verb)), None)
                if found:
                    yield f"{found.decode()} readable, line ends: {name}"


def unlike_ends(text: bytes, *, last: bool = False) -> Iterator[str]:
    """Ends of data in a message's text (with its own end) that only some servers recognise.

    ``last``: nothing came after the text.
    """
    # The line end of the DATA command precedes the text and may be part of an end of data.
    text = b"\r\n" + text
    for found in END.finditer(text):
        # At the end of the text, with nothing after it, an incomplete standard end of data is no fault: its last byte
        # may not have come yet.
        begun = last and found.end() == len(text) and STANDARD_END.startswith(found[0])
        if found[0] != STANDARD_END and not begun:
            yield f"an end of data only some servers see: {found[0]!r}"


def _runs(conversation: Conversation) -> Iterator[tuple[str, bytes]]:
    # Consecutive spans of the same kind are joined; bytes not read yet count as the beginning of a command line.
    run: list[bytes] = []
    kind = COMMAND
    for one, octets in [*conversation.spans, (COMMAND, conversation.unread)]:
        if one != kind:
            yield kind, b"".join(run)
            run, kind = [], one
        run.append(octets)
    yield kind, b"".join(run)


def faults(
    conversations: Sequence[Conversation],
    denied: Iterable[bytes],
    forbidden: Iterable[bytes] = (),
    heard: Iterable[bytes] = (),
    forbidden_to_client: Iterable[bytes] = (),
) -> list[str]:
    """Everything that got past, one line each; nothing: an empty list.

    ``forbidden``: patterns the server must not have received anywhere. ``heard``: what the client received;
    ``forbidden_to_client``: patterns that must not be in it.
    """
    verbs = tuple(denied)
    found: list[str] = []
    for conversation in conversations:
        runs = list(_runs(conversation))
        for place, (kind, octets) in enumerate(runs, start=1):
            if kind == TEXT:
                found += unlike_ends(octets, last=not any(behind for _, behind in runs[place:]))
            elif kind == COMMAND:
                found += readable_verbs(octets, verbs)
            assert kind in (COMMAND, TEXT, CHUNK, SASL)
        for line in conversation.lines:  # Command lines as this particular server separated them.
            found += (f"{fault}, as the server cut its lines" for fault in readable_verbs(line, verbs))
        for pattern in forbidden:
            if re.search(pattern, conversation.received):
                found.append(f"the server received {pattern!r}")
    for octets in heard:
        found += (f"the client received {pattern!r}" for pattern in forbidden_to_client if re.search(pattern, octets))
    return list(dict.fromkeys(found))
