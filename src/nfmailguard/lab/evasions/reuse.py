"""Reused ports, and connection beginnings that gateway and server see differently.

A gateway that distinguishes an old connection from a new one by sequence numbers can be given numbers that fit both
(RFC 9293 3.4.1 and 3.6.1, RFC 6191; RFC 5961 4; Linux' SYN cookies keep window scaling and SACK in the timestamp, so an
ACK without one loses them, net/ipv4/syncookies.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfmailguard.lab.evasions.identity import MD5, lines, speak_again
from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, PATIENCE, Attack, NotTried, Table
from nfmailguard.lab.lenient_server import Personality
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, SYN, RawTcp

__all__ = ["CONFUSION", "REUSE"]

REUSE = Table("reuse")
CONFUSION = Table("confusion")

SCALE, SACK = ("WScale", 7), ("SAckOK", b"")


def closed(attack: Attack, *, ours: bool, theirs: bool) -> RawTcp:
    """A session ended by FINs: of both sides, or of one."""
    connection = attack.session()
    if theirs:
        connection.say(b"QUIT\r\n")
        if not connection.wait(lambda: connection.peer_closed, 1.0):
            raise NotTried("the server does not close")
    if ours:
        connection.put(flags=FIN | ACK)
        attack.wait(0.03)
    return connection


def reset(attack: Attack) -> RawTcp:
    connection = attack.text()
    connection.stray(flags=RST)
    return connection


def both(attack: Attack) -> RawTcp:
    return closed(attack, ours=True, theirs=True)


def server_alone(attack: Attack) -> RawTcp:
    """The server in FIN-WAIT-2, which a SYN does not disturb and a RST ends."""
    return closed(attack, ours=False, theirs=True)


def server_alone_reset(attack: Attack) -> RawTcp:
    connection = closed(attack, ours=False, theirs=True)
    connection.stray(flags=RST)
    return connection


def client_first(attack: Attack) -> RawTcp:
    """A session ended in the middle of text by the client's FIN; the server waits for nothing."""
    connection = attack.text()
    connection.stray(flags=FIN | ACK)
    connection.wait(lambda: connection.peer_closed, 1.0)
    connection.stray(flags=ACK, at=connection.here + 1)
    return connection


def port_again(begin: Callable[[Attack], RawTcp], isn: Callable[[RawTcp], int]) -> Callable[[Attack], None]:
    """A technique: the same port again with an ISN derived from the old connection; data over the old places, then the
    command.
    """

    def run(attack: Attack) -> None:
        attack.press()
        old = begin(attack)
        attack.wait(0.02)
        chosen = isn(old)
        new = attack.again(old, chosen)
        known = (old.isn + old.here - chosen) % (1 << 32)
        speak_again(attack, new, 0, known if known < 5000 else 0)

    return run


def same(old: RawTcp) -> int:
    return old.isn


def behind(old: RawTcp) -> int:
    """An ISN with which the new connection's first byte follows the old connection's last."""
    return old.isn + old.here


def just_behind(old: RawTcp) -> int:
    return old.isn + old.here + 3


def half_way(old: RawTcp) -> int:
    """An ISN with which the new connection's first bytes overlap the old connection's."""
    return old.isn + old.here // 2


def below(old: RawTcp) -> int:
    return old.isn - 100


def other(old: RawTcp) -> int:
    return old.isn + 77_000_000


for _when, _begin, _isns in (
    ("rst", reset, (same, behind, half_way, below, other)),
    ("fins", both, (same, behind, just_behind, other)),
    ("server-fin", server_alone, (same, just_behind)),
    ("server-fin-rst", server_alone_reset, (same, behind, other)),
    ("client-fin", client_first, (same, just_behind, other)),
):
    _words = {
        "rst": "behind an exact RST in message text",
        "fins": "out of TIME-WAIT, both have closed",
        "server-fin": "the server in FIN-WAIT-2",
        "server-fin-rst": "the server has closed, a RST ends it",
        "client-fin": "a FIN in message text, both closed",
    }[_when]
    for _isn in _isns:
        _which = {
            "same": "the same ISN",
            "behind": "the ISN that puts new octets behind the old",
            "just_behind": "the ISN that puts new octets behind the FIN",
            "half_way": "an ISN that puts new octets on the old",
            "below": "an ISN just below the old",
            "other": "another ISN",
        }[_isn.__name__]
        REUSE.technique(f"port-{_when}-{_isn.__name__.replace('_', '-')}", f"the port again, {_words}: {_which}")(
            port_again(_begin, _isn)
        )


@REUSE.technique("port-thrice", "the same port and ISN three times, each ended by a RST in message text, then commands")
def port_thrice(attack: Attack) -> None:
    attack.press()
    old = attack.text()
    for _ in range(2):
        old.stray(flags=RST)
        new = attack.again(old)
        if not new.established:
            return
        attack.wait(0.03)
        new.put(lines(old.here))
        attack.wait(0.03)
    old.stray(flags=RST)
    speak_again(attack, attack.again(old), 0, old.here)


@REUSE.technique("port-two-flows", "two connections in message text swap ports' ISNs behind RSTs")
def port_two_flows(attack: Attack) -> None:
    attack.press()
    first, second = attack.text(), attack.text(isn=9_000_000)
    first.stray(flags=RST)
    second.stray(flags=RST)
    for old, isn in ((first, second.isn), (second, first.isn)):
        speak_again(attack, attack.again(old, isn), 0, old.here)


# Section: two SYNs with different beginnings for one pair of ports.


def two_syns(
    distance: int,
    *,
    first: tuple[Any, ...] = (),
    second: tuple[Any, ...] = (),
    complete: int = 1,
    payload: bytes = EVIL,
) -> Callable[[Attack], None]:
    """A technique: two SYNs before any answer is accepted, then one of the two handshakes is completed."""

    def run(attack: Attack) -> None:
        attack.press()
        one = attack.tcp()
        one.put_syn(options=first)
        if not one.wait(lambda: one.established, 1.0):
            raise NotTried("no answer to the SYN")
        two = attack.tcp(one.ends.port, isn=(one.isn + distance) % (1 << 32))
        two.put_syn(options=second)
        two.wait(lambda: two.established, 0.1)
        chosen, given_up = (one, two) if complete == 1 else (two, one)
        given_up.reset = True
        attack.link.connections[chosen.ends.port] = chosen
        if not chosen.established:
            return
        chosen.put(flags=ACK)
        attack.wait(0.05)
        # A few bytes before and across the stream's beginning: a receiver that uses one SYN's sequence number reads
        # them, with the other's it does not.
        chosen.stray(b"NOOP ", -5)
        attack.wait(0.01)
        chosen.put(payload)
        attack.wait(0.05)

    return run


for _name, _why, _how in (
    ("near-first", "the second SYN's ISN 10 below, the first handshake finished", {"distance": -10}),
    ("near-second", "the second SYN's ISN 10 below, the second handshake finished", {"distance": -10, "complete": 2}),
    ("above-first", "the second SYN's ISN 3 above, the first handshake finished", {"distance": 3}),
    ("above-second", "the second SYN's ISN 3 above, the second handshake finished", {"distance": 3, "complete": 2}),
    ("far-first", "the second SYN's ISN far away, the first handshake finished", {"distance": 40_000_000}),
    ("far-second", "the second SYN's ISN far away, the second finished", {"distance": 40_000_000, "complete": 2}),
    ("scale", "window scaling in the first SYN alone, its handshake finished", {"distance": 0, "first": (SCALE,)}),
    ("scale-second", "window scaling in the second SYN alone", {"distance": 5, "second": (SCALE,), "complete": 2}),
    (
        "timestamp",
        "timestamps in the first SYN alone",
        {"distance": 5, "first": (("Timestamp", (5_000_000, 0)),), "complete": 2},
    ),
    ("md5", "the second SYN signed: the server drops it", {"distance": -5, "second": (MD5,)}),
):
    CONFUSION.technique(f"two-syns-{_name}", f"two SYNs: {_why}")(two_syns(**_how))


@CONFUSION.technique(
    "syn-ack-repeated", "the SYN again and again: its answer is repeated, then ACK and command at once"
)
def syn_ack_repeated(attack: Attack) -> None:
    connection = attack.tcp()
    for _ in range(4):
        connection.put_syn()
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no answer to the SYN")
    connection.put(flags=ACK)
    connection.put_syn()
    connection.put(EVIL, 0)
    attack.wait(0.1)


@CONFUSION.technique(
    "ack-signed", "the ACK of the handshake is signed, and a line; then the real ACK, another line there"
)
def ack_signed(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no answer to the SYN")
    connection.stray(flags=ACK, options=[MD5])
    connection.stray(HARMLESS, 0, options=[MD5])
    attack.wait(0.02)
    connection.put(flags=ACK)
    attack.wait(0.05)
    connection.put(EVIL, 0)
    attack.wait(0.05)


@CONFUSION.technique("ack-signed-other", "the second SYN's handshake is finished by a signed ACK, the first's in truth")
def ack_signed_other(attack: Attack) -> None:
    attack.press()
    one = attack.tcp()
    one.put_syn()
    if not one.wait(lambda: one.established, 1.0):
        raise NotTried("no answer to the SYN")
    two = attack.tcp(one.ends.port, isn=one.isn - 5)
    two.put_syn()
    two.wait(lambda: two.established, 0.1)
    if two.established:
        two.stray(flags=ACK, options=[MD5])
        two.stray(b"NOOP ", 0, options=[MD5])
    two.reset = True
    attack.link.connections[one.ends.port] = one
    attack.wait(0.02)
    one.put(flags=ACK)
    attack.wait(0.05)
    one.put(EVIL)
    attack.wait(0.05)


def without_timestamps(attack: Attack, *, scale: int) -> RawTcp:
    """A SYN cookie handshake with timestamps and scaling, but an ACK without: Linux then forgets both."""
    attack.press()
    connection = attack.tcp(timestamps=True)
    connection.put_syn(options=[("WScale", scale), SACK])
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no answer to the SYN")
    connection.timestamps = False
    connection.put(flags=ACK)
    connection.read(PATIENCE)
    return connection


@CONFUSION.technique(
    "options-forgotten", "timestamps and window scaling agreed, the ACK without them, then the command"
)
def options_forgotten(attack: Attack) -> None:
    connection = without_timestamps(attack, scale=7)
    connection.put(EVIL)
    attack.wait(0.05)


@CONFUSION.technique(
    "window-unscaled",
    "as options-forgotten: text beyond the window the server means; RST at its number; the same again",
    server=Personality(stalled=1.5),
)
def window_unscaled(attack: Attack) -> None:
    old = without_timestamps(attack, scale=7)
    for line in (b"HELO x\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\n"):
        old.say(line, 0.3)
    for number in range(100):
        old.put(b"x" * 1200)  # Data without a line end: the server must not answer it on the next connection.
        if number % 8 == 7:
            attack.wait(0.002)
    attack.wait(0.05)
    place = (old.acknowledged - old.isn - 1) % (1 << 32)
    attack.notes.append(f"the server lacks {old.here - place} octets")
    old.stray(flags=RST, at=place)
    old.reset = True
    attack.press()
    new = attack.tcp(old.ends.port, isn=old.isn, timestamps=True, clock=old.clock + 5)
    new.put_syn(options=[("WScale", 7), SACK])
    new.wait(lambda: new.established, 0.3)
    attack.compare(old, new)
    new.timestamps = False
    if new.established:
        new.put(flags=ACK)
        speak_again(attack, new, place, old.here)


@CONFUSION.technique("timestamp-dropped", "timestamps agreed, left out of a line and its other copy (RFC 7323 3.2)")
def timestamp_dropped(attack: Attack) -> None:
    connection = attack.session(timestamps=True)
    start = connection.here
    connection.stray(HARMLESS, start, options=[("Timestamp", (1, 0))])
    connection.timestamps = False
    connection.put(EVIL, start)
    attack.wait(0.05)


@CONFUSION.technique("timestamp-wrap", "a line whose timestamp is half a turn ahead, then others that are old to it")
def timestamp_wrap(attack: Attack) -> None:
    connection = attack.session(timestamps=True)
    start = connection.here
    ahead = (connection.clock + (1 << 31) - 5) % (1 << 32)
    connection.stray(HARMLESS, start + 3000, options=[("NOP", None), ("NOP", None), ("Timestamp", (ahead, 0))])
    connection.stray(HARMLESS, start, options=[("NOP", None), ("NOP", None), ("Timestamp", (ahead + 9, 0))], ttl=LOST)
    connection.put(EVIL, start)
    attack.wait(0.05)


@CONFUSION.technique("syn-signed", "a signed SYN the server drops, then a plain one with another ISN and its dialogue")
def syn_signed(attack: Attack) -> None:
    first = attack.tcp()
    first.put_syn(options=[MD5])
    attack.wait(0.02)
    first.reset = True
    second = attack.tcp(first.ends.port, isn=first.isn + 30)
    if not second.connect():
        return
    second.read()
    second.stray(HARMLESS, 0, options=[MD5])
    second.put(EVIL, 0)
    attack.wait(0.05)


@CONFUSION.technique(
    "rst-in-handshake", "a RST with the SYN's number ends the half-open connection; then its ACK all the same"
)
def rst_in_handshake(attack: Attack) -> None:
    attack.press()
    connection = attack.tcp()
    connection.put_syn()
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no answer to the SYN")
    connection.stray(flags=RST, at=0)
    attack.wait(0.02)
    connection.put(flags=PSH | ACK)
    attack.wait(0.05)
    connection.put(EVIL, 0)
    attack.wait(0.05)


@CONFUSION.technique(
    "syn-closes", "a SYN on an open connection in text, its ISN in the window; a RST as challenged; again"
)
def syn_closes(attack: Attack) -> None:
    attack.press()
    old = attack.text()
    old.stray(flags=SYN, at=old.here + 10, ack=0)
    attack.wait(0.05)
    old.stray(flags=RST)
    new = attack.again(old, old.isn + old.here + 10)
    speak_again(attack, new, 0, 0)
