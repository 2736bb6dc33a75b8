"""The first inputs: whole mails, known attacks and plain configurations, from which fuzzing sets out.

Does not know what fuzzing has found since; that is the corpus.
"""

from __future__ import annotations

import gzip
import re
import struct
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nfmailguard.policy.cisco.write import write as written
from nfmailguard.policy.load import load_profile, profile_names, profile_text
from tests.fuzz import configuration
from tests.fuzz.build import ROOT
from tests.fuzz.settings import SETTINGS
from tests.support.captures import ETHERNET, RAW, framed, mail, pcap, pcapng
from tests.support.cisco import ASA, DEFAULT_MAP, PIX
from tests.support.dialogue import CLIENTS, SERVERS
from tests.support.mail_logs import PROGRAMS, journald, ordinary
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
    bad_habits, wants_recipient = 15 + 64 + 128, 32
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


#: Kinds of actions, and tokens (harness/ports.pyx).
P_SAYS, P_ACKS, P_SYN, P_CONNECTS, P_RESETS, P_FINISHES, P_COOKIE, P_TIME, P_SERVER, P_WINDOW, P_AGAIN, P_SPEAKS = (
    range(12)
)
P_EVIL, P_MAIL, P_END, P_STARTTLS, P_TLS = 2, 10, 11, 14, 15


def ports() -> Iterator[bytes]:
    """Beginnings, and the ways in which one connection may be taken for another; each before every server."""
    connects, mail, tls = [P_CONNECTS, 0], [P_SPEAKS, P_MAIL], [P_SPEAKS, P_STARTTLS, P_SPEAKS, P_TLS]
    dies = {
        "reset": [P_SAYS, 0, 1, P_EVIL, P_RESETS, 1, 0],
        "closed": [P_SERVER, 0, P_ACKS, 0, 0, 2, P_TIME, 5],
        "given up": [P_WINDOW, 2, P_SERVER, 0, P_TIME, 4, P_TIME, 4],
        "finished": [P_FINISHES, 0, 0, P_ACKS, 0, 0, 2],
    }
    comes_back = ([*connects, P_AGAIN, 128 | P_EVIL], [P_COOKIE, 0, 0, 128 | P_EVIL], [P_COOKIE, 1, 0, 0, P_AGAIN, 128])
    for server in range(8):
        for setting in (0, 1, len(SETTINGS)):
            yield bytes([setting, server, *connects, *mail, P_SPEAKS, 16, P_SPEAKS, P_END])
            for end in dies.values():
                for again in comes_back:
                    said = tls if setting == len(SETTINGS) else mail
                    yield bytes([setting, server, *connects, *said, *end, *again, P_SPEAKS, P_EVIL])


def captures() -> Iterator[bytes]:
    for setting in range(5):
        for family, ethertype in ((4, b"\x08\0"), (6, b"\x86\xdd")):
            ethernet = framed(mail(family), b"\2" * 12 + ethertype, b"\4" * 12 + ethertype)
            yield bytes([2 * setting]) + pcap(ethernet[:6], ETHERNET)
            yield bytes([2 * setting + 1]) + pcapng(framed(mail(family))[:6], RAW)


def config() -> Iterator[bytes]:
    shipped = (ROOT / "deploy" / "nfmailguard.toml").read_text()
    shipped = re.sub(r"^# (?=(\[\[|\w[\w.\"]* = ))", "", shipped, flags=re.MULTILINE)
    lines = [line.partition(" #")[0] for line in shipped.splitlines() if line and not line.startswith("#")]
    for section in re.split(r"\n(?=\[)", "\n".join(lines)):
        yield b"\0" + section.encode() + b"\n"
    yield b'\0[gateway]\nmode = "enforce"\nprofile = "asa"\n--set banner.separator=no\n--set limits.flows=10\n'
    for number in range(len(configuration.KEYS)):
        yield bytes([2, number]) + b"1\n"
    for name in profile_names():
        yield b"\1" + profile_text(name).encode()


def cisco() -> Iterator[bytes]:
    yield DEFAULT_MAP.encode()
    for text in (ASA, PIX):
        lines = text.splitlines(keepends=True)
        yield from ("".join(lines[at : at + 25]).encode()[:1000] for at in range(0, len(lines), 25))
    at = ASA.index("regex exe-types")
    yield from (ASA[start : start + 1000].encode() for start in range(at, len(ASA), 500))
    yield from (written(load_profile(name)).text.encode() for name in profile_names())


def logs() -> Iterator[bytes]:
    cases = tomllib.loads((ROOT / "tests/fixtures/logs/lines.toml").read_text())["case"]
    lines = [case["line"] for case in cases]
    yield from ("\n".join(lines[at : at + 6]).encode() for at in range(0, len(lines), 6))
    for program in PROGRAMS:
        day = ordinary(program, 24)
        yield "\n".join(day[:12]).encode()
        yield gzip.compress("\n".join(day[12:]).encode(), mtime=0)
    yield "\n".join(journald(ordinary("postfix", 6))).encode()
    yield "\r\n".join(lines[-6:]).encode("utf-16")
    for recorded in sorted((ROOT / "tests/fixtures/logs/recorded").glob("*.log")):
        yield recorded.read_bytes()[-1500:]


_MAKERS = {
    "packets": packets,
    "streams": streams,
    "ports": ports,
    "captures": captures,
    "config": config,
    "cisco": cisco,
    "logs": logs,
}


def write(folder: Path, targets: Iterable[str]) -> None:
    """Writes the seeds of each target into its folder below ``folder``."""
    for name in targets:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(_MAKERS[name]()):
            (folder / name / f"seed-{number:03}").write_bytes(data)
