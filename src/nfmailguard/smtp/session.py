"""What the obvious model knows of a dialogue, and what is found in it.

Promises: findings get their action from the policy and nowhere else. Does not know
how either direction is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from nfmailguard.policy.model import CONDITION_OF, Action, Limits, Mode, On, Policy
from nfmailguard.policy.restoring import Recovery
from nfmailguard.smtp.head import Head
from nfmailguard.smtp.measured import Part
from nfmailguard.smtp.mime import FileNames
from nfmailguard.smtp.states import State
from nfmailguard.smtp.turns import ModelFinding, Result
from nfmailguard.smtp.verbs import VERB_INDEX, VERBS, Input

__all__ = ["CR", "GREETINGS", "LF", "SPACE", "UNKNOWN", "Answers", "Asked", "Ended", "Octet", "Session"]

CR, LF, SPACE, DOT = 13, 10, 32, 46
UNKNOWN = VERBS[0]
#: They begin the session anew (RFC 5321 4.1.1.1; Postfix, XCLIENT_README).
GREETINGS = ("HELO", "EHLO", "XCLIENT")
_ENDING = (Action.DROP_CONNECTION, Action.RESET)


@dataclass
class Octet:
    """One octet on its way: where its turn's output is, and its place in the stream."""

    output: bytearray
    index: int
    offset: int

    @property
    def value(self) -> int:
        return self.output[self.index]

    def become(self, value: int) -> None:
        self.output[self.index] = value


class Asked(IntEnum):
    """Whether a reply may be the one to an EHLO."""

    NOTHING = 0  #: the client has not spoken yet
    OTHER = 1  #: it has, and no EHLO has passed
    EHLO = 2  #: EHLO was the first thing said, and is not answered
    TOLD = 3  #: and its reply has been read: there is no other
    DOUBT = 4  #: any may be: a server that skips a line, or answers one twice, shifts the count


class Answers(IntEnum):
    """Whether a reply's line may be one of the reply to EHLO."""

    OTHER = 0
    BY_CODE = 1  #: where its code is 250
    ANYHOW = 2  #: whatever it begins with, where it is not the first: the client waits for nothing else


def is_told(number: int) -> bool:
    """Whether the finding of its kind with this number is told: the first ones, then each time it has doubled."""
    first = Limits().findings_told
    return number <= first or number in (first << doubled for doubled in range(1, 32))


class Ended(Exception):  # noqa: N818, no error: an ending
    """The flow has been dropped or reset."""


class Session:
    """Where a dialogue stands. Whoever reads a direction is a subclass."""

    def __init__(self, policy: Policy, apply: bool) -> None:
        self.policy = policy
        self.recovery: Recovery | None = None  # of damage done upstream
        self.apply = apply
        self.gone = False  # the octets have left: they can be followed only
        self.result = Result()
        self.state = State.CONNECT
        self.input = Input.COMMANDS
        self.outstanding = [VERBS[VERB_INDEX["<greeting>"]]]
        self.waiting = 0  # replies to come before the client may go on
        self.impatient = False  # the client did not wait; told once for each reply
        self.held: list[list[Octet]] = []
        self.line: list[Octet] = []
        self.noop_seen = False
        self.body_as_commands = False  # CSCdk46673
        self.after_cr = False
        self.masked_from = 0  # of the command line: what stands behind is masked
        self.cut_told = self.masking = False  # of a line that is too long
        self.reply: list[list[Octet]] = [[]]
        self.tail = b""  # what of the message has been let through, at least its last octets
        self.came = 0  # the last octet of the message as it came
        self.odd: set[str] = set()  # what has been told of this message
        self.all_came = b""  # its last five octets, as they came
        self.text_line = 0  # octets since its last LF
        #: The same, and the header, of a packet's octets as they came; whether a long line has been left in it.
        self.came_line, self.came_head, self.left_long = 0, Head(), False
        self.head = Head()
        self.first_line: bytes | None = None  # the message so far, while it has nothing but dots
        self.data_line = 0
        self.data_cr = False
        self.header = True
        self.reported_line = False
        self.file_names = FileNames(0)
        self.part = Part()  # of the message, where its parts are measured
        self.invalid_recipients = 0
        self.junk_commands = 0  # since the last message that was accepted
        self.most_junk = Limits().junk_commands
        self.recipients = 0
        self.seven_bits = False  # of the mail: a MAIL has said BODY=7BIT, by which some servers clear eighth bits
        self.chunk_left = 0
        self.chunking = False
        self.last_chunk = False
        self.chunk_refused = False  # by the last reply
        self.asked = Asked.NOTHING
        self.answers = Answers.OTHER  # the reply line that is being read
        self.may_hide = False
        self.first_code = 0  # of the reply that is coming in
        self.junk = False  # a line has come that is no reply's, and clients may count as the reply's first
        self.masked = 0  # keywords of the reply that is coming in
        self.came_masked = 0  # the letter that the next one masked upstream has at least
        self.first_opaque = False
        self.hypothetical = False
        self.ignored = False  # not SMTP: nothing more is looked at

    def report(self, name: str, to_server: bool, offset: int, verb: str = "") -> Action:
        """Records a finding; the action to carry out, PASS where nothing is applied."""
        condition = CONDITION_OF.get(name)
        action = On().action(condition.name, Mode.ENFORCE) if condition else self.policy.action(name)
        if action is Action.PASS:
            return action
        self.result.counts[name] += 1
        number = self.result.counts[name]
        if is_told(number):
            self.result.findings.append(
                # A verb that nobody knows may be a secret.
                ModelFinding(
                    name,
                    action,
                    to_server,
                    verb if verb in VERB_INDEX else "",
                    self.state.name.lower(),
                    offset,
                    self.hypothetical,
                    number,
                )
            )
        if name == "reply.ambiguous" and self.recovery:
            self.ignored = True  # what cannot be told from a message is left alone
        if not self.apply:
            self.hypothetical |= action is not Action.LOG
            return Action.PASS
        if action in _ENDING:
            self.result.ended = action
            raise Ended
        return action

    @property
    def holds(self) -> bool:
        """Whether the client is made to wait: not where nothing is applied, or refused."""
        return self.apply and not self.recovery

    def begin_message(self) -> None:
        """What the client says from here on is a message, or TLS."""
        self.tail = b"\r" if self.after_cr else b"." if self.line else b"\r\n"
        self.came, self.odd = CR if self.after_cr else 0, set()
        self.all_came = b"\r" if self.after_cr else b""
        self.text_line, self.head = 0, Head(begun=self.after_cr)
        self.first_line = None if self.line else b""
        self.after_cr = False
        self.line = []
        self.part = Part()
        self.file_names = FileNames(self.policy.data.filename_length or 0)
        self.data_line, self.data_cr, self.header, self.reported_line = 0, False, True, False
        self.first_opaque = True
