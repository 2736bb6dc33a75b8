"""Order and repetition: overlaps, gaps, conflicting retransmissions, tiny segments.

Which of two copies a receiver keeps is its own decision (Ptacek and Newsham 1998, "Insertion, Evasion, and Denial of
Service"); a normaliser must leave no choice (Handley, Paxson and Kreibich 2001, "Network Intrusion Detection: Evasion,
Traffic Normalization, and End-to-End Protocol Semantics").
"""

from __future__ import annotations

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, Attack, Table
from nfmailguard.lab.lenient_server import Personality
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, RawTcp

__all__ = ["ORDER"]

ORDER = Table("order")
technique = ORDER.technique

PREFIX = b"NOOP\r\n"
END_AND_EVIL = b"\r\n.\r\n" + EVIL


def withheld(attack: Attack, *segments: tuple[int, bytes]) -> RawTcp:
    """Sends segments after a missing first byte, in the order given; then the missing byte."""
    connection = attack.session()
    start = connection.here
    for place, payload in segments:
        connection.put(payload, start + place)
    attack.wait(0.02)
    connection.put(PREFIX[:1], start)
    return connection


@technique("overlap-same", "both copies wait for one gap: first or last wins (Ptacek-Newsham)")
def overlap_same(attack: Attack) -> None:
    withheld(attack, (1, PREFIX[1:] + HARMLESS), (1, PREFIX[1:] + EVIL))


@technique("overlap-same-old", "as overlap-same, the forbidden copy first: no way round by repeating it clean")
def overlap_same_old(attack: Attack) -> None:
    withheld(attack, (1, PREFIX[1:] + EVIL), (1, PREFIX[1:] + HARMLESS))


@technique("overlap-front", "the later segment covers the front of the earlier one (Ptacek-Newsham; Snort stream5)")
def overlap_front(attack: Attack) -> None:
    withheld(attack, (6, HARMLESS), (1, PREFIX[1:] + EVIL[:4]))


@technique("overlap-back", "the later segment covers the back of the earlier one (Ptacek-Newsham; Snort stream5)")
def overlap_back(attack: Attack) -> None:
    withheld(attack, (1, PREFIX[1:] + HARMLESS[:4]), (6, EVIL))


@technique("overlap-cover", "the later segment covers all of the earlier one and more (Snort stream5)")
def overlap_cover(attack: Attack) -> None:
    withheld(attack, (6, HARMLESS[:4]), (1, PREFIX[1:] + EVIL))


@technique("overlap-inside", "the later segment lies inside the earlier one (Snort stream5)")
def overlap_inside(attack: Attack) -> None:
    withheld(attack, (1, PREFIX[1:] + HARMLESS), (6, EVIL[:4]))


@technique("overlap-chain", "one segment overlaps two that overlap each other (Novak, target-based reassembly)")
def overlap_chain(attack: Attack) -> None:
    withheld(attack, (1, PREFIX[1:] + HARMLESS[:2]), (8, HARMLESS[2:]), (5, b"\n" + EVIL[:6]))


@technique("overlap-in-order", "a segment begins in octets just sent, with others in their place")
def overlap_in_order(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS[:4])
    connection.put(EVIL, start)


@technique("conflict-at-once", "the same place twice before any ACK, other octets (Ptacek-Newsham)")
def conflict_at_once(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS[:-2])
    connection.put(EVIL, start)


@technique("conflict-lost", "the first copy dies behind the gateway (low TTL), the second is different")
def conflict_lost(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, ttl=LOST)
    connection.put(EVIL, start)


@technique("conflict-lost-octets", "as conflict-lost, the second copy in segments of one octet")
def conflict_lost_octets(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, ttl=LOST)
    for place, octet in enumerate(EVIL):
        connection.put(bytes([octet]), start + place)


@technique("conflict-lost-longer", "the second copy begins before and ends behind the lost one")
def conflict_lost_longer(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(PREFIX[:3])
    connection.put(PREFIX[3:] + HARMLESS[:4], start + 3, ttl=LOST)
    connection.put(PREFIX + EVIL, start)


@technique("conflict-lost-text", "message text dies behind the gateway; instead of it comes the end of data")
def conflict_lost_text(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"a line of nothing but text".ljust(len(END_AND_EVIL))[: len(END_AND_EVIL)], ttl=LOST)
    connection.put(END_AND_EVIL, start)


@technique("acked-rewritten", "octets the server has acknowledged again, as others (Handley-Paxson-Kreibich)")
def acked_rewritten(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.say(HARMLESS)
    connection.put(EVIL, start)
    connection.put(PREFIX)


@technique("acked-and-new", "a segment begins in acknowledged octets, as others, and goes on with new ones")
def acked_and_new(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.say(HARMLESS)
    connection.put(EVIL + EVIL, start)


@technique("octets-in-order", "one octet a segment (fragroute tcp_seg 1)")
def octets_in_order(attack: Attack) -> None:
    attack.session().put_each(EVIL)


@technique("octets-backwards", "one octet a segment, the last one first")
def octets_backwards(attack: Attack) -> None:
    attack.session().put_each(EVIL, backwards=True)


@technique("octets-twice", "one octet a segment, each with a false twin of other content before it, lost behind")
def octets_twice(attack: Attack) -> None:
    connection = attack.session()
    for place, octet in enumerate(EVIL, connection.here):
        connection.put(HARMLESS[place % 4 : place % 4 + 1], place, ttl=LOST)
        connection.put(bytes([octet]), place)


@technique("text-filler-last", "in message text the end of data and a command go ahead of the segment before them")
def text_filler_last(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(END_AND_EVIL, start + 5)
    attack.wait(0.02)
    connection.put(b"hello", start)


@technique("text-end-split", "the end of data lies in two segments, the second with the command goes ahead")
def text_end_split(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"\r\n" + EVIL, start + 8)
    attack.wait(0.02)
    connection.put(b"hello\r\n.", start)


@technique("text-octets-backwards", "text, end of data and command, one octet a segment, the last one first")
def text_octets_backwards(attack: Attack) -> None:
    attack.text().put_each(b"hello" + END_AND_EVIL, backwards=True)


@technique("text-ahead-replaced", "a clean segment ahead of a gap dies behind the gateway, another takes its place")
def text_ahead_replaced(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"a line of nothing but text"[: len(END_AND_EVIL)].ljust(len(END_AND_EVIL)), start + 5, ttl=LOST)
    connection.put(END_AND_EVIL, start + 5)
    connection.put(b"hello", start)
    attack.wait(0.05)
    connection.put(END_AND_EVIL, start + 5)


@technique("text-ahead-overlapped", "two segments ahead of a gap overlap; the server keeps one, the gateway another")
def text_ahead_overlapped(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"text text text text text\r\n", start + 20)
    connection.put(b"more text\r\n.\r\n" + EVIL, start + 5)
    connection.put(b"hello", start)


@technique("text-ahead-rewritten", "a gap filler reaches into octets that have gone ahead, with others in their place")
def text_ahead_rewritten(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"text text text text text\r\n", start + 5, ttl=LOST)
    connection.put(b"hello" + END_AND_EVIL, start)


def behind_text(attack: Attack, filler: bytes, *, close: bytes = b"") -> None:
    """A command is sent early, while message text is expected; then the text ends before it, with
    ``filler`` in between.
    """
    connection = attack.text()
    start, text = connection.here, b"hello\r\n.\r\n"
    place = start + len(text) + len(filler)
    connection.put(EVIL, place)
    attack.wait(0.02)
    connection.put(text, start)
    attack.wait(0.02)
    connection.put(filler + close, start + len(text))


@technique("text-ahead-commands", "a command goes ahead while text is read, and is reached when commands are")
def text_ahead_commands(attack: Attack) -> None:
    behind_text(attack, b"NOOP\r\n" * 5)


@technique("text-ahead-covered", "as text-ahead-commands; what closes the gap covers the command with a harmless one")
def text_ahead_covered(attack: Attack) -> None:
    behind_text(attack, b"NOOP\r\n" * 5, close=HARMLESS)


@technique("text-ahead-data", "as text-ahead-commands; a DATA that the server refuses leads up to it")
def text_ahead_data(attack: Attack) -> None:
    behind_text(attack, b"DATA\r\n")


@technique("text-ahead-many", "300 gaps in message text, more than limits.pending_segments, then end and command")
def text_ahead_many(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    for number in range(300):
        connection.stray(b"x", start + 40 + 2 * number)
        if number % 16 == 15:
            attack.link.dispatch(0.001)
    connection.put(b"hello" + END_AND_EVIL, start)


@technique(
    "held-expired",
    "a harmless segment ahead of a gap is held until it expires (limits.held, here 0.2 s), then another comes",
    options=("--set", "limits.held=0.2"),
)
def held_expired(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, start + len(PREFIX))
    attack.wait(0.5)
    connection.put(EVIL, start + len(PREFIX))
    connection.put(PREFIX, start)


@technique("gap-reset", "a gap that is never filled, then a RST, then the filler (Suricata stream-tcp tests)")
def gap_reset(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(EVIL, start + len(PREFIX))
    connection.put(at=start + 3, flags=RST | ACK)
    connection.put(PREFIX, start)


@technique("gap-fin", "a FIN ahead of a gap, with octets beyond it, then the filler")
def gap_fin(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(EVIL, start + len(PREFIX), FIN | PSH | ACK)
    connection.stray(EVIL, start + len(PREFIX) + len(EVIL) + 1)
    connection.put(PREFIX, start)


@technique("fin-moved", "a FIN dies behind the gateway, a later one too; data up to the later one")
def fin_moved(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.stray(at=start, flags=FIN | ACK, ttl=LOST)
    connection.stray(at=start + len(EVIL), flags=FIN | ACK, ttl=LOST)
    connection.put(EVIL, start)


@technique("wrap", "the sequence number passes 2^32 inside the verb")
def wrap(attack: Attack) -> None:
    hello = len(b"HELO evade.example\r\n")
    connection = attack.session(isn=(1 << 32) - hello - 3)
    connection.put_each(EVIL, 2)


@technique("wrap-conflict", "a conflicting copy across the wrap, the first one lost behind the gateway")
def wrap_conflict(attack: Attack) -> None:
    hello = len(b"HELO evade.example\r\n")
    connection = attack.session(isn=(1 << 32) - hello - len(PREFIX) - 3)
    start = connection.here
    connection.put(HARMLESS, start + len(PREFIX), ttl=LOST)
    connection.put(EVIL, start + len(PREFIX))
    connection.put(PREFIX, start)


@technique("beyond-window", "data far beyond the window, and 2^31 away, where comparisons turn round")
def beyond_window(attack: Attack) -> None:
    connection = attack.session()
    for far in (100_000, 1 << 26, (1 << 31) - 1, 1 << 31, (1 << 32) - 100_000):
        connection.stray(EVIL, connection.here + far)
    connection.put(EVIL)


@technique("keep-alive", "a keep-alive with an octet of garbage in place of the last one, then one that goes on")
def keep_alive(attack: Attack) -> None:
    connection = attack.session()
    connection.say(HARMLESS)
    connection.stray(b"E", connection.here - 1)
    connection.stray(b"", connection.here - 1, ACK)
    connection.put(b"\n" + EVIL, connection.here - 1)


@technique(
    "zero-window",
    "a server out of memory discards text; once its window opens, other octets come in their place",
    server=Personality(stalled=0.3),
)
def zero_window(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    line, evil = b"some text\r\n", b".\r\nTURN r\r\n"
    assert len(line) == len(evil)
    for _ in range(70):
        connection.put(line * 127)
        attack.link.dispatch(0.0)
    for octet in b"XY":  # Window probes: one byte each, just beyond the server's window.
        connection.stray(bytes([octet]))
    attack.wait(0.4)
    place = (connection.acknowledged - connection.isn - 1) % (1 << 32)
    for at in range(place, min(place + 14_000, connection.here), 1397):
        connection.put(bytes(evil[(at + i - start) % len(evil)] for i in range(1397)), at)
        attack.link.dispatch(0.0)


@technique("text-sliver", "message text in segments of three octets, every second one sent before the first")
def text_sliver(attack: Attack) -> None:
    connection = attack.text()
    octets, start = b"hello" + END_AND_EVIL + b"QUIT\r\n", connection.here
    places = [*range(3, len(octets), 6), *range(0, len(octets), 6)]
    for place in places:
        connection.put(octets[place : place + 3], start + place)
        attack.link.dispatch(0.0)
