"""Forged packets: the client also plays the server, from its own side of the gateway.

What the gateway believes about the server decides how it reads the client: a 354 begins message text, an ACK empties
the store that retransmissions are compared with (Handley, Paxson and Kreibich on the state a normaliser holds). It can
also be made to hold too much.
"""

from __future__ import annotations

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, Attack, NotTried, Table
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, SYN, RawTcp

__all__ = ["OFF_PATH"]

OFF_PATH = Table("beside")
technique = OFF_PATH.technique

GREETING = b"220 mail.example.com\r\n"
OK, GO_ON = b"250 ok\r\n", b"354 go on\r\n"
DIALOGUE = ((b"HELO x\r\n", OK), (b"MAIL FROM:<a@b.c>\r\n", OK), (b"RCPT TO:<d@e.f>\r\n", OK), (b"DATA\r\n", GO_ON))


@technique("forged-354", "DATA that the server refuses, and a 354 in its name from the client's side")
def forged_354(attack: Attack) -> None:
    connection = attack.session()
    # The TTL ends between gateway and server: the server's real reply to DATA must not come before the forged one.
    connection.put(b"DATA\r\n", ttl=LOST)
    attack.wait(0.02)
    attack.forge(connection, GO_ON)
    attack.wait(0.02)
    connection.put(EVIL)
    attack.wait(0.02)
    connection.put(b"DATA\r\n", connection.here - len(EVIL) - 6)


@technique("forged-ack", "an ACK in the server's name empties the store; the octets lost behind it come as others")
def forged_ack(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, ttl=LOST)
    attack.wait(0.02)
    attack.forge(connection, flags=ACK)
    attack.wait(0.02)
    connection.put(EVIL, start)


@technique("forged-reply", "replies in the server's name make the gateway count past what was asked")
def forged_reply(attack: Attack) -> None:
    connection = attack.session()
    attack.forge(connection, OK * 3)
    connection.put(b"DATA\r\n")
    attack.forge(connection, GO_ON, seq=connection.peer_next + len(OK) * 3)
    attack.wait(0.02)
    connection.put(EVIL)


@technique("forged-syn-ack", "a SYN and ACK in the server's name comes before the real one, another ISN in it")
def forged_syn_ack(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn(ttl=LOST)
    attack.forge(connection, flags=SYN | ACK, seq=77_000_000, ack=connection.sequence(0))
    attack.wait(0.02)
    if not connection.connect():
        return  # No connection was established, so nothing got past the gateway.
    connection.read()
    connection.put(EVIL)


@technique("forged-rst", "RST and FIN in the server's name from the client's side, then data")
def forged_rst(attack: Attack) -> None:
    connection = attack.session()
    attack.forge(connection, flags=RST | ACK)
    attack.forge(connection, flags=FIN | ACK)
    attack.wait(0.02)
    connection.put(EVIL)


def play_both(attack: Attack, connection: RawTcp, place: int) -> None:
    """Plays a whole dialogue up to 354 of which the real server sees nothing; it ends at ``place`` of the connection.

    The client's lines are lost behind the gateway; the server's come from the client's side.
    """
    said = sum(len(line) for line, _ in DIALOGUE)
    answered = len(GREETING) + sum(len(reply) for _, reply in DIALOGUE)
    seq = (connection.peer_next - answered) % (1 << 32)
    connection.stray(flags=SYN, at=place - said - 1, ack=0, ttl=LOST)
    attack.wait(0.01)
    attack.forge(connection, flags=SYN | ACK, seq=seq - 1, ack=connection.sequence(place - said))
    attack.wait(0.01)
    connection.stray(flags=ACK, at=place - said, ack=seq, ttl=LOST)
    attack.wait(0.01)
    attack.forge(connection, GREETING, seq=seq, ack=connection.sequence(place - said))
    attack.wait(0.01)
    at, seq = place - said, seq + len(GREETING)
    for line, reply in DIALOGUE:
        connection.stray(line, at, ack=seq % (1 << 32), ttl=LOST)
        at += len(line)
        attack.wait(0.01)
        attack.forge(connection, reply, seq=seq % (1 << 32), ack=connection.sequence(at))
        seq += len(reply)
        attack.wait(0.01)


def imagine(attack: Attack, seconds: float) -> None:
    """A RST that is lost behind the gateway; ``seconds`` later a dialogue up to 354 that only the gateway sees."""
    connection = attack.session()
    text = connection.here
    connection.stray(flags=RST | ACK, ttl=LOST)
    attack.wait(seconds)
    play_both(attack, connection, text)
    connection.put(EVIL, text)


@technique(
    "imagined-dialogue", "a RST that dies; then a dialogue up to 354 that only the gateway sees, both sides ours"
)
def imagined_dialogue(attack: Attack) -> None:
    imagine(attack, 0.02)


@technique(
    "imagined-forgotten",
    "as imagined-dialogue, once the gateway has forgotten the connection (limits.closing, here 0.2 s)",
    options=("--set", "limits.closing=0.2", "--set", "limits.startup=0.001"),
)
def imagined_forgotten(attack: Attack) -> None:
    imagine(attack, 0.6)


@technique("imagined-beginning", "as imagined-dialogue, before the real SYN: the gateway knows the ports already")
def imagined_beginning(attack: Attack) -> None:
    connection = attack.tcp()
    connection.peer_next = 88_000_000
    play_both(attack, connection, 0)
    connection.peer_next = 0
    if not connection.connect():
        return  # The gateway let no reply through, so no connection was established.
    connection.read()
    connection.put(EVIL)


@technique("imagined-reopening", "as imagined-dialogue, on a connection that is open: its own SYN, both sides ours")
def imagined_reopening(attack: Attack) -> None:
    connection = attack.session()
    text = connection.here
    play_both(attack, connection, text)
    connection.put(EVIL, text)


def flood_of_early_segments(attack: Attack, connections: int, each: int) -> None:
    """Segments that each wait for a gap, sent slowly enough that the queue itself does not overflow."""
    sessions = [attack.session() for _ in range(connections)]
    for connection in sessions:
        for number in range(each):
            connection.stray(b"x", connection.here + 2 + 2 * number)
            if number % 16 == 15:
                attack.link.dispatch(0.001)
    victim = attack.session()
    victim.put(EVIL[:6])
    victim.put(EVIL[6:])
    victim.read(0.2)
    for connection in sessions:
        connection.stray(flags=RST | ACK)


@technique("held-flood", "1,200 segments that wait for gaps, to fill the queue with held packets")
def held_flood(attack: Attack) -> None:
    flood_of_early_segments(attack, 6, 200)


@technique(
    "held-flood-fail-open",
    "the same where a full queue lets packets pass uninspected (on.queue_full = pass), queue.length 512",
    options=("--set", "on.queue_full=pass", "--set", "queue.length=512"),
)
def held_flood_fail_open(attack: Attack) -> None:
    flood_of_early_segments(attack, 4, 150)


@technique("pending-flood", "one connection with more gaps than limits.pending_segments, then the command")
def pending_flood(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    for number in range(300):
        connection.stray(b"x", start + 40 + 2 * number)
        if number % 16 == 15:
            attack.link.dispatch(0.001)
    connection.put(EVIL, start, PSH | ACK)
    if connection.reset:
        raise NotTried("reset before the command")


@technique("source-port-25", "both ports are 25: which end is the server? A SYN in the server's name comes on top")
def source_port_25(attack: Attack) -> None:
    try:
        connection = attack.session(port=25)
    except NotTried:
        return  # A SYN from source port 25 opens no flow, so there is no connection in whose name to forge packets.
    attack.forge(connection, flags=SYN, seq=55_000_000)
    attack.wait(0.02)
    connection.put(EVIL)


@technique(
    "memory-flood",
    "text that dies behind the gateway fills its store (limits.memory, here 256 KiB): does honest mail suffer?",
    options=("--set", "limits.memory=262144"),
)
def memory_flood(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    for number in range(300):
        connection.stray(b"some text\r\n" * 127, start + 1397 * number, ttl=LOST)
        if number % 16 == 15:
            attack.link.dispatch(0.001)
    connection.put(b"\r\n.\r\n" + EVIL)
