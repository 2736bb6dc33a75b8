"""Replies: a client that acknowledges unusually tries to receive what the gateway hides of the server.

Here the client must not receive something: the server's name and software in the greeting, a keyword of the EHLO reply.
It controls the segmentation by its window and the retransmissions by its ACKs.
"""

from __future__ import annotations

from typing import Any

from nfmailguard.lab.evasions.technique import Attack, Table
from nfmailguard.lab.lenient_server import HOST, Personality
from nfmailguard.lab.rawtcp import ACK, RawTcp
from nfmailguard.policy.model import BannerRule

__all__ = ["REPLIES"]

REPLIES = Table("replies")
technique = REPLIES.technique

ASA = ("--profile", "asa")
TLS = Personality(starttls=True, silent_blank=True)


def watched(attack: Attack, **fields: Any) -> RawTcp:
    if attack.policy.banner.rule is not BannerRule.NONE:
        attack.forbidden_to_client += [HOST.partition(".")[2].encode(), b"ESMTP"]
    return attack.connected(**fields)


@technique("banner-plain", "the greeting, read as anybody reads it")
def banner_plain(attack: Attack) -> None:
    watched(attack).read(1.0)


@technique("banner-repeated", "the greeting is not acknowledged: the server repeats it")
def banner_repeated(attack: Attack) -> None:
    watched(attack, acknowledges=False)
    attack.wait(0.5)


@technique("banner-partial-ack", "two octets of the greeting are acknowledged, then five: it comes again from there")
def banner_partial_ack(attack: Attack) -> None:
    connection = watched(attack, acknowledges=False)
    attack.wait(0.05)
    for acknowledged in (2, 5):
        connection.stray(flags=ACK, ack=(connection.peer_isn + 1 + acknowledged) % (1 << 32))
        attack.wait(0.3)


@technique("banner-sliver", "a window of three octets: the greeting comes in slivers")
def banner_sliver(attack: Attack) -> None:
    connection = watched(attack, window=3)
    attack.wait(1.0)
    connection.window = 65535
    connection.put(flags=ACK)
    connection.read()


@technique("banner-ack-beyond", "what has not been said yet is acknowledged; the greeting comes again")
def banner_ack_beyond(attack: Attack) -> None:
    connection = watched(attack, acknowledges=False)
    attack.wait(0.02)
    connection.stray(flags=ACK, ack=(connection.peer_isn + 1 + 2000) % (1 << 32))
    connection.stray(flags=ACK, ack=(connection.peer_isn + 1) % (1 << 32))
    attack.wait(0.4)


@technique("keyword-plain", "the EHLO reply of an ASA, read as anybody reads it", options=ASA, server=TLS)
def keyword_plain(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    attack.session(b"EHLO")


@technique(
    "keyword-drift-blank",
    "blank lines the server never answers shift its replies: which one is EHLO's?",
    options=ASA,
    server=TLS,
)
def keyword_drift_blank(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    connection = attack.opened()
    connection.put(b"\r\n\r\nEHLO evade.example\r\n")
    connection.read()


@technique(
    "keyword-drift-twice",
    "a line longer than the server's buffer is answered twice: its replies run behind",
    options=ASA,
    server=Personality(starttls=True, buffer=256),
)
def keyword_drift_twice(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    connection = attack.opened()
    connection.put(b"NOOP " + b"A" * 400 + b"\r\nEHLO evade.example\r\n")
    connection.read()
    attack.wait(0.05)


@technique("keyword-repeated", "the EHLO reply is not acknowledged and comes again", options=ASA, server=TLS)
def keyword_repeated(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    connection = attack.opened()
    connection.acknowledges = False
    connection.put(b"EHLO evade.example\r\n")
    attack.wait(0.5)


@technique(
    "keyword-drift-behind",
    "a line answered twice, a command before and one behind EHLO: is its reply not the NOOP's?",
    options=ASA,
    server=Personality(starttls=True, buffer=256),
)
def keyword_drift_behind(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    connection = attack.opened()
    connection.put(b"NOOP " + b"A" * 400 + b"\r\nNOOP\r\nEHLO evade.example\r\nNOOP\r\n")
    connection.read()
    attack.wait(0.05)


@technique("keyword-cut", "a window that ends inside the keyword", options=ASA, server=TLS)
def keyword_cut(attack: Attack) -> None:
    attack.forbidden_to_client += [b"STARTTLS"]
    connection = attack.opened()
    connection.window = 101  # The client's receive window ends within the keyword, after "250 STA".
    connection.put(b"EHLO evade.example\r\n")
    connection.wait(lambda: len(connection.text) >= 101, 0.5)
    connection.window = 65535
    connection.put(flags=ACK)
    connection.read()


for _name, _why, _offer in (
    ("code", "a keyword in a line with another code", "250-mx\r\n251-STARTTLS\r\n250 SIZE"),
    ("last-code", "a keyword in the last line, which has another code", "250-mx\r\n250-SIZE\r\n220 STARTTLS"),
    ("no-code", "a keyword in a line without a code", "250-mx\r\nfoo STARTTLS\r\n250 SIZE"),
    ("short-code", "a keyword in a line with two digits", "250-mx\r\n25-STARTTLS\r\n250 SIZE"),
    (
        "behind-junk",
        "the first line is no reply's: the keyword stands in the second",
        "hello\r\n250-STARTTLS\r\n250 SIZE",
    ),
    (
        "behind-tab",
        "a tab behind the code: the last line to us, none to others",
        "250-mx\r\n250\tx\r\n250-STARTTLS\r\n250 DSN",
    ),
    ("refusal", "a refusal that becomes none in its last line", "550-mx\r\n550-no\r\n250-STARTTLS\r\n250 SIZE"),
    ("cr", "a keyword behind a CR alone", "250-mx\r\n250-SIZE 1\r250-STARTTLS\r\n250 DSN"),
):

    def odd_offer(attack: Attack) -> None:
        attack.forbidden_to_client += [b"STARTTLS"]
        connection = attack.opened()
        connection.put(b"EHLO evade.example\r\n")
        connection.read()
        attack.wait(0.05)

    technique(
        f"keyword-odd-{_name}", f"{_why} (Postfix, smtplib take it)", options=ASA, server=Personality(offer=_offer)
    )(odd_offer)
