"""The obvious model: whole dialogues in, what the other side receives and what is found out.

The executable specification. Promises: it says for every dialogue, in the simplest
way we know, what the core has to deliver and to report; it reads whole lines and
knows nothing of packets but that one turn is one packet. The tests hold the core's
decisions against it for any segmentation; ``nfmailguard translate`` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nfmailguard.policy.model import (
    CONDITIONS,
    Action,
    BannerRule,
    EhloMask,
    Mode,
    On,
    Policy,
)
from nfmailguard.smtp.masks import masked_banner, masked_command, masked_keyword
from nfmailguard.smtp.states import State, next_state
from nfmailguard.smtp.turns import ModelFinding, Result, Turn
from nfmailguard.smtp.verbs import VERB_INDEX, VERBS, Argument, Input, Verb

__all__ = ["translate"]

CR, LF, SPACE = 13, 10, 32
_UNKNOWN = VERBS[0]
_CONDITION_OF = {finding: condition for condition, finding in CONDITIONS.items()}
_ENDING = (Action.DROP_CONNECTION, Action.RESET)


@dataclass
class _Octet:
    """One octet on its way: where its turn's output is, and its place in the stream."""

    output: bytearray
    index: int
    offset: int

    @property
    def value(self) -> int:
        return self.output[self.index]

    def become(self, value: int) -> None:
        self.output[self.index] = value


class _Ended(Exception):  # noqa: N818, no error: an ending
    """The flow has been dropped or reset."""


class _Session:
    def __init__(self, policy: Policy, apply: bool) -> None:
        self.policy = policy
        self.apply = apply
        self.result = Result()
        self.state = State.CONNECT
        self.input = Input.COMMANDS
        self.outstanding = [VERBS[VERB_INDEX["<greeting>"]]]
        self.waiting = 0  # replies to come before the client may go on
        self.impatient = False  # the client did not wait; told once for each reply
        self.held: list[list[_Octet]] = []
        self.line: list[_Octet] = []
        self.after_cr = False
        self.reply: list[list[_Octet]] = [[]]
        self.tail = b""  # what of the message has been let through, at least its last octets
        self.came = 0  # the last octet of the message as it came
        self.odd: set[str] = set()  # what has been told of this message
        self.data_line = 0
        self.data_cr = False
        self.header = True
        self.reported_line = False
        self.recipients = 0
        self.chunk_left = 0
        self.chunking = False
        self.first_opaque = False
        self.hypothetical = False
        self.ignored = False  # not SMTP: nothing more is looked at

    # What is found, and what is to be done about it.

    def report(self, name: str, to_server: bool, offset: int, verb: str = "") -> Action:
        """Records a finding; the action to carry out, PASS where nothing is applied."""
        condition = _CONDITION_OF.get(name)
        action = On().action(condition, Mode.ENFORCE) if condition else self.policy.action(name)
        if action is Action.PASS:
            return action
        self.result.findings.append(
            ModelFinding(name, action, to_server, verb, self.state.name.lower(), offset, self.hypothetical)
        )
        if not self.apply:
            self.hypothetical |= action is not Action.LOG
            return Action.PASS
        if action in _ENDING:
            self.result.ended = action
            raise _Ended
        return action

    # The client's direction.

    def client(self, octets: list[_Octet]) -> None:
        while octets:
            if self.input is Input.OPAQUE:
                if self.first_opaque and octets[0].value != 0x16:
                    self.report("tls.not_a_handshake", True, octets[0].offset)
                self.first_opaque = False
                return
            if self.input is Input.DATA:
                octets = self.message(octets)
            elif self.input is Input.CHUNK:
                taken = min(self.chunk_left, len(octets))
                self.chunk_left -= taken
                octets = octets[taken:]
                if not self.chunk_left:
                    self.input = Input.COMMANDS
            elif self.waiting and not self.apply:
                self.wait(octets)
                self.held.insert(0, octets)  # followed only: read once the reply tells as what
                return
            else:
                self.wait(octets)
                octets = self.command_octet(octets)

    def wait(self, octets: list[_Octet]) -> None:
        """The client has gone on; where it should have waited for a reply, that is told once."""
        if self.waiting and not self.impatient:
            self.impatient = True
            self.report("command.pipelined_too_far", True, octets[0].offset, self.outstanding[self.waiting - 1].name)

    def command_octet(self, octets: list[_Octet]) -> list[_Octet]:
        octet, rest = octets[0], octets[1:]
        before, self.after_cr = self.after_cr, False
        if before and octet.value != LF:
            if self.report("command.bare_cr", True, octet.offset) is Action.BLANK:
                octet.become(LF)
        elif not before and octet.value == LF and self.report("command.bare_lf", True, octet.offset) is Action.BLANK:
            octet.become(SPACE)
            self.line.append(octet)
            return rest
        if octet.value == LF:
            line, self.line = self.line, []
            if before:
                line.pop()
            if self.input is Input.SASL:
                self.input = Input.COMMANDS
                self.waiting = len(self.outstanding)
            else:
                self.command(line, octet)
        else:
            self.after_cr = octet.value == CR
            self.line.append(octet)
        return rest

    def command(self, line: list[_Octet], end: _Octet) -> None:
        """One command line, without its CRLF."""
        if not line:
            self.outstanding.append(VERBS[VERB_INDEX["<empty>"]])
            return
        octets, size, verb = self.verb(line)
        name = octets[:size].decode("latin-1").upper()
        self.oddities(octets, 0, size, line[0].offset, name)
        denied = self.refuse(name, verb, line, size)
        self.oddities(octets, size, len(octets), line[0].offset, name)
        if self.apply and self.policy.action("command.nul") is Action.BLANK:
            for octet in line[size:]:
                octet.become(octet.value or SPACE)
        chunk = None if denied else self.argument(verb, line[size + 1 :], line[0].offset + size, end)
        denied = denied or (verb.argument is Argument.CHUNK_SIZE and chunk is None and self.apply)
        self.outstanding.append(_UNKNOWN if denied else verb)
        if verb.waits and not denied:
            self.waiting = len(self.outstanding)
        if chunk:
            self.input, self.chunk_left = Input.CHUNK, chunk

    def oddities(self, octets: bytes, begin: int, end: int, start: int, name: str) -> None:
        """What is wrong with a part of a line, whatever its verb."""
        nul = octets.find(0)
        limit = self.policy.commands.line_length or len(octets)
        if begin <= nul < end:
            self.report("command.nul", True, start + nul, name)
        if begin <= limit < end:
            self.report("command.too_long", True, start + limit, name)

    def argument(self, verb: Verb, argument: list[_Octet], behind: int, end: _Octet) -> int | None:
        """The argument of a verb that passed; a chunk's size. ``behind``: the offset behind the verb."""
        if verb.name == "RCPT":
            self.recipients += 1
            if self.policy.address.recipients and self.recipients > self.policy.address.recipients:
                self.report("recipients.too_many", True, behind, verb.name)
        if verb.argument in (Argument.SENDER, Argument.RECIPIENT):
            self.address(verb, argument)
        if verb.name in ("MAIL", "RSET", "HELO", "EHLO"):
            self.recipients = 0
        return self.chunk_size(argument, end) if verb.argument is Argument.CHUNK_SIZE else None

    def verb(self, line: list[_Octet]) -> tuple[bytes, int, Verb]:
        """The line's octets, how many of them are its verb, and which one it is."""
        octets = bytes(octet.value for octet in line)
        size = 0
        while size < len(octets) and octets[size] <= SPACE:
            size += 1  # space and control octets in front belong to the verb
        while size < len(octets) and octets[size] != SPACE:
            size += 1
        name = octets[:size].decode("latin-1").upper()
        known = name in VERB_INDEX and not name.startswith("<")
        return octets, size, VERBS[VERB_INDEX[name]] if known else _UNKNOWN

    def refuse(self, name: str, verb: Verb, line: list[_Octet], size: int) -> bool:
        """Masks a verb that may not pass; whether it was masked."""
        commands = self.policy.commands
        allowed = {verb.upper() for verb in commands.allow}
        if name not in allowed and "*" not in allowed:
            finding = "command.denied"
        elif verb.argument is Argument.CHUNK_SIZE and self.apply and not self.chunking:
            finding = "bdat.not_offered"
        else:
            return False
        shown = "".join(c if " " < c < "\x7f" else "?" for c in name[:16])
        if self.report(finding, True, line[0].offset, shown) is not Action.MASK:
            return False
        for octet, value in zip(line, masked_command(commands, size, len(line)), strict=False):
            octet.become(value)
        return True

    def address(self, verb: Verb, argument: list[_Octet]) -> None:
        """MAIL and RCPT arguments: illegal characters, and the sender's length."""
        rules = self.policy.address
        open_bracket = reported = False
        for octet in argument:
            character = chr(octet.value)
            illegal = character in rules.characters
            if rules.brackets and character in "<>":
                illegal |= open_bracket == (character == "<")
                open_bracket = character == "<"
            if illegal:
                blank = self.policy.action("address.illegal_character") is Action.BLANK
                if not reported:
                    self.report("address.illegal_character", True, octet.offset, verb.name)
                reported = True
                if blank and self.apply:
                    octet.become(SPACE)
        if verb.name != "MAIL" or not rules.sender_length:
            return
        text = "".join(chr(octet.value) for octet in argument)
        begin = text.find("<") + 1 if "<" in text else len(text.split(":", 1)[0]) + 1
        if "<" not in text:
            begin += len(text[begin:]) - len(text[begin:].lstrip(" "))
        for path, octet in enumerate(argument[begin:], start=1):
            if chr(octet.value) == (">" if "<" in text else " "):
                return
            if path > rules.sender_length:
                self.report("address.too_long", True, octet.offset, verb.name)
                return

    def chunk_size(self, argument: list[_Octet], end: _Octet) -> int | None:
        """BDAT's size, or None when it is none; then the rest of the line is masked (RFC 3030 2)."""
        size = digits = 0
        for place, octet in enumerate(argument):
            value = octet.value
            if 48 <= value <= 57 and size * 10 + value - 48 < 2**63:
                size, digits = size * 10 + value - 48, digits + 1
            elif value == SPACE and digits:
                return size
            else:
                if self.report("bdat.size_invalid", True, octet.offset, "BDAT") is Action.MASK:
                    for masked in argument[place:]:
                        masked.become(ord(self.policy.commands.letter))
                return None
        if not digits:
            self.report("bdat.size_invalid", True, end.offset, "BDAT")
            return None
        return size

    def message(self, octets: list[_Octet]) -> list[_Octet]:
        """Message text until CRLF.CRLF (RFC 5321 4.1.1.4); what is left behind it."""
        for place, octet in enumerate(octets):
            ended = False
            self.oddity(octet)
            if self.tail.endswith(b"\r\n.\r"):
                ended = octet.value == LF or self.shape(octet, LF)
            elif self.tail.endswith(b"\r\n.") and octet.value == CR:
                pass  # the standard one, so far
            elif octet.value in (CR, LF) and self.tail.endswith((b"\r.", b"\n.")):
                self.shape(octet, SPACE)
            self.tail = (self.tail + bytes([octet.value]))[-4:]
            self.measure(octet)
            if ended:
                self.input = Input.COMMANDS
                self.recipients = 0
                self.outstanding.append(VERBS[VERB_INDEX["<end of data>"]])
                return octets[place + 1 :]
        return []

    def oddity(self, octet: _Octet) -> None:
        """Octets that have no place in a message (RFC 5321 2.3.8, 4.5.2): the first of each kind is told."""
        met = {
            "data.nul": octet.value == 0,
            "data.bare_lf": octet.value == LF and self.came != CR,
            "data.bare_cr": octet.value != LF and self.came == CR,
        }
        self.came = octet.value
        for name, there in met.items():
            if there and name not in self.odd:
                self.odd.add(name)
                self.report(name, True, octet.offset)

    def shape(self, octet: _Octet, value: int) -> bool:
        """An end of data that only some servers see; whether the octet was made harmless."""
        if self.report("data.smuggling_shape", True, octet.offset) is not Action.BLANK:
            return False
        octet.become(value)
        return True

    def measure(self, octet: _Octet) -> None:
        """Header and body lines; the CRLF is not counted."""
        if octet.value == LF:
            self.header = self.header and self.data_line > 0
            self.data_line, self.data_cr, self.reported_line = 0, False, False
            return
        self.data_line += self.data_cr  # the CR before it was not the line's end
        self.data_cr = octet.value == CR
        self.data_line += not self.data_cr
        rules = self.policy.data
        limit = rules.header_line_length if self.header else rules.body_line_length
        if limit and self.data_line > limit and not self.reported_line:
            self.reported_line = True
            self.report("header.line_too_long" if self.header else "data.line_too_long", True, octet.offset)

    # The server's direction.

    def server(self, octets: list[_Octet]) -> None:
        for octet in octets:
            if self.input is Input.OPAQUE or self.ignored:
                return
            self.reply[-1].append(octet)
            line = self.reply[-1]
            if self.state is State.CONNECT and len(line) <= 3 and not 48 <= octet.value <= 57 and octet.value != LF:
                self.report("flow.not_smtp", False, octets[0].offset)
                self.ignored = True
            elif octet.value == LF:
                self.reply_line(line)
        self.go_on()

    def reply_line(self, line: list[_Octet]) -> None:
        text = bytes(octet.value for octet in line).rstrip(b"\r\n")
        if not text[:3].isdigit() or len(text) < 3:
            self.report("reply.malformed", False, line[0].offset)
            self.reply[-1] = []
            return
        if text[3:4] == b"-":
            self.mask(int(text[:3]), line, len(text))
            self.reply.append([])
            return
        self.mask(int(text[:3]), line, len(text))
        self.reply = [[]]
        self.settle(int(text[:3]), line[0].offset)

    def mask(self, code: int, line: list[_Octet], size: int) -> None:
        """What a line of the greeting, or of the reply to EHLO, becomes."""
        verb = self.outstanding[0] if self.outstanding else _UNKNOWN
        number = len(self.reply) - 1
        if verb.name == "<greeting>" and code == 220 and self.policy.banner.rule is not BannerRule.NONE:
            action = self.policy.action("banner.masked") if self.apply else Action.PASS
            if number == 0:
                action = self.report("banner.masked", False, line[0].offset)
            if action is Action.MASK:
                for column, octet in enumerate(line[:size]):
                    octet.become(masked_banner(self.policy.banner, column, octet.value))
        asked = any(one.name == "EHLO" for one in self.outstanding)
        if code == 250 and (asked or not self.outstanding):
            self.keyword(number, line[4:size], line[0].offset, offers=verb.name == "EHLO")

    def keyword(self, number: int, text: list[_Octet], offset: int, *, offers: bool) -> None:
        """Rule E1: a keyword that is not passed becomes X's and the running letter.

        In every reply that may answer EHLO, whatever the count of replies says; ``offers``:
        it is the one that is expected to.
        """
        if number == 0:
            self.chunking = self.chunking and not offers
            self.masked = 0
            return
        replies = self.policy.replies
        word = bytes(octet.value for octet in text).decode("latin-1")
        for end in replies.keyword_end:
            word = word.split(end, 1)[0]
        shown = bytes(octet.value for octet in text).upper()
        if replies.ehlo is EhloMask.E1 and text and word.upper() not in {k.upper() for k in replies.keywords}:
            if self.report("reply.keyword_masked", False, offset, "EHLO") is Action.MASK:
                for octet, value in zip(text, masked_keyword(len(text), self.masked), strict=True):
                    octet.become(value)
                shown = b""
            self.masked += 1
        self.chunking |= offers and shown == b"CHUNKING"

    def settle(self, code: int, offset: int) -> None:
        """A complete reply answers the oldest outstanding command (RFC 2920 3.1)."""
        if not self.outstanding:
            if code in (354, 334):
                self.report("reply.ambiguous", False, offset)
            elif code != 421:
                self.report("reply.unsolicited", False, offset)
            return
        verb = self.outstanding[0]
        behind_auth = verb.reads is Input.SASL and len(self.outstanding) > 1
        if code in (354, 334) and (verb.continues != code or behind_auth):
            self.report("reply.ambiguous", False, offset, verb.name)
            explained = [place for place, one in enumerate(self.outstanding) if one.continues == code]
            if not self.apply and explained:  # followed only: the reply tells what it answers
                del self.outstanding[: explained[0]]
                self.waiting = max(0, self.waiting - explained[0])
                verb = self.outstanding[0]
        elif verb.name == "BDAT" and self.input is Input.CHUNK and len(self.outstanding) == 1:
            self.report("reply.ambiguous", False, offset, verb.name)
        if verb.name == "HELO" and code // 100 == 2:
            self.chunking = False  # RFC 5321 4.1.1.1: a session without extensions
        self.state = next_state(self.state, verb.name, code)
        if verb.continues != code:
            self.outstanding.pop(0)
            self.waiting = max(0, self.waiting - 1)
            self.impatient = self.impatient and self.waiting > 0
        else:
            self.input, self.waiting, self.impatient = verb.reads, 0, False
            if verb.reads is not Input.SASL:
                # What stands behind the command is read as the message, or as TLS.
                self.outstanding.clear()
                self.tail = b"\r" if self.after_cr else b"." if self.line else b"\r\n"
                self.came, self.odd = CR if self.after_cr else 0, set()
                self.after_cr = False
                self.line = []
                self.data_line, self.data_cr, self.header, self.reported_line = 0, False, True, False
                self.first_opaque = True
            if self.input is Input.OPAQUE:
                self.report("tls.started", False, offset, verb.name)
        if not self.apply:
            self.go_on()  # nothing was held: this is what the next reply may answer

    def go_on(self) -> None:
        """What the client said while it had to wait, as far as it need not wait any more."""
        while self.held and not self.waiting:
            self.client(self.held.pop(0))


def translate(policy: Policy, turns: Sequence[Turn], *, apply: bool = True) -> Result:
    """What ``policy`` makes of a dialogue; with ``apply=False`` what it would have found, nothing changed.

    The result's turns stand in the order of the given ones; what a held turn becomes
    stands in its own place.
    """
    session = _Session(policy, apply)
    offsets = {True: 0, False: 0}
    outputs = []
    for turn in turns:
        output = bytearray(turn.data)
        outputs.append(output)
        if session.result.ended is not None:
            output.clear()
            continue
        start = offsets[turn.to_server]
        octets = [_Octet(output, index, start + index) for index in range(len(output))]
        offsets[turn.to_server] += len(output)
        try:
            if not turn.to_server:
                session.server(octets)
            elif session.waiting or session.held:
                session.wait(octets)
                session.held.append(octets)
            else:
                session.client(octets)
        except _Ended:
            output.clear()
    for octets in session.held if apply else ():
        octets[0].output.clear()  # never released
    session.result.turns = [Turn(turn.to_server, bytes(out)) for turn, out in zip(turns, outputs, strict=True)]
    return session.result
