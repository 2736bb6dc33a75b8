"""Beginnings and ends: SYN, RST and FIN that only one of gateway and server sees or accepts.

A gateway that takes a connection for ended, or for another one, stops reading it or reads it from the wrong place
(Ptacek and Newsham on TCB creation and teardown; Handley, Paxson and Kreibich on cold starts and RSTs; Suricata's and
Snort's handshake tests).
"""

from __future__ import annotations

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, Attack, NotTried, Table
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, SYN, URG, Ends, RawTcp

__all__ = ["HANDSHAKE"]

HANDSHAKE = Table("handshake")
technique = HANDSHAKE.technique

#: TCP Fast Open options (RFC 7413 4.1.1): one requests a cookie, the other carries a cookie.
COOKIE_REQUEST, COOKIE = (34, b""), (34, b"\x13\x37" * 4)


def on_syn(attack: Attack, *options: tuple[int, bytes]) -> None:
    """Sends the command in the SYN; without an answer the client connects normally and sends the command then."""
    connection = attack.tcp()
    if not connection.connect(EVIL, options=options, timeout=0.2) and not connection.connect():
        raise NotTried("no connection")
    connection.read()


@technique("syn-data-plain", "the command on the SYN, without a word of Fast Open (RFC 9293 3.4)")
def syn_data_plain(attack: Attack) -> None:
    on_syn(attack)


@technique("syn-data-fast-open", "the command on the SYN with a request for a cookie (RFC 7413)")
def syn_data_fast_open(attack: Attack) -> None:
    on_syn(attack, COOKIE_REQUEST)


@technique("syn-data-cookie", "the command on the SYN with a cookie (RFC 7413)")
def syn_data_cookie(attack: Attack) -> None:
    on_syn(attack, COOKIE)


@technique("syn-data-changed", "a harmless command on a SYN that dies, the other on the SYN that arrives")
def syn_data_changed(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn(HARMLESS, ttl=LOST)
    if not connection.connect(EVIL, options=[COOKIE], timeout=0.2) and not connection.connect():
        raise NotTried("no connection")
    connection.read()


@technique("syn-odd", "the handshake begun with SYN, PSH, URG and ECN's flags together")
def syn_odd(attack: Attack) -> None:
    connection = attack.tcp()
    if not connection.connect(flags=SYN | PSH | URG | 0xC0, urgptr=1):
        raise NotTried("no connection")
    connection.read()
    connection.put(EVIL)


@technique("syn-fin-opening", "SYN and FIN together as the first packet, then a plain SYN on the same ports")
def syn_fin_opening(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn(flags=SYN | FIN)
    attack.wait(0.02)
    connection.established = False
    if not connection.connect():
        raise NotTried("no connection")
    connection.read()
    connection.put(EVIL)


@technique("split-handshake", "the client answers SYN and ACK with its own SYN and ACK, data on it (Beardsley-Qian)")
def split_handshake(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no SYN and ACK")
    connection.put_syn(EVIL, flags=SYN | ACK)
    attack.wait(0.02)
    connection.put(flags=ACK)
    connection.read()


@technique("simultaneous-open", "the client plays a simultaneous open: SYN, then SYN and ACK before the server's")
def simultaneous_open(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn(flags=SYN | ACK)
    connection.put_syn(EVIL)
    connection.put_syn(flags=SYN | ACK)
    if not connection.wait(lambda: connection.established, 0.3):
        connection.connect()
    connection.put(flags=ACK)
    connection.read()
    connection.put(EVIL)


@technique("data-before-answer", "data right behind the SYN, before the server has answered")
def data_before_answer(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    connection.put(EVIL, 0, ack=1)
    connection.wait(lambda: connection.established, 0.5)
    connection.put(flags=ACK)
    connection.read()


@technique("data-on-ack", "the command on the ACK that ends the handshake, before the greeting")
def data_on_ack(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no SYN and ACK")
    connection.put(EVIL)


@technique("rst-in-window", "a RST in the window, not at its edge: servers challenge it (RFC 5961 3.2), then data")
def rst_in_window(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST, at=connection.here + 300)
    connection.put(EVIL)


@technique("rst-outside", "a RST outside the window, which no server believes, then data (Ptacek-Newsham)")
def rst_outside(attack: Attack) -> None:
    connection = attack.session()
    for away in (200_000, -30, 1 << 31):
        connection.stray(flags=RST | ACK, at=connection.here + away)
    connection.put(EVIL)


@technique("rst-checksum", "a RST with a wrong checksum, then data")
def rst_checksum(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST | ACK, chksum=0xBEEF)
    connection.put(EVIL)


@technique("rst-lost", "an exact RST that dies behind the gateway, then data (Ptacek-Newsham; INTANG)")
def rst_lost(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST | ACK, ttl=LOST)
    connection.put(EVIL)


@technique(
    "rst-lost-forgotten",
    "an exact RST that dies; data once the gateway has forgotten the connection (limits.closing, here 0.2 s)",
    options=("--set", "limits.closing=0.2"),
)
def rst_lost_forgotten(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST | ACK, ttl=LOST)
    attack.wait(0.6)
    connection.put(EVIL)


@technique("rst-md5", "an exact RST that is signed: a server without the key drops it (INTANG), then data")
def rst_md5(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST | ACK, options=[(19, bytes(16))])
    connection.put(EVIL)


@technique("rst-lost-reuse", "an exact RST that dies, a SYN whose ISN fits the old stream, then the old stream's data")
def rst_lost_reuse(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=RST | ACK, ttl=LOST)
    connection.stray(flags=SYN, at=connection.here - 1, ack=0, ttl=LOST)
    connection.put(EVIL)


@technique("fin-lost", "a FIN that dies behind the gateway, then data in its place and behind it")
def fin_lost(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(flags=FIN | ACK, ttl=LOST)
    connection.stray(EVIL, connection.here + 1)
    connection.put(EVIL)


@technique("fin-then-data", "a FIN, then data beyond it and over it (RFC 9293 3.6)")
def fin_then_data(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, flags=FIN | PSH | ACK)
    connection.stray(EVIL, connection.here + 1)
    connection.stray(EVIL, start)
    connection.stray(EVIL, connection.here)


@technique("syn-on-open", "a SYN with another ISN on the open connection, data on both (RFC 5961 4.2)")
def syn_on_open(attack: Attack) -> None:
    connection = attack.session()
    other = attack.tcp(connection.ends.port, isn=connection.isn + 50_000_000)
    other.put_syn()
    attack.wait(0.05)
    other.peer_next = connection.peer_next
    other.put(flags=ACK)
    other.stray(EVIL)
    attack.link.connections[connection.ends.port] = connection
    attack.connections.remove(other)
    connection.put(EVIL)


@technique("syn-changed", "two SYNs before the answer, other ISNs; the second one dies behind the gateway")
def syn_changed(attack: Attack) -> None:
    connection = attack.tcp()
    connection.put_syn()
    connection.stray(flags=SYN, at=50_000, ack=0, ttl=LOST)
    if not connection.wait(lambda: connection.established, 0.3):
        return  # The gateway let no reply to the first SYN through: the technique ends here.
    connection.put(flags=ACK)
    connection.read()
    connection.put(EVIL)


@technique("syn-repeated", "the connection's own SYN again, with data on it, then data")
def syn_repeated(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(EVIL, -1, SYN, ack=0)
    connection.stray(b"", -1, SYN, ack=0)
    connection.put(EVIL)


@technique("ports-reused", "a closed connection's ports again at once, out of TIME-WAIT (RFC 9293 3.6.1)")
def ports_reused(attack: Attack) -> None:
    first = attack.session()
    first.say(b"QUIT\r\n")
    if not first.wait(lambda: first.peer_closed, 1.0):
        raise NotTried("the server does not close")
    first.put(flags=FIN | ACK)
    attack.wait(0.05)
    second = attack.session(port=first.ends.port, isn=first.isn + 100_000)
    second.put(EVIL)


@technique("stray-then-syn", "a stray packet makes the gateway know the ports before the connection begins")
def stray_then_syn(attack: Attack) -> None:
    connection = attack.tcp()
    connection.stray(EVIL, 7777, ack=1)
    connection.stray(flags=FIN | ACK, at=9999, ack=1)
    attack.wait(0.02)
    connection.reset = False
    if not connection.connect():
        raise NotTried("no connection")
    connection.read()
    connection.put(EVIL)


def opened_before(attack: Attack) -> RawTcp:
    return attack.session()


@technique(
    "midstream",
    "a connection older than the gateway, spoken on after its grace (Handley-Paxson-Kreibich: cold start)",
    options=("--set", "limits.startup=0.001"),
    before=opened_before,
)
def midstream(attack: Attack) -> None:
    assert attack.early is not None
    attack.early.put(EVIL)


@technique(
    "flow-evicted",
    "a flood of SYNs pushes the new connection out of a small flow table before it is answered",
    options=("--set", "limits.flows=8"),
)
def flow_evicted(attack: Attack) -> None:
    for _ in range(3):
        connection = attack.tcp()
        flood = [RawTcp(attack.link, Ends(attack.source, attack.server, attack.port())) for _ in range(8)]
        packets = [connection.segment(at=-1, flags=SYN, options=[("MSS", 1460)])]
        packets += [one.segment(at=-1, flags=SYN, ttl=LOST) for one in flood]
        # All packets are built first, so that they are sent in one burst.
        for packet in [bytes(packet) for packet in packets]:
            attack.link.send(packet)
        connection.wait(lambda one=connection: one.established or one.reset, 0.3)  # type: ignore[misc]
        connection.put(flags=ACK)
        connection.read(0.2)
        connection.put(EVIL)
        connection.read(0.1)
