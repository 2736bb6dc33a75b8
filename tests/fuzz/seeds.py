"""The first inputs: whole mails, known attacks and plain configurations, from which fuzzing sets out.

Does not know what fuzzing has found since; that is the corpus.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from nfmailguard.policy.load import profile_names, profile_text
from tests.fuzz.build import ROOT
from tests.fuzz.settings import SETTINGS
from tests.support.captures import ETHERNET, RAW, framed, mail, pcap, pcapng
from tests.support.dialogue import CLIENTS, SERVERS
from tests.support.wire import ACK, FIN, PSH, RST, SYN, URG, build

#: Kinds of a script's actions, and tokens (harness/streams.pyx, harness/tokens.h).
CLIENT_SAYS, SERVER_SAYS, CLIENT_PLACES, SERVER_ACKNOWLEDGES, CLIENT_SIGNALS = 0, 1, 4, 8, 9
TIME, SPLITS, CLIENT_SYN, BATCH, FORGED = 11, 12, 13, 14, 15
HELO, EHLO, MAIL, RCPT, DATA, QUIT, STARTTLS, AUTH, TEXT, END = 0, 1, 2, 3, 4, 7, 8, 10, 19, 20
SHAPES = (22, 23, 24, 25, 56)  # ends of data that some servers take
FORGED_354 = 12
LOST = 64
_HONEST, _DISHONEST, _FOUR_FLOWS = 0, 4, 7 << 3


def packets() -> Iterator[bytes]:
    def prefixed(packet: bytes, options: bytes = b"\0") -> bytes:
        return options + struct.pack("<H", len(packet)) + packet

    for setting in range(len(SETTINGS)):
        for family in (4, 6):
            whole = [packet for _, packet in mail(family).packets]
            yield bytes([setting]) + b"".join(prefixed(packet) for packet in whole[:8])
            yield bytes([setting]) + prefixed(whole[3])
            ends = CLIENTS[family], SERVERS[family]
            for flags in (SYN, SYN | ACK, RST, FIN | ACK, URG | PSH | ACK):
                yield bytes([setting]) + prefixed(build(*ends, 1000, 0, flags, b"DATA\r\n"), b"\x10\1")


def streams() -> Iterator[bytes]:
    def say(*tokens: int) -> bytes:
        return b"".join(bytes([CLIENT_SAYS, token, SERVER_SAYS, 0]) for token in tokens)

    for setting in range(len(SETTINGS)):
        for shape in (_HONEST, _HONEST | 3, _FOUR_FLOWS | 1):
            yield bytes([setting, shape, 0]) + say(HELO, MAIL, RCPT, DATA, TEXT, END, QUIT)
        yield bytes([setting, _HONEST, 0]) + say(EHLO, AUTH, 46, STARTTLS)
        yield bytes([setting, _HONEST, 0, BATCH, 3, HELO, MAIL, RCPT, SPLITS, DATA, 2, SERVER_SAYS, 0, TIME, 0])
        yield from (bytes([setting, _HONEST, *attack]) for attack in attacks())
        yield bytes([setting, _DISHONEST, 0, CLIENT_SAYS, EHLO, SERVER_SAYS, 3, SERVER_SAYS, 4, SERVER_SAYS, 9])


def attacks() -> Iterator[list[int]]:
    """Known ways round a filter, each with the server's habits that it is for."""
    to_text = [CLIENT_SAYS, DATA, SERVER_SAYS, 0]
    bad_habits, wants_recipient = 15, 32
    for shape in SHAPES:
        yield [bad_habits, *to_text, CLIENT_SAYS, TEXT, CLIENT_SAYS, shape, CLIENT_SAYS, EHLO]
    # Text that only the gateway takes for text: a 354 from beside the path, a refused DATA.
    yield [wants_recipient, CLIENT_SAYS, DATA, FORGED, FORGED_354, 0, CLIENT_SAYS, EHLO]
    yield [wants_recipient, BATCH, 2, DATA, EHLO, SERVER_SAYS, 0, CLIENT_SAYS, EHLO, SERVER_SAYS, 0]
    # Octets that went ahead of a gap, and others in their place once they might be forgotten.
    yield [0, *to_text, CLIENT_PLACES, EHLO, 13, TIME, 0, CLIENT_SAYS, END, CLIENT_SAYS, TEXT, CLIENT_SAYS, TEXT]
    # Seen here and lost behind us, then said otherwise.
    yield [0, CLIENT_SAYS | LOST, HELO, CLIENT_PLACES, EHLO, 256 - 8, SERVER_ACKNOWLEDGES, 0, 255]
    # A reset and a SYN that the server does not take, and the old connection goes on.
    yield [0, CLIENT_SIGNALS | LOST, 4, 0, 0, CLIENT_SYN | LOST, 9, CLIENT_SAYS, EHLO, SERVER_SAYS, 0]
    yield [0, CLIENT_SIGNALS, 4, 0, 0, CLIENT_SYN, 9, SERVER_SAYS, 0, CLIENT_SAYS, HELO, CLIENT_SAYS, EHLO]
    # Urgent data, FIN in the middle, a verb in pieces in either order.
    yield [0, CLIENT_SIGNALS, 0x38, 0, EHLO, CLIENT_SIGNALS, 0x11, 0, HELO, CLIENT_SAYS, EHLO]
    yield [0, SPLITS, EHLO, 2, SPLITS, STARTTLS, 5, CLIENT_SAYS, 35, CLIENT_SAYS, 36]


def captures() -> Iterator[bytes]:
    for setting in range(5):
        for family, ethertype in ((4, b"\x08\0"), (6, b"\x86\xdd")):
            ethernet = framed(mail(family), b"\2" * 12 + ethertype, b"\4" * 12 + ethertype)
            yield bytes([2 * setting]) + pcap(ethernet[:6], ETHERNET)
            yield bytes([2 * setting + 1]) + pcapng(framed(mail(family))[:6], RAW)


def config() -> Iterator[bytes]:
    yield b"\0" + (ROOT / "deploy" / "nfmailguard.toml").read_bytes()[:1000]
    yield b'\0[gateway]\nmode = "enforce"\nprofile = "asa"\n--set banner.separator=no\n--set limits.flows=10\n'
    rule = b'[[rule]]\nfrom = "10.0.0.0/8"\nports = [25, 587]\n'
    yield b"\0" + rule + b'[policy.commands]\nallow = ["HELO"]\n[on]\ngap = "drop"\n'
    for name in profile_names():
        yield b"\1" + profile_text(name).encode()


_MAKERS = {"packets": packets, "streams": streams, "captures": captures, "config": config}


def write(folder: Path, targets: Iterable[str]) -> None:
    """Writes the seeds of each target into its folder below ``folder``."""
    for name in targets:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(_MAKERS[name]()):
            (folder / name / f"seed-{number:03}").write_bytes(data)
