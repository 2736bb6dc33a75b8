"""The reference model's half for damage done upstream: what is recognised, and how it is undone.

Promises: each rule of docs/restore.md in the simplest way we know. Only what lies completely in one turn is restored.
Does not know how a dialogue goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nfmailguard.policy.restoring import offer_for
from nfmailguard.smtp.session import LF, Octet, Session
from nfmailguard.smtp.states import State

__all__ = ["Restoring", "banner_masked", "keyword_masked", "verb_masked"]

_DOMAIN = re.compile(rb"[A-Za-z0-9._:\[\]-]+")
_MECHANISM = re.compile(rb"(?:PLAIN|LOGIN|CRAM-MD5|DIGEST-MD5|NTLM|GSSAPI|XOAUTH2|OAUTHBEARER)(?: |$)", re.IGNORECASE)
_KEPT = 254  # Most bytes of a line that are examined for masking.
_FEWEST = 4  # Fewest stars, or X's, taken for masking: no server and no client sends as many by chance.


def verb_masked(verb: bytes) -> bool:
    """Whether a verb consists of the letters with which a Mailguard overwrites a verb."""
    return len(verb) >= _FEWEST and not verb[:_KEPT].upper().strip(b"X")


def banner_masked(text: bytes) -> bool:
    """Whether the text of a greeting is what the masks B40, B44, B51 or BASA leave of one."""
    text = text[: _KEPT - 4]
    if len(text) > 15 and text.startswith(b"SMTP/cmap ready"):
        return not text[15:].strip(b"_")
    return text.count(b"*") >= _FEWEST and not text.strip(b"*20 ")


def keyword_masked(text: bytes, least: int) -> bool:
    """Whether a line of an EHLO reply is what rule E1 leaves: X's, and a letter not before the ``least``-th.

    A single X may belong to a real keyword: then the letter has to be exactly the next one. ``250 OK`` becomes ``250
    XB``.
    """
    if len(text) == 2:
        return text == b"X" + bytes([ord("A") + least % 26])
    return 3 <= len(text) < _KEPT - 4 and not text[:-1].strip(b"X") and ord("A") + least <= text[-1] <= ord("Z")


def up_to_lf(octets: Sequence[Octet]) -> Iterator[Octet]:
    """The bytes of the line that begins here, as far as there are any."""
    for octet in octets:
        yield octet
        if octet.value == LF:
            return


class Restoring(Session):
    """A dialogue whose damage is recognised, and undone where a Recovery says so."""

    server_address = b""
    ehlo_restored = False

    def damaged(self, what: str, to_server: bool, offset: int, verb: str = "") -> None:
        """Reports damage that is not undone."""
        self.report(f"upstream.{what}", to_server, offset, verb)
        if self.recovery and (self.recovery.commands if to_server else self.recovery.replies):
            self.report("restore.not_recoverable", to_server, offset, verb)

    def restore_command(self, octets: list[Octet]) -> None:
        """Restores the command line that begins here, if all of it is in this turn."""
        if not self.recovery or not self.recovery.commands or self.gone:
            return
        line = bytes(octet.value for octet in up_to_lf(octets))
        if not line.endswith(b"\r\n"):
            return
        text = line[:-2]
        verb = self._unmasked(text)
        if verb and self.apply:
            for octet, value in zip(octets, verb, strict=False):
                octet.become(value)
        if verb:
            self.report("restore.command", True, octets[0].offset, verb.decode())
            self.ehlo_restored |= verb == b"EHLO"

    def _unmasked(self, text: bytes) -> bytes:
        known = self.recovery
        assert known is not None
        verb, _, argument = text.partition(b" ")
        greeting = self.state is State.GREETED and not self.outstanding and _DOMAIN.fullmatch(argument)
        if verb.upper() == b"NOOP":
            return b"EHLO" if greeting and known.noop else b""
        if not verb_masked(verb):
            return b""
        if greeting and len(verb) == 4:
            return b"EHLO"
        if self.state is not State.READY or self.outstanding:
            return b""
        if text.upper() == b"X" * 8:
            return b"STARTTLS" if known.starttls else b""
        return b"AUTH" if known.authentication and len(verb) == 4 and _MECHANISM.match(argument) else b""

    def restore_reply(self, octets: list[Octet]) -> None:
        """Restores the reply that begins here, if all of it is in this turn."""
        if not self.recovery or not self.recovery.replies or not self.outstanding:
            return
        if bytes(octet.value for octet in octets[:3]) not in (b"220", b"250"):
            return
        text = bytes(octet.value for octet in octets)
        offer = offer_for(self.recovery.offers, self.server_address)
        if offer is None:
            return
        if self.outstanding[0].name == "<greeting>" and text.startswith(b"220") and b"\n" in text:
            line = text.partition(b"\n")[0]
            masked = line[4:-1]
            if line.endswith(b"\r") and line[3:4] in (b" ", b"*") and banner_masked(masked):
                self._greeting(octets, self.recovery.banner(offer, masked))
        elif self.outstanding[0].name == "EHLO":
            self._keywords(octets, text)

    def _greeting(self, octets: list[Octet], banner: bytes | None) -> None:
        if banner is None:
            return
        if self.apply:
            for octet, value in zip(octets[3:], b" " + banner, strict=False):
                octet.become(value)
        self.report("restore.banner", False, octets[0].offset)

    def _keywords(self, octets: list[Octet], text: bytes) -> None:
        assert self.recovery is not None
        offer = offer_for(self.recovery.offers, self.server_address)
        lines = re.match(rb"(?:250-[^\n]*\r\n)*250 [^\n]*\r\n", text)
        if lines is None or offer is None:
            return
        found: list[tuple[int, bytes]] = []
        place = 0
        for number, line in enumerate(lines[0].split(b"\n")[:-1]):
            words = line[4:-1]
            if number and keyword_masked(words, len(found)) and words[-1] == ord("A") + len(found):
                found.append((place, words))
            place += len(line) + 1
        candidates = self.recovery.candidates(offer)
        if [len(words) for _, words in found] != [len(candidate.text) for candidate in candidates]:
            return
        for (start, _), candidate in zip(found, candidates, strict=True):
            if not candidate.restored:
                continue
            if self.apply:
                for octet, value in zip(octets[start + 4 :], candidate.text, strict=False):
                    octet.become(value)
            self.report("restore.keyword", False, octets[start].offset, "EHLO")
