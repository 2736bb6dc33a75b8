"""Headers: what a gateway accepts and a server refuses, or the other way round.

Each first copy here is one that the server's kernel drops, for a checksum, an option, a flag or an ACK; a gateway that
took it as received would let the second copy's bytes pass unexamined (Ptacek and Newsham's insertion; SniffJoke's and
INTANG's insertion packets).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, LOST, Attack, Table
from nfmailguard.lab.rawtcp import ACK, FIN, PSH, RST, SYN, URG

__all__ = ["HEADERS"]

HEADERS = Table("headers")
technique = HEADERS.technique

MD5_OPTION = (19, bytes(16))


def refused(**fields: Any) -> Callable[[Attack], None]:
    """A technique: a harmless first copy with a header that no server accepts, then the other copy."""

    def run(attack: Attack) -> None:
        connection = attack.session()
        start = connection.here
        connection.put(HARMLESS, start, **fields)
        connection.put(EVIL, start)

    return run


technique("checksum-bad", "the first copy's TCP checksum is wrong: no server takes it (Ptacek-Newsham)")(
    refused(chksum=0xBEEF)
)
technique("checksum-zero", "the first copy has no TCP checksum: 0, which UDP alone allows")(refused(chksum=0))
technique("no-ack-flag", "the first copy has no ACK: servers drop it (RFC 9293 3.10.7.4; Ptacek-Newsham)")(
    refused(flags=PSH)
)
technique("null-flags", "the first copy has no flag at all")(refused(flags=0))
technique("syn-fin", "the first copy has SYN and FIN")(refused(flags=SYN | FIN | PSH | ACK))
technique("syn-data", "the first copy has SYN and ACK in an open connection")(refused(flags=SYN | PSH | ACK))
technique("md5-option", "the first copy is signed (RFC 2385): a server without the key drops it (INTANG)")(
    refused(options=[MD5_OPTION])
)
technique("ttl-at-gateway", "the first copy's TTL ends at the gateway, which never sees it")(refused(ttl=1))


@technique("ack-too-old", "the first copy's ACK lies 2^30 back: servers drop it (RFC 5961 5.2)")
def ack_too_old(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, start, ack=(connection.peer_next - (1 << 30)) % (1 << 32))
    connection.put(EVIL, start)


@technique("ack-too-high", "the first copy acknowledges what the server has not said yet (Ptacek-Newsham)")
def ack_too_high(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(HARMLESS, start, ack=(connection.peer_next + 100_000) % (1 << 32))
    connection.put(EVIL, start)


@technique("ip-checksum-bad", "the first copy's IPv4 header checksum is wrong", families=(4,))
def ip_checksum_bad(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    packet = connection.segment(HARMLESS)
    packet.chksum = 0xBEEF
    connection.note(packet, HARMLESS, start)
    attack.link.send(bytes(packet))
    connection.put(EVIL, start)


@technique("checksum-bad-only", "the forbidden copy alone, its checksum wrong: nobody may take it")
def checksum_bad_only(attack: Attack) -> None:
    connection = attack.session()
    connection.stray(EVIL, chksum=0xBEEF)
    connection.put(HARMLESS)


@technique("flags-each", "the forbidden command under every mix of SYN, FIN, RST, URG and none (xmas, null)")
def flags_each(attack: Attack) -> None:
    for flags in (SYN | FIN, FIN | PSH | URG, 0, SYN | RST, SYN | ACK | RST, FIN | SYN | RST | PSH | ACK | URG, URG):
        connection = attack.session()
        connection.put(EVIL, flags=flags, ack=connection.peer_next, urgptr=3)


@technique("reserved-bits", "the forbidden command with all reserved bits, ECE and CWR set")
def reserved_bits(attack: Attack) -> None:
    connection = attack.session()
    connection.put(EVIL, flags=PSH | ACK | 0xC0, reserved=7)


@technique("offset-small", "a TCP header shorter than itself: data offset 4")
def offset_small(attack: Attack) -> None:
    connection = attack.session()
    connection.put(EVIL, dataofs=4)


@technique("offset-large", "a TCP header longer than its packet: data offset 15")
def offset_large(attack: Attack) -> None:
    connection = attack.session()
    connection.put(EVIL, dataofs=15)


@technique("options-broken", "TCP options of length 0 and beyond the header: the payload stands where the offset says")
def options_broken(attack: Attack) -> None:
    connection = attack.session()
    for area in (b"\x08\x00\x00\x00", b"\xfe\x28\x00\x00", b"\x02\x01\x05\xb4"):
        start = connection.here
        packet = connection.segment(area + EVIL, dataofs=6)
        connection.note(packet, EVIL, start)
        attack.link.send(bytes(packet))
        attack.wait(0.02)


@technique("payload-behind-offset", "the option area holds a harmless line, the payload another")
def payload_behind_offset(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    area = b"\x01" + HARMLESS  # The TCP option area: a NOP option, then bytes that are an unknown option.
    packet = connection.segment(area + EVIL, dataofs=8)
    connection.note(packet, EVIL, start)
    attack.link.send(bytes(packet))


@technique("timestamp-old", "the first copy's timestamp is old: PAWS drops it (RFC 7323 5.3), then another copy")
def timestamp_old(attack: Attack) -> None:
    connection = attack.session(timestamps=True)
    start = connection.here
    connection.put(HARMLESS, start, options=[("NOP", None), ("NOP", None), ("Timestamp", (connection.clock - 9999, 0))])
    connection.put(EVIL, start)


@technique("timestamp-old-second", "the second, forbidden copy has the old timestamp; the first died on the way")
def timestamp_old_second(attack: Attack) -> None:
    connection = attack.session(timestamps=True)
    start = connection.here
    connection.put(HARMLESS, start, ttl=LOST)
    connection.put(EVIL, start, options=[("NOP", None), ("NOP", None), ("Timestamp", (connection.clock - 9999, 0))])


@technique("timestamp-none", "the first copy leaves out the timestamp that was agreed on (RFC 7323 3.2)")
def timestamp_none(attack: Attack) -> None:
    connection = attack.session(timestamps=True)
    start = connection.here
    connection.timestamps = False
    connection.put(HARMLESS[:-2], start)
    connection.timestamps = True
    connection.put(EVIL, start)


@technique("urgent-in-verb", "an urgent octet inside the verb is taken out of the stream (RFC 6093; Ptacek-Newsham)")
def urgent_in_verb(attack: Attack) -> None:
    connection = attack.session()
    connection.put(b"TUARN root\r\n", flags=PSH | ACK | URG, urgptr=3)


@technique("urgent-ahead", "the urgent pointer comes first, in a segment of its own, the octet later")
def urgent_ahead(attack: Attack) -> None:
    connection = attack.session()
    connection.put(flags=ACK | URG, urgptr=3)
    connection.put(b"TU")
    connection.put(b"ARN root\r\n")


@technique("urgent-across", "the urgent pointer of one segment points into the next; each end of the verb in one")
def urgent_across(attack: Attack) -> None:
    connection = attack.session()
    connection.put(b"TU", flags=PSH | ACK | URG, urgptr=3)
    connection.put(b"ARN root\r\n", flags=PSH | ACK | URG, urgptr=0xFFFF)
    attack.wait(0.02)
    connection.put(EVIL, flags=PSH | ACK | URG, urgptr=0)


@technique("urgent-in-text", "an urgent octet between the dot and its line end in message text, ahead of a gap")
def urgent_in_text(attack: Attack) -> None:
    connection = attack.text()
    start = connection.here
    connection.put(b"\r\n.A\r\n" + EVIL, start + 5, PSH | ACK | URG, urgptr=4)
    attack.wait(0.02)
    connection.put(b"hello", start)


@technique("urgent-conflict", "the first copy with its urgent octet dies behind the gateway, the second has none")
def urgent_conflict(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    connection.put(b"TUARN root\r\n", start, PSH | ACK | URG, urgptr=3, ttl=LOST)
    connection.put(EVIL, start)
