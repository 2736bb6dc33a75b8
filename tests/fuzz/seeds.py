"""The first inputs: whole mails and plain configurations, from which fuzzing sets out.

    python -m tests.fuzz.seeds FOLDER

writes one folder for each target. Does not know what fuzzing has found since; that is the corpus.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from nfmailguard.policy.load import profile_names, profile_text
from tests.fuzz.build import ROOT
from tests.fuzz.settings import SETTINGS
from tests.support.captures import ETHERNET, RAW, framed, mail, pcap, pcapng
from tests.support.dialogue import CLIENTS, SERVERS
from tests.support.wire import ACK, FIN, PSH, RST, SYN, URG, build

CLIENT_SAYS, SERVER_SAYS, TIME, SPLITS, BATCH = 0, 1, 11, 12, 14
HELO, EHLO, MAIL, RCPT, DATA, QUIT, STARTTLS, AUTH, TEXT, END = 0, 1, 2, 3, 4, 7, 8, 10, 19, 20
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
        yield bytes([setting, _DISHONEST, 0, CLIENT_SAYS, EHLO, SERVER_SAYS, 3, SERVER_SAYS, 4, SERVER_SAYS, 9])


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


def main(folder: Path) -> None:
    for make in (packets, streams, captures, config):
        (folder / make.__name__).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(make()):
            (folder / make.__name__ / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
