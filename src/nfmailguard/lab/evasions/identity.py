"""Connection identity: the gateway takes two connections of a server for one.

A segment that the gateway decides and the server drops makes their sequence numbers differ; a RST at the server's
number then ends the connection at the server but not at the gateway. From the same port, with the same ISN, and with
SYN cookies the same ISN of the server, the next connection looks like a retransmission of the first: what its server
reads as commands was decided as text. Linux computes a cookie from addresses, ports and the minute, and adds the
client's ISN (RFC 4987 3.6; net/ipv4/syncookies.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfmailguard.lab.evasions.technique import EVIL, LOST, Attack, NotTried, Table
from nfmailguard.lab.lenient_server import Personality
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, SYN, RawTcp
from nfmailguard.policy.model import BannerRule

__all__ = ["ALWAYS_REFUSED", "IDENTITY", "IPV6_REFUSED", "lines", "passed", "speak_again"]

IDENTITY = Table("identity")
technique = IDENTITY.technique

#: Text in a segment that the gateway inspects and the server's kernel drops.
APART = b"text that never was\r\n"
#: Bytes of payload sent in one packet.
SEGMENT = 1200
MD5, AUTHENTICATION = (19, bytes(16)), (29, bytes(14))
TLS_PROFILE = ("--profile", "asa-tls")
TLS = Personality(starttls=True)
#: A word of the server's greeting that occurs in none of its other replies.
SOFTWARE = b"ESMTP"

Refused = Callable[[RawTcp, bytes], None]


def lines(length: int) -> bytes:
    """So many bytes of an allowed command without its line end; several commands if one would be too long.

    OpenSMTPD disconnects a client that does not wait for replies.
    """
    if length <= 400:
        return b"NOOP ".ljust(length, b"x")[:length]
    return (b"NOOP\r\n" * (length // 6 + 1))[:length]


def speak_again(attack: Attack, new: RawTcp, acknowledged: int, decided: int, command: bytes = EVIL) -> None:
    """Sends over the part of the stream that the gateway has decided already, and after it a denied command."""
    if not new.established:
        return
    attack.wait(0.03)
    filler = lines(decided)
    for start, stop in ((0, acknowledged), (acknowledged, decided)):
        for place in range(start, stop, SEGMENT):
            new.put(filler[place : min(stop, place + SEGMENT)], place)
            if place % (16 * SEGMENT) == start % (16 * SEGMENT):
                attack.wait(0.01)
    new.put(b"\r\n", decided)
    attack.wait(0.03)  # Some servers close the connection on a client that does not wait for a reply.
    new.put(command, decided + 2)
    attack.wait(0.05)


def denied(attack: Attack, line: bytes) -> bool:
    return line.split()[0].decode() not in attack.policy.commands.allow


def carried(**fields: Any) -> Refused:
    """A function that sends bytes in a segment with these fields."""

    def send(connection: RawTcp, octets: bytes) -> None:
        connection.stray(octets, **fields)

    return send


def behind(layers: Callable[[], Any]) -> Refused:
    """A function that sends bytes after these IPv6 headers."""

    def send(connection: RawTcp, octets: bytes) -> None:
        connection.stray(octets, extensions=layers())

    return send


def old_timestamp(connection: RawTcp, octets: bytes) -> None:
    connection.stray(
        octets, options=[("NOP", None), ("NOP", None), ("Timestamp", ((connection.clock - 99_999) % (1 << 32), 0))]
    )


def destination_options(*options: tuple[int, bytes]) -> Callable[[], Any]:
    """A function that makes a header with options of these types (RFC 8200 4.2 and 4.6)."""

    def layers() -> Any:
        from scapy.layers.inet6 import HBHOptUnknown, IPv6ExtHdrDestOpt

        return IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=kind, optdata=octets) for kind, octets in options])

    return layers


def routing(kind: int) -> Callable[[], Any]:
    def layers() -> Any:
        from scapy.layers.inet6 import IPv6ExtHdrRouting

        return IPv6ExtHdrRouting(type=kind, addresses=["fd25:2::9"], segleft=1)

    return layers


def late_hop_by_hop() -> Any:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN

    pad = [PadN(optdata=b"\0" * 4)]
    return IPv6ExtHdrDestOpt(options=pad) / IPv6ExtHdrHopByHop(options=pad)


#: Segments that a server's kernel always drops: name -> (why it drops them, function that sends them).
ALWAYS_REFUSED: dict[str, tuple[str, Refused]] = {
    "md5": ("a signature (RFC 2385) nobody asked for", carried(options=[MD5])),
    "md5-twice": ("two signatures (RFC 2385)", carried(options=[MD5, MD5])),
    "md5-short": ("a signature of the wrong length (RFC 2385)", carried(options=[(19, bytes(6))])),
    "ao": ("an authentication option (RFC 5925), where the kernel has it", carried(options=[AUTHENTICATION])),
    "ao-short": ("an authentication option (RFC 5925) without room for its ids", carried(options=[(29, b"")])),
    "ao-md5": ("two kinds of signature (RFC 5925 2.2)", carried(options=[AUTHENTICATION, MD5])),
    "lost": ("a TTL that ends behind the gateway", carried(ttl=LOST)),
    "no-ack": ("no ACK flag (RFC 9293 3.10.7.4)", carried(flags=PSH)),
    "syn-flag": ("a SYN flag in the middle (RFC 5961 4.2)", carried(flags=SYN | PSH | ACK)),
    "checksum": ("a wrong checksum", carried(chksum=0xBEEF)),
    "ack-high": ("an ACK of what the server has not said (RFC 9293 3.10.7.4)", carried(ack=0)),
}
IPV6_REFUSED: dict[str, tuple[str, Refused]] = {
    "option-01": (
        "an unknown destination option: discard (RFC 8200 4.2)",
        behind(destination_options((0x5E, b"abcd"))),
    ),
    "option-10": ("an unknown destination option: tell and discard", behind(destination_options((0x9E, b"abcd")))),
    "option-11": ("an unknown option: discard, tell if no multicast", behind(destination_options((0xDE, b"abcd")))),
    "option-home": (
        "a home address (RFC 6275) to a host without mobility",
        behind(destination_options((0xC9, bytes(16)))),
    ),
    "option-pad": ("padding that is not zero", behind(destination_options((1, b"\0\1\2\3")))),
    "option-many": ("more options than Linux takes (8)", behind(destination_options(*[(0x1E, b"")] * 10))),
    "routing": ("a routing header with a segment left", behind(routing(0))),
    "routing-unknown": ("an unknown routing header with a segment left (RFC 8200 4.4)", behind(routing(77))),
    "hop-by-hop-late": ("a hop-by-hop header that is not the first", behind(late_hop_by_hop)),
}


def separated(send: Refused, octets: bytes = APART, **fields: Any) -> Callable[[Attack], RawTcp]:
    """A session in message text in which the gateway is ``octets`` ahead of the server."""

    def run(attack: Attack) -> RawTcp:
        connection = attack.text(**fields)
        send(connection, octets)
        attack.wait(0.02)
        return connection

    return run


def repeated(begin: Callable[[Attack], RawTcp], octets: bytes = APART, **fields: Any) -> Callable[[Attack], None]:
    """A technique: the two get apart, a RST at the server's number, and the same connection again."""

    def run(attack: Attack) -> None:
        attack.press()
        old = begin(attack)
        old.stray(flags=RST, at=old.here)
        attack.wait(0.01)
        speak_again(attack, attack.again(old, **fields), old.here, old.here + len(octets))

    return run


for _name, (_why, _send) in ALWAYS_REFUSED.items():
    technique(f"again-{_name}", f"text the server drops for {_why}; RST at its number; the same connection again")(
        repeated(separated(_send))
    )
for _name, (_why, _send) in IPV6_REFUSED.items():
    technique(f"again-{_name}", f"text the server drops for {_why}; RST at its number; the same again", families=(6,))(
        repeated(separated(_send))
    )
technique(
    "again-timestamp", "text that fails PAWS (RFC 7323 5); RST at the server's number; the same connection again"
)(repeated(separated(old_timestamp, timestamps=True), timestamps=True))


@technique("again-put-back", "the text the server never got is the command: will the gateway put it back?")
def again_put_back(attack: Attack) -> None:
    octets = b"\r\n" + EVIL
    repeated(separated(carried(options=[MD5]), octets), octets)(attack)


@technique("again-ack-rst", "as again-md5, the RST with an ACK on it")
def again_ack_rst(attack: Attack) -> None:
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=RST | ACK, at=old.here)
    speak_again(attack, attack.again(old), old.here, old.here + len(APART))


@technique("again-fin", "as again-md5, with a FIN at the server's number in place of the RST")
def again_fin(attack: Attack) -> None:
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=FIN | ACK)
    old.wait(lambda: old.peer_closed, 0.3)
    old.stray(flags=ACK, at=old.here + 1)
    speak_again(attack, attack.again(old), old.here, old.here + len(APART))


@technique("again-challenged", "as again-md5; a SYN draws a challenge ACK (RFC 5961 4.2), its number is the RST's")
def again_challenged(attack: Attack) -> None:
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=SYN, at=old.here + 40, ack=0)
    attack.wait(0.05)
    old.stray(flags=RST, at=(old.acknowledged - old.isn - 1) % (1 << 32))
    speak_again(attack, attack.again(old), old.here, old.here + len(APART))


@technique("again-edge", "a segment ahead of a gap; a RST at its end, which Linux takes (tcp_reset at the SACK's edge)")
def again_edge(attack: Attack) -> None:
    attack.press()
    options = [("WScale", 7), ("SAckOK", b"")]
    old = attack.tcp(timestamps=True)
    if not old.connect(timeout=4.0, options=options) or not old.read(4.0).startswith(b"220"):
        raise NotTried("no connection")
    for line in (b"HELO x\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n"):
        old.say(line, 4.0)
    old.stray(APART, old.here + 8)
    attack.wait(0.02)
    old.stray(flags=RST, at=old.here + 8 + len(APART))
    old.reset = True
    attack.press()
    new = attack.tcp(old.ends.port, isn=old.isn, timestamps=True, clock=old.clock + 1000)
    new.connect(options=options, timeout=0.3)
    attack.compare(old, new)
    speak_again(attack, new, old.here, old.here + 8 + len(APART))


@technique(
    "again-unread",
    "text in slivers to a program that does not read: Linux drops what it has no room for; RST at its number; again",
    server=Personality(stalled=1.5),
)
def again_unread(attack: Attack) -> None:
    attack.press()
    old = attack.text()
    old.put(b"Subject: x\r\n\r\n")
    attack.wait(0.05)
    for number in range(1000):
        old.put(b"xxx")  # Data without a line end: the server must not answer it on the next connection.
        if number % 16 == 15:
            attack.wait(0.002)
    attack.wait(0.05)
    place = (old.acknowledged - old.isn - 1) % (1 << 32)
    attack.notes.append(f"the server lacks {old.here - place} octets")
    old.stray(flags=RST, at=place)
    speak_again(attack, attack.again(old), place, old.here)


@technique("again-behind-ahead", "the text went ahead of a gap and was refused; RST at the server's number; again")
def again_behind_ahead(attack: Attack) -> None:
    attack.press()
    old = attack.text()
    old.stray(APART, old.here + 4, options=[MD5])
    attack.wait(0.02)
    old.stray(flags=RST)
    speak_again(attack, attack.again(old), old.here, old.here + 4 + len(APART))


@technique("again-exact", "in the midst of text both agree on a RST; the same connection again, its commands as text")
def again_exact(attack: Attack) -> None:
    attack.press()
    old = attack.text()
    old.stray(flags=RST)
    speak_again(attack, attack.again(old), old.here, old.here)


@technique("again-executed", "as again-md5, with what servers carry out: EXPN, EHLO, VRFY, whichever is denied")
def again_executed(attack: Attack) -> None:
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=RST)
    verbs = [verb for verb in (b"EXPN root", b"EHLO x", b"VRFY root", b"TURN") if denied(attack, verb)]
    new = attack.again(old)
    speak_again(attack, new, old.here, old.here + len(APART), verbs[0] + b"\r\n")
    for verb in verbs[1:] if new.established else ():
        new.put(verb + b"\r\n")
        attack.wait(0.05)


@technique("again-keywords", "as again-md5, for EHLO's keywords and the greeting behind what was decided")
def again_keywords(attack: Attack) -> None:
    attack.forbidden_to_client += [SOFTWARE] if attack.policy.banner.rule is not BannerRule.NONE else []
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=RST)
    new = attack.again(old)
    if new.established:
        place = old.here + len(APART)
        speak_again(attack, new, old.here, place)
        new.put(b"EHLO x\r\n" * 3)
        attack.wait(0.05)


# Section: connections without a SYN: the client's first packet is a bare ACK with a SYN cookie.


def after_rst(attack: Attack, place: int | None = None) -> RawTcp:
    old = attack.text()
    old.stray(flags=RST, at=place)
    return old


@technique("no-syn-rst", "text, an exact RST; the cookie once more begins a connection without a SYN")
def no_syn_rst(attack: Attack) -> None:
    attack.press()
    old = after_rst(attack)
    speak_again(attack, attack.without_syn(old), old.here, old.here)


@technique("no-syn-rst-md5", "text the server drops, RST at its number; the cookie again, no SYN")
def no_syn_rst_md5(attack: Attack) -> None:
    attack.press()
    old = separated(carried(options=[MD5]))(attack)
    old.stray(flags=RST)
    speak_again(attack, attack.without_syn(old), old.here, old.here + len(APART))


@technique("no-syn-place", "the cookie for an ISN that puts the first octet behind the old text: nothing to talk over")
def no_syn_place(attack: Attack) -> None:
    attack.press()
    old = after_rst(attack)
    new = attack.without_syn(old, old.isn + old.here)
    attack.wait(0.05)
    new.put(EVIL)


@technique("no-syn-far", "the cookie for an ISN far away from the old connection's")
def no_syn_far(attack: Attack) -> None:
    attack.press()
    old = after_rst(attack)
    new = attack.without_syn(old, old.isn + 50_000_000)
    attack.wait(0.05)
    new.put(EVIL)


@technique("no-syn-quit", "QUIT, both close; the cookie once more, no SYN")
def no_syn_quit(attack: Attack) -> None:
    attack.press()
    old = attack.session()
    old.say(b"QUIT\r\n")
    old.wait(lambda: old.peer_closed, 1.0)
    old.put(flags=FIN | ACK)
    attack.wait(0.02)
    old.stray(flags=RST, at=old.here + 1)  # A RST that ends the server's TIME-WAIT state early (RFC 1337).
    speak_again(attack, attack.without_syn(old), old.here, old.here)


@technique("no-syn-half-closed", "the server has closed, we have not; a RST ends it there; the cookie again, no SYN")
def no_syn_half_closed(attack: Attack) -> None:
    attack.press()
    old = attack.session()
    old.say(b"QUIT\r\n")
    old.wait(lambda: old.peer_closed, 1.0)
    old.stray(flags=RST)
    speak_again(attack, attack.without_syn(old), old.here, old.here)


@technique(
    "no-syn-forgotten",
    "the cookie once more, no SYN, once the gateway has forgotten the connection (limits.closing, here 0.2 s)",
    options=("--set", "limits.closing=0.2", "--set", "limits.startup=0.001"),
)
def no_syn_forgotten(attack: Attack) -> None:
    attack.press()
    old = after_rst(attack)
    attack.wait(0.6)
    new = attack.without_syn(old, old.isn + 1000)
    attack.wait(0.05)
    new.put(EVIL)


# Section: the same techniques on a flow that the gateway no longer inspects.


def passed(attack: Attack) -> RawTcp:
    """A connection of which the gateway follows only the sequence numbers: TLS has begun."""
    connection = attack.session(b"EHLO")
    if not connection.say(b"STARTTLS\r\n", 4.0).startswith(b"220"):
        raise NotTried("no STARTTLS")
    connection.put(b"\x16")
    attack.wait(0.02)
    if attack.policy.banner.rule is not BannerRule.NONE:
        attack.forbidden_to_client += [SOFTWARE]
    return connection


def plain_dialogue(attack: Attack, new: RawTcp) -> None:
    """A dialogue that neither side may send through the gateway."""
    if not new.established:
        return
    attack.wait(0.03)
    for line in (b"EHLO evade.example\r\n", EVIL, EVIL):
        new.put(line)
        attack.wait(0.02)


def passed_again(send: Callable[[RawTcp], None], isn: int = 0, *, syn: bool = True) -> Callable[[Attack], None]:
    def run(attack: Attack) -> None:
        attack.press()
        old = passed(attack)
        send(old)
        attack.wait(0.01)
        old.stray(flags=RST)
        attack.wait(0.01)
        begin = attack.again if syn else attack.without_syn
        plain_dialogue(attack, begin(old, old.isn + isn))

    return run


def far(connection: RawTcp) -> None:
    connection.stray(b"x", connection.here + 1_000_000)


def nothing(connection: RawTcp) -> None:
    pass


def signed(connection: RawTcp) -> None:
    connection.stray(b"x" * 100, options=[MD5])


def far_fin(connection: RawTcp) -> None:
    connection.stray(b"x", connection.here + 1_000_000, FIN | ACK)


def below(connection: RawTcp) -> None:
    connection.stray(b"x", connection.here - (1 << 30))


for _name, _why, _moves, _how in (
    ("far", "an octet far out of the window; RST at the server's number; the same connection again", far, {}),
    ("signed", "octets the server drops; RST at its number; the same connection again", signed, {}),
    ("far-fin", "a FIN far out of the window; RST at the server's number; the same connection again", far_fin, {}),
    ("below", "an octet far below the window; RST at the server's number; the same connection again", below, {}),
    ("exact", "an exact RST; the same connection again", nothing, {}),
    ("other", "an octet far out of the window; RST; the port again, another ISN", far, {"isn": 70_000}),
    ("no-syn", "an octet far out of the window; RST; the cookie again, no SYN", far, {"syn": False}),
    ("no-syn-exact", "an exact RST; the cookie again, no SYN", nothing, {"syn": False}),
    ("no-syn-other", "an exact RST; the cookie for another ISN, no SYN", nothing, {"syn": False, "isn": 900}),
):
    technique(f"passed-{_name}", f"behind STARTTLS: {_why}", options=TLS_PROFILE, server=TLS)(
        passed_again(_moves, **_how)
    )
