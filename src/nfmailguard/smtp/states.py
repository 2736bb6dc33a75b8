"""The SMTP session as a table: which reply to which command leads to which state.

Promises: a state changes by ``TRANSITIONS`` and nothing else; a missing key leaves it as it is. The core's arrays and
the reference model are both filled from here. Does not know policies, lines or bytes. RFC 5321 section 4.1.4 and 3.3.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["TAKES_CHUNK", "TRANSITIONS", "State", "next_state"]


class State(IntEnum):
    """The state of a session, judged by the replies that the gateway saw."""

    CONNECT = 0  #: The server has not sent its greeting yet.
    GREETED = 1  #: The greeting 220 has been seen.
    REFUSED = 2  #: The server sent 421 or 554 instead of a greeting.
    READY = 3  #: HELO or EHLO was accepted; no mail has begun.
    MAIL = 4  #: MAIL was accepted.
    RCPT = 5  #: At least one RCPT was accepted.
    DATA = 6  #: 354 was seen: the message is being sent.
    CHUNKS = 7  #: A BDAT chunk was accepted; the message is not complete.
    AUTH = 8  #: 334 was seen: an AUTH exchange is going on.
    TLS = 9  #: 220 in reply to STARTTLS was seen.
    QUIT = 10  #: 221 in reply to QUIT was seen.


#: States in which known servers read what follows a BDAT line as a chunk (RFC 3030 2).
TAKES_CHUNK = (State.RCPT, State.CHUNKS)

#: Session state table: (state, verb, first digit of the reply) -> next state. ``None`` as the state or the verb: any.
#: The greeting's verb is "<greeting>".
TRANSITIONS: dict[tuple[State | None, str | None, int], State] = {
    (State.CONNECT, "<greeting>", 2): State.GREETED,
    (State.CONNECT, "<greeting>", 4): State.REFUSED,
    (State.CONNECT, "<greeting>", 5): State.REFUSED,
    (None, "HELO", 2): State.READY,
    (None, "EHLO", 2): State.READY,
    (None, "RSET", 2): State.READY,
    (None, "MAIL", 2): State.MAIL,
    (None, "SEND", 2): State.MAIL,
    (None, "SOML", 2): State.MAIL,
    (None, "SAML", 2): State.MAIL,
    (State.MAIL, "RCPT", 2): State.RCPT,
    (None, "DATA", 3): State.DATA,
    (None, "<end of data>", 2): State.READY,
    (None, "<end of data>", 4): State.READY,
    (None, "<end of data>", 5): State.READY,
    (State.RCPT, "BDAT", 2): State.CHUNKS,
    (State.RCPT, "BDAT", 4): State.READY,
    (State.RCPT, "BDAT", 5): State.READY,
    # Exim gives up the message after any refusal between its chunks, and reads the next chunk as commands.
    (State.CHUNKS, None, 4): State.READY,
    (State.CHUNKS, None, 5): State.READY,
    (None, "AUTH", 3): State.AUTH,
    (State.AUTH, "AUTH", 2): State.READY,
    (State.AUTH, "AUTH", 4): State.READY,
    (State.AUTH, "AUTH", 5): State.READY,
    (None, "STARTTLS", 2): State.TLS,
    (None, "QUIT", 2): State.QUIT,
}


def next_state(state: State, verb: str, code: int) -> State:
    """The state after ``code`` answered ``verb``; the greeting's verb is ``<greeting>``."""
    digit = code // 100
    for key in ((state, verb, digit), (None, verb, digit), (state, None, digit)):
        if key in TRANSITIONS:
            return TRANSITIONS[key]
    return state
