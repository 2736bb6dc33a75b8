"""The SMTP verbs as a table, RFC by RFC: what a reply to each one changes.

Promises: data only. The core's C arrays and the reference model are both filled
from ``VERBS``; to teach the engine a verb, add a row. Does not know which verbs a
policy allows.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

__all__ = ["CUTS", "LONGEST_LINE", "LONGEST_PARAMETERS", "VERBS", "VERB_INDEX", "Argument", "Input", "Verb"]

#: Longest command line in bytes, without its CRLF, that every server reads as one line. RFC 5321 4.5.3.1.4 has 510; ASA
#: takes 512 (S-ASA13), and in the two bytes more no server can read a verb.
LONGEST_LINE = 512
#: Longest command line in bytes with ESMTP parameters: older Postfix, older Exim and sendmail give up a line at 2048.
#: RFC 3461 5.4 and RFC 4954 5 add at most 500 octets per parameter.
LONGEST_PARAMETERS = 2000
#: Most bytes of an AUTH line, or of its base64 answer, that are examined: the maximum of RFC 4954 4, with a margin.
_SECRET = 1 << 14
#: Positions in a long line where a server may begin to read another line: after as many bytes as a known server reads
#: at once (RFC 5321 4.5.3.1.4; buffers of Exim, sendmail and older Postfix), from two fewer to one more, and multiples.
CUTS = frozenset(
    begin
    for size in (512, 998, 1000, 1024, 2048, 4096, 8192)
    for piece in range(size - 2, size + 2)
    for begin in range(piece, _SECRET, piece)
)


class Input(IntEnum):
    """How the client's next bytes are to be read."""

    COMMANDS = 0
    DATA = 1  #: Message text until CRLF "." CRLF (RFC 5321 4.5.2).
    CHUNK = 2  #: Bytes of a BDAT chunk, counted (RFC 3030).
    SASL = 3  #: The answer to an AUTH challenge: one base64 line each (RFC 4954).
    OPAQUE = 4  #: TLS, or a flow that is no longer examined.


class Argument(IntEnum):
    """What the core examines in the argument after the verb."""

    #: Argument not examined and not shown in events: behind any verb may be an AUTH line masked upstream, or a URL's
    #: password.
    IGNORED = 0
    SENDER = 1  #: Argument is MAIL FROM:<...>.
    RECIPIENT = 2  #: Argument is RCPT TO:<...>.
    CHUNK_SIZE = 3  #: Argument is BDAT <size> [LAST].
    SECRET = 4  #: Argument is a secret (AUTH): never shown in an event.
    SHOWN = 5  #: Argument is not examined, is no secret, and may be shown in an event.


class Verb(msgspec.Struct, frozen=True):
    """One verb.

    ``waits``: after this verb, if it is allowed, nothing more of the client is passed on until the server has answered
    (RFC 5321 4.1.1.4 DATA, RFC 3207 STARTTLS, RFC 4954 AUTH). ``long``: its line may be longer than 512 bytes, because
    of the parameters of extensions (RFC 5321 4.5.3.1.4). ``continues`` is the intermediate reply code that changes how
    the client's next bytes are read; ``reads``: how they are read then.
    """

    name: str
    source: str
    argument: Argument = Argument.IGNORED
    waits: bool = False
    long: bool = False
    continues: int = 0
    reads: Input = Input.COMMANDS


#: All verbs; the index is the verb's number in the core. Entry 0 stands for every verb that is not in the table, and is
#: also what a masked command leaves in the queue of outstanding commands.
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
    # "." is no verb, but a line of message text that looks like one to code that takes message lines for commands:
    Verb(".", "RFC 5321 4.1.1.4"),
    # These are no verbs either, but entries in the queue of outstanding commands, each answered by a reply:
    Verb("<masked>", "a denied command whose refusal is hidden (commands.unknown = ok)"),
    Verb("<end of data>", "RFC 5321 4.1.1.4: the reply to the message"),
    Verb("<empty>", "an empty command line"),
    Verb("<greeting>", "RFC 5321 4.3.1: the connection itself, answered by the greeting"),
)

VERB_INDEX = {verb.name: index for index, verb in enumerate(VERBS)}
