"""The reference model's half for the server: replies, and the commands they answer.

Promises: each reply settles the oldest outstanding command (RFC 2920 3.1). Does not know how the client's lines are
read.
"""

from __future__ import annotations

from abc import abstractmethod

from nfmailguard.policy.model import Action, BannerRule, EhloMask
from nfmailguard.smtp.masks import masked_banner, masked_keyword, turned_ok
from nfmailguard.smtp.restore import Restoring, banner_masked, keyword_masked
from nfmailguard.smtp.session import CR, GREETINGS, LF, UNKNOWN, Answers, Asked, Ended, Octet
from nfmailguard.smtp.states import State, next_state
from nfmailguard.smtp.verbs import LONGEST_LINE, Input, Verb

__all__ = ["Replies"]

#: First digits of a reply code (RFC 5321 4.2.1). sendmail also sends lines with 050, after its VERB command; they are
#: not replies.
CODES = (b"2", b"3", b"4", b"5")


class Replies(Restoring):
    """The part of a dialogue that reads the server's replies."""

    @abstractmethod
    def client(self, octets: list[Octet]) -> None:
        """Takes the client's next bytes, in order."""

    @abstractmethod
    def wait(self, octets: list[Octet]) -> None:
        """Reports that the client goes on although it has to wait."""

    @abstractmethod
    def cut_off(self, line: list[Octet]) -> None:
        """Handles a command line that will never be complete."""

    def server(self, octets: list[Octet]) -> None:
        for place, octet in enumerate(octets):
            if self.ignored:
                return
            if self.input is Input.OPAQUE:
                # The client's bytes since STARTTLS are TLS, so the server's bytes are not parsed as replies either.
                break
            if self.reply == [[]]:
                self.restore_reply(octets[place:])
            self.reply[-1].append(octet)
            line = self.reply[-1]
            if len(line) == 1:
                self.answers = self.may_answer()
            elif len(line) == (6 if len(line) > 4 and line[4].value == CR else 5) and self.is_reply_s(line):
                # Whether the line answers EHLO is decided again at its fifth byte: a line does not answer an EHLO that
                # the client sent in the middle of it.
                self.answers = self.may_answer()
                self.may_hide = self.ehlo_restored
            bare = len(line) > 1 and line[-2].value == CR and octet.value != LF
            digit = (48 if len(line) > 1 else 50) <= octet.value <= (57 if len(line) > 1 else 53)
            digit |= octet.value in (CR, LF)
            if self.state is State.CONNECT and ((len(line) <= 3 and not digit) or (len(line) <= 4 and bare)):
                self.report("flow.not_smtp", False, octets[0].offset)
                self.ignored = True
            elif octet.value == LF:
                self.reply_line(line)
        self.go_on()

    def reply_line(self, line: list[Octet]) -> None:
        text = bytes(octet.value for octet in line).removesuffix(b"\n").removesuffix(b"\r")
        if len(text) < 3 or not self.is_reply_s(line):
            self.malformed(line, text)
            self.reply[-1] = []
            return
        code = int(text[:3])
        self.mask(code, line, len(text))
        if text[3:4] == b"-":
            self.first_code = self.first_code if len(self.reply) > 1 else code
            self.reply.append([])
            return
        # Some clients take a code with another character than space or "-" after it for an unfinished reply and read
        # on.
        odd = text[3:4] not in (b"", b" ")
        self.answered(code, for_certain=len(self.reply) > 1 and not odd)
        self.reply, self.junk = [[]], odd
        self.settle(code, line[0].offset)

    def is_reply_s(self, line: list[Octet]) -> bool:
        """Whether a line belongs to the reply that is being read; in a refusal of EHLO all lines have the same code."""
        code = bytes(octet.value for octet in line[:3])
        if not code.isdigit() or code[:1] not in CODES:
            return False
        refused = len(self.reply) > 1 and 400 <= self.first_code < 600
        return not (self.answers is Answers.ANYHOW and refused) or int(code) == self.first_code

    def malformed(self, line: list[Octet], text: bytes) -> None:
        """Handles a line that is no reply line; clients that wait for EHLO's reply may read it all the same."""
        self.report("reply.malformed", False, line[0 if text else -1].offset)
        anyhow = self.answers is Answers.ANYHOW
        first = f"{self.first_code:03}".encode() if anyhow and len(self.reply) > 1 and self.refused(0) else b""
        good = 0
        while (
            good < min(len(text), 3)
            and (chr(text[good]).isdigit() if good else text[:1] in CODES)
            and first[good : good + 1] in (b"", text[good : good + 1])
        ):
            good += 1
        hidden = self.policy.replies.ehlo is EhloMask.E1 and not self.recovery and (len(self.reply) > 1 or self.junk)
        if not (anyhow and hidden and good < min(len(text), 3)):
            pass
        elif self.report("reply.keyword_masked", False, line[0].offset, "EHLO") is Action.MASK:
            for octet in line[good : len(text)]:
                octet.become(ord("X"))
        self.junk |= bool(text)

    def refused(self, code: int) -> bool:
        """Whether the reply that is being read is a refusal. ``code``: the code of its first line, if that is the
        current line.
        """
        return 400 <= (self.first_code if len(self.reply) > 1 else code) < 600

    def may_answer(self) -> Answers:
        """Whether the line that begins now may belong to EHLO's reply."""
        if self.asked not in (Asked.EHLO, Asked.DOUBT) and (self.asked is not Asked.TOLD or self.outstanding):
            return Answers.OTHER
        verb = self.outstanding[0] if self.outstanding else None
        return Answers.ANYHOW if verb is None or verb.name == "EHLO" else Answers.BY_CODE

    def answered(self, code: int, *, for_certain: bool) -> None:
        """Notes that a reply is complete, and whether it certainly was EHLO's."""
        verb = self.outstanding[0] if self.outstanding else UNKNOWN
        if self.asked is Asked.EHLO:
            told = verb.name == "EHLO" and code == 250 and for_certain
            self.asked = Asked.TOLD if told else Asked.DOUBT
        elif not self.outstanding:
            self.asked = Asked.DOUBT if self.asked >= Asked.EHLO else Asked.OTHER

    def mask(self, code: int, line: list[Octet], size: int) -> None:
        """Masks a line of the greeting, of the reply to EHLO, or of a hidden refusal."""
        verb = self.outstanding[0] if self.outstanding else UNKNOWN
        number = len(self.reply) - 1
        refused = verb.name == "<masked>" and code // 100 == 5
        if refused and self.report("reply.turned_ok", False, line[0].offset) is Action.MASK:
            for octet, value in zip(line[:size], turned_ok(bytes(o.value for o in line[:size])), strict=True):
                octet.become(value)
        if verb.name == "<greeting>" and code == 220 and number == 0 and banner_masked(self.text(line[4:size])):
            self.damaged("banner_masked", False, line[0].offset)
        if verb.name == "<greeting>" and code == 220 and self.policy.banner.rule is not BannerRule.NONE:
            action = self.policy.action("banner.masked") if self.apply else Action.PASS
            if number == 0:
                action = self.report("banner.masked", False, line[0].offset)
            if action is Action.MASK:
                text = self.text(line[:size])
                for column, octet in enumerate(line[:size]):
                    before = text[column - 1] if column else 0
                    octet.become(masked_banner(self.policy.banner, column, octet.value, before))
        if number == 0:
            self.masked = self.came_masked = 0
        by_text = self.answers is Answers.ANYHOW and not self.refused(code) and not self.recovery
        if (number or self.junk) and self.answers and (code == 250 or by_text):
            came = self.text(line[4:size])
            if number and code == 250 and keyword_masked(came, self.came_masked):
                self.came_masked = came[-1] - ord("A") + 1
                self.damaged("keyword_masked", False, line[0].offset, "EHLO")
            newer = any(other.name in GREETINGS for other in self.outstanding[1:])
            offers = number > 0 and code == 250 and verb.name == "EHLO" and not newer
            self.keyword(line[4:size], line[0].offset, offers=offers)

    @staticmethod
    def text(octets: list[Octet]) -> bytes:
        return bytes(octet.value for octet in octets)

    def keyword(self, text: list[Octet], offset: int, *, offers: bool) -> None:
        """Masks an EHLO keyword that may not pass by X's and the running letter (rule E1).

        Applied to every reply that may answer EHLO, whatever the count of replies says; ``offers``: it is the reply
        expected to answer EHLO.
        """
        replies = self.policy.replies
        word = bytes(octet.value for octet in text).decode("latin-1")
        for end in replies.keyword_end:
            word = word.split(end, 1)[0]
        shown = bytes(octet.value for octet in text).upper()
        denied = word.upper() not in {k.upper() for k in replies.keywords}
        if self.recovery:
            # When restoring, the keywords to mask are the listed ones (those of extensions that the gateway must hide).
            denied = self.may_hide and not denied
        else:
            # Some clients take a bare CR for the end of the line, so a keyword line with a CR inside is masked.
            denied |= CR in (octet.value for octet in text)
        if replies.ehlo is EhloMask.E1 and text and denied:
            if self.report("reply.keyword_masked", False, offset, "EHLO") is Action.MASK:
                for octet, value in zip(text, masked_keyword(len(text), self.masked), strict=True):
                    octet.become(value)
                shown = b""
            self.masked += 1
        elif (replies.ehlo is EhloMask.E1 and not self.recovery and len(text) + 4 > LONGEST_LINE) and self.report(
            "reply.keyword_masked", False, offset, "EHLO"
        ) is Action.MASK:
            for octet in text[LONGEST_LINE - 4 :]:
                octet.become(ord("X"))
        self.chunking |= offers and shown == b"CHUNKING"

    def settle(self, code: int, offset: int) -> None:
        """Assigns a complete reply to the oldest outstanding command (RFC 2920 3.1)."""
        if not self.outstanding:
            early = self.input is Input.DATA and not self.policy.bugs.data_bypass
            if code in (354, 334) or (code != 421 and (early or (self.chunk_refused and self.holds))):
                self.report("reply.ambiguous", False, offset)
            elif code != 421:
                self.report("reply.unsolicited", False, offset)
                # An unexpected reply shifts the count: which command a later reply answers is no longer certain.
                self.chunking = self.chunk_refused = False
            return
        verb = self.explained(code, offset)
        if self.ignored:
            return
        self.count(verb, code, offset)
        self.state = next_state(self.state, verb.name, code)
        if verb.name == "BDAT" and code // 100 == 2 and self.last_chunk:
            self.state = State.READY
        self.chunk_refused = self.chunking and verb.name == "BDAT" and code >= 400
        self.note_junk(verb, code, offset)
        begun = verb.name == "DATA" and self.input is Input.DATA
        if begun and (not code or verb.continues != code):
            self.report("bug.data_bypass", False, offset, verb.name)
        if not code or verb.continues != code or begun:
            if self.input is Input.SASL:
                # The server refused the AUTH exchange: the client is back to sending commands.
                self.input, self.line = Input.COMMANDS, []
            self.outstanding.pop(0)
            self.waiting = max(0, self.waiting - 1)
            self.impatient = self.impatient and self.waiting > 0
        else:
            self.go_over(verb, offset)
        if not self.holds:
            # Without holding, the client's bytes have passed already; they are parsed now as what the next reply may
            # answer.
            self.go_on()

    def count(self, verb: Verb, code: int, offset: int) -> None:
        """Counts a mail's recipients, and those that were refused."""
        if verb.name == "RCPT" and code // 100 == 5:
            self.invalid_recipients += 1
            most = self.policy.address.invalid_recipients
            if most and self.invalid_recipients > most:
                self.report("recipients.invalid_too_many", False, offset, verb.name)
        elif verb.name == "<end of data>":
            # The end of the message was answered: the count of refused recipients starts anew with the next mail.
            self.invalid_recipients = 0
            # Commands still outstanding may already have begun another mail with BODY=7BIT.
            self.seven_bits &= len(self.outstanding) > 1
        elif code // 100 == 2 and verb.name in ("MAIL", "RSET", *GREETINGS):
            # The server accepted the command and cleared its recipients; RCPT commands that are still outstanding count
            # for the new mail.
            self.invalid_recipients = 0
            self.recipients = sum(other.name == "RCPT" for other in self.outstanding)
            self.seven_bits &= verb.name == "MAIL" or len(self.outstanding) > 1

    def note_junk(self, verb: Verb, code: int, offset: int) -> None:
        """Counts commands without effect since the last message that was accepted."""
        accepted = code // 100 == 2
        if accepted and (verb.name == "<end of data>" or (verb.name == "BDAT" and self.last_chunk)):
            self.junk_commands = 0
        elif (accepted and verb.name in ("RCPT", "BDAT")) or (verb.name, code) == ("DATA", 354):
            pass  # A mail may have thousands of accepted RCPT or BDAT commands; they are not counted as junk.
        elif verb.name != "<greeting>":
            self.junk_commands += 1
            if self.junk_commands == self.most_junk + 1:
                self.report("command.too_many_junk", False, offset)

    def explained(self, code: int, offset: int) -> Verb:
        """The command a reply answers; a reply that cannot answer it is reported."""
        verb = self.outstanding[0]
        more = len(self.outstanding) > 1 or bool(self.line)
        behind = verb.reads is Input.SASL and (more or self.after_cr)
        behind |= verb.reads is Input.DATA and self.holds and not self.policy.bugs.data_bypass and more
        if code in (354, 334) and (verb.continues != code or behind):
            self.report("reply.ambiguous", False, offset, verb.name)
            explained = [place for place, one in enumerate(self.outstanding) if one.continues == code]
            # Without holding, a reply code of 334 or 354 itself tells which outstanding command it answers.
            if not self.holds and explained:
                del self.outstanding[: explained[0]]
                self.waiting = max(0, self.waiting - explained[0])
                verb = self.outstanding[0]
        elif (code != 421 and self.input is Input.SASL) or (
            verb.name == "BDAT" and self.input is Input.CHUNK and len(self.outstanding) == 1
        ):
            self.report("reply.ambiguous", False, offset, verb.name)
        return verb

    def go_over(self, verb: Verb, offset: int) -> None:
        """The reply was intermediate: the client's next bytes are what it asked for (message, AUTH answer, TLS)."""
        self.waiting, self.impatient = 0, False
        if verb.name == "DATA" and self.policy.bugs.noop_body and self.noop_seen:
            self.report("bug.noop_body", False, offset, verb.name)
            self.outstanding.clear()
            self.noop_seen, self.body_as_commands = False, True
            return
        self.input = verb.reads
        self.cut_off(self.line)
        if verb.reads is not Input.SASL:
            # The bytes after the command are read as message text, or as TLS.
            self.outstanding.clear()
            self.begin_message()
        if self.input is Input.OPAQUE:
            self.report("tls.started", False, offset, verb.name)

    def go_on(self) -> None:
        """Processes what the client sent while it had to wait, as far as it need not wait any more."""
        while self.held and not self.waiting:
            octets = self.held.pop(0)
            self.gone = not self.holds
            try:
                self.client(octets)
                self.gone = False
            except Ended:
                # The held packet that caused the reset is not sent on, and neither is the reply that released it.
                del octets[0].output[octets[0].index :]
                raise
        if self.held and self.waiting:
            self.wait(self.held[0])
