"""What hostile octets cost the packet thread, beside honest message text: instructions an octet.

``python benchmarks/hostile.py`` puts each input through an enforcing core from memory under
valgrind's callgrind, whose counts repeat from run to run, and prints a table: instructions of
``core_process`` an octet of payload (of both directions, ACKs' cost included) and how many times
honest text's that is. Exits with 1 when an input costs more than ``--most`` times as much.
Segments are full ones of 1,448 octets unless the input says otherwise.
"""

from __future__ import annotations

import argparse
import marshal
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nfmailguard.bench.dialogues import ACK, END, ENVELOPE, GREETING, SEGMENT, Packet, Side, prose
from nfmailguard.cext.bench.core_bench import Drill
from nfmailguard.engine import Engine
from nfmailguard.events.transactions import TOLD
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode

HEADER = 40
#: Packets between two looks at the records.
PART = 8
#: Packets of the hostile side in each case.
COUNT = 120
HEAD = b"From: a@example.net\r\nTo: b@example.com\r\nSubject: bulk\r\n\r\n"
HELO, HELLO = ENVELOPE[:2], ((True, b"EHLO client.example.net\r\n"), (False, b"250 mail2.example.com\r\n"))


class Case(NamedTuple):
    """An input: what has to be said before, and the packets that are counted."""

    name: str
    before: list[Packet]
    packets: list[Packet]
    #: Cost a packet, not an octet, is what the input is about.
    by_packet: bool = False


def filled(unit: bytes, size: int = SEGMENT) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


def opened(*lines: tuple[bool, bytes]) -> tuple[Side, list[Packet]]:
    side = Side(0xC6120001, 40_000)
    return side, [*side.opening(), *side.says([GREETING, *lines]), side.packet(True, ACK)]


def acknowledged(side: Side, packets: Iterable[Packet]) -> list[Packet]:
    """With the receiver's ACK behind every second packet."""
    out = []
    for place, packet in enumerate(packets):
        out.append(packet)
        if place % 2:
            out.append(side.packet(not packet[1], ACK))
    return out


def text(name: str, octets: bytes, *, head: bytes = HEAD, cut: int = SEGMENT, by_packet: bool = False) -> Case:
    """Message text."""
    side, before = opened(*ENVELOPE, (True, head))
    return Case(name, before, acknowledged(side, side.says([(True, octets)], cut)), by_packet)


def lines(name: str, unit: bytes, reply: bytes, *, hello: Iterable[tuple[bool, bytes]] = HELO) -> Case:
    """Command lines, a segment full at a time, and the replies to them."""
    side, before = opened(*hello)
    count = SEGMENT // len(unit)
    packets: list[Packet] = []
    for _ in range(COUNT):
        packets += side.says([(True, unit * count), (False, reply * count)], SEGMENT)
        packets.append(side.packet(True, ACK))
    return Case(name, before, packets)


def replies(name: str, unit: bytes, *, hello: Iterable[tuple[bool, bytes]] = HELO) -> Case:
    """What a server says, unasked or in the midst of a reply."""
    side, before = opened(*hello)
    return Case(name, before, acknowledged(side, side.says([(False, filled(unit, SEGMENT * COUNT))], SEGMENT)))


def line(name: str, unit: bytes, begin: bytes = b"NOOP ") -> Case:
    """A command line without an end; the server acknowledges."""
    side, before = opened(*HELO)
    octets = begin + filled(unit, SEGMENT * COUNT)
    return Case(name, before, acknowledged(side, side.says([(True, octets)], SEGMENT)))


def again(name: str, copies: int, octets: bytes = b"", change: bool = False) -> Case:
    """Segments of text, each repeated before it is acknowledged."""
    side, before = opened(*ENVELOPE, (True, HEAD))
    packets: list[Packet] = []
    octets = octets or prose(SEGMENT * COUNT)
    for number in range(COUNT // 4):
        part = octets[number * SEGMENT : (number + 1) * SEGMENT]
        first = side.packet(True, ACK, part)
        side._seq[True] -= len(part)
        other = side.packet(True, ACK, filled(b"z") if change else part)
        packets += [first, *[other] * copies]
    return Case(name, before, packets)


def reversed_order(name: str, group: int, cut: int = SEGMENT) -> Case:
    """Groups of segments, the first one of each last."""
    side, before = opened(*ENVELOPE, (True, HEAD))
    octets = prose(cut * COUNT)
    packets: list[Packet] = []
    for at in range(0, COUNT // group * group, group):
        made = list(side.says([(True, octets[at * cut : (at + group) * cut])], cut))
        packets += [*reversed(made), side.packet(False, ACK)]
    return Case(name, before, packets)


def login() -> Case:
    """Lines behind AUTH, each answered with another 334."""
    side, before = opened(*HELLO, (True, b"AUTH LOGIN\r\n"), (False, b"334 \r\n"))
    packets: list[Packet] = []
    for _ in range(COUNT):
        packets += side.says([(True, filled(b"QUFB", SEGMENT - 2) + b"\r\n"), (False, b"334 \r\n")])
        packets.append(side.packet(True, ACK))
    return Case("AUTH: lines of a segment, each asked for", before, packets)


def small_mails() -> Case:
    side, before = opened(*HELO)
    packets: list[Packet] = []
    for _ in range(COUNT):
        packets += side.says([*ENVELOPE[2:], (True, b".\r\n"), END[0]])
        packets.append(side.packet(True, ACK))
    return Case("mails of nothing, waiting for each reply", before, packets, True)


def cases() -> list[Case]:
    size = SEGMENT * COUNT
    ok, no = b"250 ok\r\n", b"502 no\r\n"
    mail = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nRSET\r\n"
    field = b'Content-Type: a; name="b"; name*0=c; filename=d\r\n'
    return [
        text("honest text", prose(size)),
        text("LF.LF", filled(b"\n.\n", size)),
        text("LF . LF with spaces", filled(b"\n. \n", size)),
        text("CR.CR", filled(b"\r.\r", size)),
        text("CRLF.CR and a letter", filled(b"\r\n.\rx", size)),
        text("CRLF. and a letter (dots doubled)", filled(b"\r\n.x", size)),
        text("bare LF", filled(b"\n", size)),
        text("letters and bare LF", filled(b"x\n", size)),
        text("bare CR", filled(b"\r", size)),
        text("letters and bare CR", filled(b"x\r", size)),
        text("NUL", filled(b"\0", size)),
        text("letters and NUL", filled(b"x\0", size)),
        text("NUL, LF, CR, dot", filled(b"\0\n\0\r.\0.\n", size)),
        text("empty lines", filled(b"\r\n", size)),
        text("lines of a letter", filled(b"x\r\n", size)),
        text("dots", filled(b".", size)),
        text("a line without an end", filled(b"x", size)),
        text("a header line without an end", filled(b"x", size), head=b"Subject: "),
        text("header fields of a letter", filled(b"x:\r\n", size), head=b"Subject: x\r\n"),
        text("To fields", filled(b"To:a\r\n", size), head=b"Subject: x\r\n"),
        text("MIME fields with names", filled(field, size), head=b"Subject: x\r\n"),
        text("MIME parts", filled(b"--\r\n" + field + b"\r\n", size)),
        text("a MIME field of semicolons", filled(b";", size), head=b"Content-Type: a"),
        text("a MIME field of names", filled(b"name=", size), head=b"Content-Type: a;"),
        text("a MIME name without an end", filled(b"x", size), head=b'Content-Type: a; name="'),
        lines("lines of X, each denied", b"X\r\n", no),
        lines("XXXX lines", b"XXXX\r\n", no),
        lines("NOOP", b"NOOP\r\n", ok),
        lines("RSET", b"RSET\r\n", ok),
        lines("QUIT", b"QUIT\r\n", b"221 x\r\n"),
        lines("HELO", b"HELO a\r\n", ok),
        lines("EHLO", b"EHLO a\r\n", b"250-a\r\n250-STARTTLS\r\n250 X\r\n", hello=HELLO),
        lines("MAIL, RCPT, RSET", mail, ok * 3),
        lines("RCPT", b"RCPT TO:<a>\r\n", ok, hello=(*HELO, *ENVELOPE[2:4])),
        lines("RCPT with illegal characters", b"RCPT TO:<|>\r\n", ok, hello=(*HELO, *ENVELOPE[2:4])),
        lines("empty command lines", b"\r\n", no),
        lines("lines with a leading space", b" X\r\n", no),
        lines("lines with NUL", b"X\0\r\n", no),
        lines("verbs cut off by a bare LF", b"X\nX\r\n", no),
        lines("verbs cut off by a bare CR", b"X\rX\r\n", no * 2),
        lines("refused AUTH", b"AUTH A\r\n", no, hello=HELLO),
        line("a command line without an end", b"x"),
        line("a command line of NULs", b"\0"),
        line("a command line of bare LFs", b"\n"),
        line("a command line of bare CRs", b"\r", b""),
        line("a verb without an end", b"X", b"X"),
        line("spaces before a verb", b" ", b""),
        line("an address of brackets", b"<", b"MAIL FROM:"),
        login(),
        replies("replies of many lines", b"250-x\r\n"),
        replies("EHLO replies of many lines", b"250-STARTTLS\r\n", hello=[*HELLO, HELLO[0]]),
        replies("replies nobody asked for", b"250 x\r\n"),
        replies("replies that are none", b"x\r\n"),
        replies("empty reply lines", b"\r\n"),
        replies("bare LF as a reply", b"\n"),
        replies("bare CR as a reply", b"\r"),
        replies("a reply line without an end", b"x", hello=[*HELO, (False, b"250-x")]),
        again("text sent 8 times", 8),
        again("text sent 8 times, other octets", 8, change=True),
        again("LF.LF sent 8 times", 8, filled(b"\n.\n", size)),
        reversed_order("groups of 64 segments, backwards", 64),
        reversed_order("groups of 64 octets, backwards", 64, 1)._replace(by_packet=True),
        text("honest text, an octet a packet", prose(COUNT * 2), cut=1, by_packet=True),
        text("LF.LF, an octet a packet", filled(b"\n.\n", COUNT * 2), cut=1, by_packet=True),
        small_mails(),
    ]


def engine(mode: str, profile: str) -> Engine:
    return Engine([FlowRule(Mode(mode), load_profile(profile))], told=TOLD)


def payload(packets: Iterable[Packet]) -> int:
    return sum(len(packet) - HEADER for packet, _ in packets)


def play(stored: Path, mode: str, profile: str) -> None:
    """Every case once, for callgrind, which writes a file behind each ``run``."""
    for name, before, packets in marshal.loads(stored.read_bytes()):
        one = engine(mode, profile)
        drill = Drill(one, [*before, *packets])
        drill.run(0, len(before))
        one.drain()
        records = 0
        for first in range(len(before), len(before) + len(packets), PART):
            drill.run(first, min(first + PART, len(before) + len(packets)))
            while drained := one.drain():  # as the log does; it is not counted
                records += len(drained)
        counters = one.counters()
        said = {"records": records, **{key: counters[key] for key in ("records_lost", "flows_reset") if counters[key]}}
        sys.stdout.write(f"{name}\t{payload(packets)}\t{len(packets)}\t{said}\n")
        sys.stdout.flush()


def measure(chosen: list[Case], mode: str, profile: str) -> list[tuple[str, int, int, int, str]]:
    """Name, octets, packets, instructions and remarks of each case."""
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch, "packets")
        stored.write_bytes(marshal.dumps([(case.name, case.before, case.packets) for case in chosen]))
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out"),
            *("--toggle-collect=*_core_process", "--dump-after=*Drill*run*", "--combine-dumps=no"),
            *(sys.executable, __file__, "--play", str(stored), "--mode", mode, "--profile", profile),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"hostile: valgrind failed: {done.stderr[-2000:]}")
        files = sorted(Path(scratch).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.search(r"^(?:summary|totals): (\d+)", path.read_text(), re.MULTILINE)[1]) for path in files]  # type: ignore[index]
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    out = []
    for name, octets, packets, remark in rows:
        parts = -(-int(packets) // PART)
        out.append((name, int(octets), int(packets), sum(totals[1 : 1 + parts]), remark))
        totals = totals[1 + parts :]
    return out


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=10.0)
    parser.add_argument("--only", default="", help="names with this in them, and honest text")
    parser.add_argument("--mode", default="enforce")
    parser.add_argument("--profile", default="pix63")
    parser.add_argument("--play", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        play(given.play, given.mode, given.profile)
        return
    chosen = [case for case in cases() if given.only in case.name or case.name == "honest text"]
    rows = measure(chosen, given.mode, given.profile)
    by_packet = {case.name for case in chosen if case.by_packet}
    base = rows[0][3] / rows[0][1]
    above = []
    sys.stdout.write(f"{'input':42} {'an octet':>9} {'x honest':>9} {'a packet':>9}\n")
    for name, octets, packets, count, remark in rows:
        each = count / octets
        sys.stdout.write(f"{name:42} {each:9.2f} {each / base:8.1f}x {count / packets:9.0f} {remark}\n")
        if each > given.most * base and name not in by_packet:
            above.append(name)
    sys.stdout.write(f"\nabove {given.most:g}x: {', '.join(above) or 'none'}\n")
    sys.exit(1 if above else 0)


if __name__ == "__main__":
    main()
