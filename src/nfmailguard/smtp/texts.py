"""The reference model's message text: where a message ends, for every server alike, and what is reported of it.

Promises: no end of data is left that only some servers recognise (docs/servers.md). Does not know commands.
"""

from __future__ import annotations

import re
from copy import copy

from nfmailguard.policy.model import Action
from nfmailguard.smtp.chunks import Chunks
from nfmailguard.smtp.head import Head
from nfmailguard.smtp.measured import Part
from nfmailguard.smtp.session import CR, DOT, LF, SPACE, Ended, Octet
from nfmailguard.smtp.verbs import VERB_INDEX, VERBS, Input

__all__ = ["LONG_HEAD", "LONG_LINE", "Texts"]

#: Matches a dot at the beginning of a line, as read by a server that clears the eighth bit of each byte.
SEVEN_END = re.compile(rb"[\r\n\x8d\x8a][.\xae]\Z")
#: DOT_ONE: a line that so far is a dot and one other byte. ONLY_DOTS: a text that so far is nothing but dots;
#: FIRST_DOTS: the same with two dots or more.
DOT_ONE = re.compile(rb"[\r\n]\.[^\r\n]\Z")
ONLY_DOTS = re.compile(rb"[\r\n]?\.*")
FIRST_DOTS = re.compile(rb"[\r\n]?\.\.+")
END = b"\r\n.\r\n"
#: Length in bytes from which on a server may read a line of message text in pieces: half of hMailServer's 100,000.
LONG_LINE = 50_000
#: Header size in bytes from which on a server may give up a header: a tenth of Exim's header_maxsize.
LONG_HEAD = 100_000


def is_long(line: int, head: Head) -> bool:
    """Whether a line of message text is so long that a server may read it in pieces."""
    return line >= LONG_LINE or (head.on and head.size >= LONG_HEAD)


class Texts(Chunks):
    """The part of a dialogue that handles messages."""

    def message(self, octets: list[Octet]) -> list[Octet]:
        """Processes message text until CRLF.CRLF (RFC 5321 4.1.1.4); returns the bytes after it."""
        self.came_line, self.came_head, self.left_long = self.text_line, copy(self.head), False
        for place, octet in enumerate(octets):
            ended = self.end(octet, bytes(other.value for other in octets[place : place + 5]))
            self.tail = (self.tail + bytes([octet.value]))[-4:]
            self.head.follow(octet.value)
            self.text_line = 0 if octet.value == LF else self.text_line + 1
            if self.first_line is not None:
                longer = self.first_line + bytes([octet.value])
                self.first_line = longer if ONLY_DOTS.fullmatch(longer) else None
            self.measure(octet)
            if self.policy.data.filename_length and self.file_names.too_long(octet.value):
                self.report("mime.filename_too_long", True, octet.offset)
            self.weigh(octet, ended=ended)
            if self.left_long and (ended or place == len(octets) - 1):
                self.result.ended = Action.RESET
                raise Ended
            if ended:
                self.input = Input.COMMANDS
                self.recipients = 0
                self.outstanding.append(VERBS[VERB_INDEX["<end of data>"]])
                return octets[place + 1 :]
        return []

    def end(self, octet: Octet, next_five: bytes) -> bool:
        """Whether the message ends here; what only some servers take for its end is made harmless.

        ``next_five``: this byte and the next ones of the same packet.
        """
        ended = False
        dot, end = self.came == DOT, octet.value in (CR, LF) and next_five != END
        long = self.text_line > 1 and is_long(self.text_line, self.head)
        came_long = self.came_line > 1 and is_long(self.came_line, self.came_head)
        self.came_line = 0 if octet.value == LF else self.came_line + 1
        self.came_head.follow(octet.value)
        self.oddity(octet)
        self.all_came = (self.all_came + bytes([octet.value]))[-5:]
        if dot and came_long and end:
            # hMailServer 5.7 and Exim read a line this long in pieces, so a dot and a line end inside it may end the
            # message.
            self.shape(octet, SPACE)
        if self.tail.endswith(b"\r\n.\r"):
            ended = octet.value == LF or self.shape(octet, LF)
        elif self.tail.endswith(b"\r\n.") and octet.value == CR:
            pass  # So far this is the standard end of data, CRLF "." CRLF.
        elif octet.value in (CR, LF) and self.tail.endswith((b"\r.", b"\n.")):
            self.shape(octet, SPACE)
        elif octet.value == LF and DOT_ONE.search(self.tail):
            # James before 3.7.5 takes any line of a dot and two more bytes for the end of data.
            self.shape(octet, SPACE)
        elif octet.value in (CR, LF) and self.first_line and FIRST_DOTS.fullmatch(self.first_line):
            # nodemailer's smtp-server before 3.21 strips a dot from the first line, so ".." ends the data.
            self.shape(octet, SPACE)
        elif self.seven_bits and octet.value & 127 in (CR, LF) and SEVEN_END.search(self.tail):
            self.shape(octet, SPACE)  # A server that clears eighth bits would see an end of data here.
        # A dot and a line end in a line that is too long only because an earlier line end was blanked: the sender meant
        # an end of data that cannot be sent on safely, so the connection is reset.
        self.left_long |= self.apply and dot and long and end and octet.value in (CR, LF)
        if self.all_came == END and not ended and self.apply:
            # The client's own CRLF "." CRLF is no end of data any more, since bytes before it were changed.
            self.result.ended = Action.RESET
            raise Ended
        return ended

    def weigh(self, octet: Octet, *, ended: bool) -> None:
        """Checks the size of header and body as each of their lines ends, and the number of To fields as they begin."""
        rules, part = self.policy.data, self.part
        if not (rules.header_length or rules.body_length or rules.to_fields):
            return
        if octet.value != LF:
            if len(part.line) < 3:
                part.line += bytes([octet.value]).upper()
                part.fields += part.header and part.line == b"TO:"
                if rules.to_fields and part.line == b"TO:" and part.header and part.fields == rules.to_fields + 1:
                    self.report("header.to_fields_too_many", True, octet.offset)
            part.size += 1
            return
        part.size += 1
        if ended:
            return
        limit = rules.header_length if part.header else rules.body_length
        if limit and part.size > limit >= part.before:
            self.report("header.too_long" if part.header else "data.too_long", True, octet.offset)
        part.before = part.size
        if part.header and part.line in (b"", b"\r"):
            self.part = Part(header=False)
        part.line = b""

    def end_is_cut(self, octets: list[Octet]) -> bool:
        """Emulates CSCds90792: whether a packet is lost because it completes an end of data that
        another packet began.
        """
        if not self.policy.bugs.dot_crlf or self.input is not Input.DATA:
            return False
        begun = next((part for part in (b"\r\n.\r", b"\r\n.") if self.tail.endswith(part)), b"\r\n.\r\n")
        rest = b"\r\n.\r\n"[len(begun) :]
        came = bytes(octet.value for octet in octets)
        if not rest or not rest.startswith(came[: len(rest)]):
            return False
        return self.report("bug.dot_crlf", True, octets[0].offset) is Action.DROP

    def oddity(self, octet: Octet) -> None:
        """Reports bytes that have no place in a message (RFC 5321 2.3.8, 4.5.2); of each kind the first."""
        met = {
            "data.nul": octet.value == 0,
            "data.bare_lf": octet.value == LF and self.came != CR,
            "data.bare_cr": octet.value != LF and self.came == CR,
        }
        self.came = octet.value
        if octet.value == 0 and self.apply and self.policy.action("data.nul") is Action.BLANK:
            octet.become(SPACE)
        for name, there in met.items():
            if there and name not in self.odd:
                self.odd.add(name)
                self.report(name, True, octet.offset)

    def shape(self, octet: Octet, value: int) -> bool:
        """Reports an end of data that only some servers recognise; returns whether the byte was made harmless."""
        if self.report("data.smuggling_shape", True, octet.offset) is not Action.BLANK:
            return False
        octet.become(value)
        return True

    def measure(self, octet: Octet) -> None:
        """Checks the length of header and body lines, without the CRLF."""
        if octet.value == LF:
            self.header = self.header and self.data_line > 0
            self.data_line, self.data_cr, self.reported_line = 0, False, False
            return
        self.data_line += self.data_cr  # The CR seen before was not followed by LF, so it counts as a byte of the line.
        self.data_cr = octet.value == CR
        self.data_line += not self.data_cr
        rules = self.policy.data
        limit = rules.header_line_length if self.header else rules.body_line_length
        if limit and self.data_line > limit and not self.reported_line:
            self.reported_line = True
            self.report("header.line_too_long" if self.header else "data.line_too_long", True, octet.offset)
