"""Packets a second of a replay: a capture it makes itself, through the engine and past it.

``python benchmarks/replay.py [ROUNDS]``; no root. The whole command is not timed: reading the
capture file and deciding it is. The cases take turns; figures are medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode
from nfmailguard.queues.capture import CaptureFile
from tests.support.captures import RAW, START, Frame, pcap
from tests.support.wire import ACK, FIN, PSH, SYN, End, build

SESSIONS = 4000
SERVER = End("192.0.2.25", 25)
DIALOGUE = (
    (False, b"220 mail2.example.com ESMTP\r\n"),
    (True, b"HELO client.example.net\r\n"),
    (False, b"250 mail2.example.com\r\n"),
    (True, b"MAIL FROM:<a@example.net>\r\n"),
    (False, b"250 ok\r\n"),
    (True, b"RCPT TO:<b@example.com>\r\n"),
    (False, b"250 ok\r\n"),
    (True, b"DATA\r\n"),
    (False, b"354 go\r\n"),
    (True, b"Subject: x\r\n\r\n" + b"All work and no play makes a dull mail.\r\n" * 30 + b".\r\n"),
    (False, b"250 queued\r\n"),
    (True, b"QUIT\r\n"),
    (False, b"221 bye\r\n"),
)


def session(number: int) -> list[bytes]:
    """One mail, from SYN to FIN."""
    client = End(f"198.18.{number >> 8}.{number & 255}", 40000)
    seq, ends = {True: 1000, False: 5000}, {True: (client, SERVER), False: (SERVER, client)}
    packets = []

    def say(to_server: bool, flags: int, payload: bytes = b"") -> None:
        ack = seq[not to_server] if flags & ACK else 0
        packets.append(build(*ends[to_server], seq[to_server], ack, flags, payload))
        seq[to_server] += len(payload) + bool(flags & (SYN | FIN))

    say(True, SYN)
    say(False, SYN | ACK)
    say(True, ACK)
    for to_server, payload in DIALOGUE:
        say(to_server, PSH | ACK, payload)
    say(True, FIN | ACK)
    say(False, FIN | ACK)
    say(True, ACK)
    return packets


def rate(path: Path, packets: int, mode: Mode | None, records: bool = False) -> float:
    rules = [FlowRule(mode or Mode.MONITOR, load_profile("pix63"))]
    engine = Engine(rules, records=records)
    driver = CaptureFile(engine, path, None, accept_all=mode is None)
    driver.open()
    start = time.perf_counter()
    driver.run()
    taken = time.perf_counter() - start
    driver.close()
    return packets / taken


def main(rounds: int) -> None:
    packets = [packet for number in range(SESSIONS) for packet in session(number)]
    cases = {"accept-all": None, "monitor pix63": Mode.MONITOR, "enforce pix63": Mode.ENFORCE}
    figures: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "mail.pcap")
        path.write_bytes(pcap([Frame(START + n * 1000, packet) for n, packet in enumerate(packets)], RAW))
        for _ in range(rounds):
            for name, mode in cases.items():
                figures[name].append(rate(path, len(packets), mode))
    for name, rates in figures.items():
        ratios = [one / base for one, base in zip(rates, figures["accept-all"], strict=True)]
        print(
            f"{name:14} {statistics.median(rates) / 1e6:6.2f} million packets/s"
            f"   x {statistics.median(ratios):.2f} of accept-all ({min(ratios):.2f}-{max(ratios):.2f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
