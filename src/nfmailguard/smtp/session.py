"""The reference model's state of a dialogue, and its findings.

Promises: findings get their action from the policy and nowhere else. Does not know how either direction is read.
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
#: Commands that begin the SMTP session anew (RFC 5321 4.1.1.1; Postfix, XCLIENT_README).
GREETINGS = ("HELO", "EHLO", "XCLIENT")
_ENDING = (Action.DROP_CONNECTION, Action.RESET)


@dataclass
class Octet:
    """One byte in transit: the output buffer of its turn, its index there, and its offset in the stream."""

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

    NOTHING = 0  #: The client has not sent a command yet.
    OTHER = 1  #: The client has sent commands, but no EHLO has passed.
    EHLO = 2  #: EHLO was the client's first command and has not been answered yet.
    TOLD = 3  #: EHLO was the first command and its reply has been read; no other reply can be EHLO's.
    #: Any reply may be EHLO's: a server that skips a line, or answers one twice, shifts the count of replies.
    DOUBT = 4


class Answers(IntEnum):
    """Whether a reply's line may belong to the reply to EHLO."""

    OTHER = 0
    BY_CODE = 1  #: The line may answer EHLO if its reply code is 250.
    #: The line may answer EHLO whatever its code is, unless it is the first: the client waits for no other reply.
    ANYHOW = 2


def is_told(number: int) -> bool:
    """Whether the ``number``-th finding of a kind is reported: the first ones, then each time the
    number has doubled.
    """
    first = Limits().findings_told
    return number <= first or number in (first << doubled for doubled in range(1, 32))


class Ended(Exception):  # noqa: N818, no error: an ending
    """The flow has been dropped or reset."""


class Session:
    """The state of a dialogue. The classes that read a direction are derived from it."""

    def __init__(self, policy: Policy, apply: bool) -> None:
        self.policy = policy
        # How to undo the damage done by an upstream mail inspection; None: nothing is restored.
        self.recovery: Recovery | None = None
        self.apply = apply
        # True while bytes are parsed that have already been sent on: they can be followed but not changed.
        self.gone = False
        self.result = Result()
        self.state = State.CONNECT
        self.input = Input.COMMANDS
        self.outstanding = [VERBS[VERB_INDEX["<greeting>"]]]
        self.waiting = 0  # Number of replies that must come before the client may send more.
        self.impatient = False  # True once a client that did not wait has been reported; reset with each reply.
        self.held: list[list[Octet]] = []
        self.line: list[Octet] = []
        self.noop_seen = False
        self.body_as_commands = False  # CSCdk46673: message lines are checked as if they were commands.
        self.after_cr = False
        self.masked_from = 0  # Offset in the command line from which on everything is masked.
        # For a line that is too long: whether it has been reported, and whether its rest is being masked.
        self.cut_told = self.masking = False
        self.reply: list[list[Octet]] = [[]]
        self.tail = b""  # The last bytes of the message as sent on (after changes).
        self.came = 0  # The last byte of the message as it arrived (before changes).
        self.odd: set[str] = set()  # Names of the findings already reported for this message (each is reported once).
        self.all_came = b""  # The last five bytes of the message as they arrived (before changes).
        self.text_line = 0  # Bytes of message text since the last LF.
        #: Line length and header of the current packet's bytes as they arrived, before changes; and whether a line end
        #: that servers may read differently was left in a very long line.
        self.came_line, self.came_head, self.left_long = 0, Head(), False
        self.head = Head()
        self.first_line: bytes | None = None  # The message text so far while it consists of dots only; None afterwards.
        self.data_line = 0
        self.data_cr = False
        self.header = True
        self.reported_line = False
        self.file_names = FileNames(0)
        self.part = Part()  # Size of the message's header or body, where the policy limits them.
        self.invalid_recipients = 0
        self.junk_commands = 0  # Commands without effect since the last message that was accepted.
        self.most_junk = Limits().junk_commands
        self.recipients = 0
        # A MAIL command has declared BODY=7BIT, upon which some servers clear the eighth bits of the mail.
        self.seven_bits = False
        self.chunk_left = 0
        self.chunking = False
        self.last_chunk = False
        self.chunk_refused = False  # Whether the last reply refused a BDAT chunk.
        self.asked = Asked.NOTHING
        self.answers = Answers.OTHER  # Whether the reply line that is being read may answer EHLO.
        self.may_hide = False
        self.first_code = 0  # Reply code of the first line of the reply that is being read.
        # A line that is no reply line has come; clients may count it as the first line of the next reply.
        self.junk = False
        self.masked = 0  # Number of keywords masked in the reply that is being read.
        self.came_masked = 0  # Lowest letter (0: A) in which the next keyword masked by an upstream firewall can end.
        self.first_opaque = False
        self.hypothetical = False
        self.ignored = False  # The server does not speak SMTP: the rest of the flow is not examined.

    def report(self, name: str, to_server: bool, offset: int, verb: str = "") -> Action:
        """Records a finding; returns the action to carry out, PASS where nothing is applied."""
        condition = CONDITION_OF.get(name)
        action = On().action(condition.name, Mode.ENFORCE) if condition else self.policy.action(name)
        if action is Action.PASS:
            return action
        self.result.counts[name] += 1
        number = self.result.counts[name]
        if is_told(number):
            self.result.findings.append(
                # A verb outside the table is not shown: it may be a part of a password.
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
            # If a reply may answer a command or the message, restoring stops for the rest of the flow.
            self.ignored = True
        if not self.apply:
            self.hypothetical |= action is not Action.LOG
            return Action.PASS
        if action in _ENDING:
            self.result.ended = action
            raise Ended
        return action

    @property
    def holds(self) -> bool:
        """Whether the client's packets may be held: not where changes are not applied, nor when restoring."""
        return self.apply and not self.recovery

    def begin_message(self) -> None:
        """From here on the client sends a message, or TLS."""
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
