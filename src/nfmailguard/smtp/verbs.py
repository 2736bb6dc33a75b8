"""The SMTP verbs as a table, RFC by RFC: what a reply to each one changes.

Promises: data only. The core's C arrays and the reference model are both filled
from ``VERBS``; to teach the engine a verb, add a row. Does not know which verbs a
policy allows.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

__all__ = ["CUTS", "LONGEST_LINE", "LONGEST_PARAMETERS", "VERBS", "VERB_INDEX", "Argument", "Input", "Verb"]

#: Octets of a line, without its CRLF, that every server reads as one. RFC 5321 4.5.3.1.4 has 510; ASA takes 512
#: (S-ASA13), and of two octets more no server can read a verb.
LONGEST_LINE = 512
#: The same of a line with parameters: older Postfix, older Exim and sendmail give it up at 2048. RFC 3461 5.4
#: and RFC 4954 5 add at most 500 octets a parameter.
LONGEST_PARAMETERS = 2000
#: Bytes of a line with a secret that we look at: the most RFC 4954 4 has, with room.
_SECRET = 1 << 14
#: Where in a line a server may find the beginning of another: behind as many bytes as one is known to read at
#: once (RFC 5321 4.5.3.1.4; Exim's, sendmail's and older Postfix' buffers), two fewer to one more, and again.
CUTS = frozenset(
    begin
    for size in (512, 998, 1000, 1024, 2048, 4096, 8192)
    for piece in range(size - 2, size + 2)
    for begin in range(piece, _SECRET, piece)
)


class Input(IntEnum):
    """How the client's next bytes are to be read."""

    COMMANDS = 0
    DATA = 1  #: message text until CRLF.CRLF (RFC 5321 4.5.2)
    CHUNK = 2  #: BDAT octets, counted (RFC 3030)
    SASL = 3  #: one base64 line a challenge (RFC 4954)
    OPAQUE = 4  #: TLS, or a flow that is no longer looked at


class Argument(IntEnum):
    """What the core looks at behind the verb."""

    IGNORED = 0  #: and not shown: whoever masked AUTH, or a URL's password, may have put it behind any verb
    SENDER = 1  #: MAIL FROM:<...>
    RECIPIENT = 2  #: RCPT TO:<...>
    CHUNK_SIZE = 3  #: BDAT <size> [LAST]
    SECRET = 4  #: never shown in an event
    SHOWN = 5  #: not looked at either, and no secret


class Verb(msgspec.Struct, frozen=True):
    """One verb.

    ``waits``: after an allowed one nothing more of the client goes out until the
    server has answered (RFC 5321 4.1.1.4 DATA, RFC 3207 STARTTLS, RFC 4954 AUTH).
    ``long``: its line may be longer than 512 octets, by the parameters of extensions (RFC 5321 4.5.3.1.4).
    ``continues`` is the intermediate reply code that changes how the client's
    next bytes are read, ``reads`` how.
    """

    name: str
    source: str
    argument: Argument = Argument.IGNORED
    waits: bool = False
    long: bool = False
    continues: int = 0
    reads: Input = Input.COMMANDS


#: The index is the verb's number in the core; 0 is every verb that is not in the table,
#: and the entry a masked command leaves in the queue of outstanding commands.
VERBS: tuple[Verb, ...] = (
    Verb("", "unknown or masked"),
    Verb("HELO", "RFC 5321 4.1.1.1", argument=Argument.SHOWN),
    Verb("EHLO", "RFC 5321 4.1.1.1", argument=Argument.SHOWN),
    Verb("MAIL", "RFC 5321 4.1.1.2", argument=Argument.SENDER, long=True),
    Verb("RCPT", "RFC 5321 4.1.1.3", argument=Argument.RECIPIENT, long=True),
    Verb("DATA", "RFC 5321 4.1.1.4", waits=True, continues=354, reads=Input.DATA),
    Verb("RSET", "RFC 5321 4.1.1.5"),
    Verb("VRFY", "RFC 5321 4.1.1.6", argument=Argument.SHOWN),
    Verb("EXPN", "RFC 5321 4.1.1.7", argument=Argument.SHOWN),
    Verb("HELP", "RFC 5321 4.1.1.8"),
    Verb("NOOP", "RFC 5321 4.1.1.9"),
    Verb("QUIT", "RFC 5321 4.1.1.10"),
    Verb("STARTTLS", "RFC 3207 4", waits=True, continues=220, reads=Input.OPAQUE),
    Verb("AUTH", "RFC 4954 4", argument=Argument.SECRET, waits=True, continues=334, reads=Input.SASL),
    Verb("BDAT", "RFC 3030 2", argument=Argument.CHUNK_SIZE),
    Verb("ETRN", "RFC 1985 3", argument=Argument.SHOWN),
    Verb("SEND", "RFC 821 4.1.1", argument=Argument.SENDER),
    Verb("SOML", "RFC 821 4.1.1", argument=Argument.SENDER),
    Verb("SAML", "RFC 821 4.1.1", argument=Argument.SENDER),
    Verb("TURN", "RFC 821 4.1.1"),
    Verb("ATRN", "RFC 2645 5.2"),
    Verb("ONEX", "sendmail"),
    Verb("VERB", "sendmail"),
    Verb("XCLIENT", "Postfix XCLIENT_README", waits=True),
    Verb("XFORWARD", "Postfix XFORWARD_README"),
    Verb("BURL", "RFC 4468 3", long=True),
    Verb("X-EXPS", "Exchange AUTH", argument=Argument.SECRET, waits=True, continues=334, reads=Input.SASL),
    # No verb, but what a line of a message looks like to who takes it for a command:
    Verb(".", "RFC 5321 4.1.1.4"),
    # Nor are these, but entries in the queue of outstanding commands that a reply answers:
    Verb("<masked>", "a denied command whose refusal is hidden (commands.unknown = ok)"),
    Verb("<end of data>", "RFC 5321 4.1.1.4: the reply to the message"),
    Verb("<empty>", "an empty command line"),
    Verb("<greeting>", "RFC 5321 4.3.1: the connection itself, answered by the greeting"),
)

VERB_INDEX = {verb.name: index for index, verb in enumerate(VERBS)}
