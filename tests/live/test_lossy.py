"""Mail over links that lose, repeat and overtake, on both sides of the gateway: it arrives octet for octet.

``LOSSY_MAILS`` says how many a mode (60; ``make test-lossy``: 1,000). The links' fates are seeded,
the hosts' timing is not.
"""

from __future__ import annotations

import os
import random
import re
import smtplib
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER
from tests.support.lossy import BEFORE, BEYOND, Fates, LossyTopology

pytestmark = pytest.mark.live

MAILS = int(os.environ.get("LOSSY_MAILS", "60"))
SESSIONS = 8
MAILS_A_CONNECTION = 5
FATES = Fates(loss=0.01, twice=0.01, late=0.02)
TIMEOUT = 60
SMALLEST, LARGEST = 1 << 10, 1 << 20
NUMBER = re.compile(rb"^X-Number: (\d+)\r\n", re.MULTILINE)
DOT = re.compile(rb"^\.", re.MULTILINE)

CASES = {
    "enforce pix63": ("--mode", "enforce", "--profile", "pix63"),
    "enforce asa": ("--mode", "enforce", "--profile", "asa"),
    "monitor": ("--mode", "monitor", "--profile", "pix63"),
    "dry run": ("--mode", "enforce", "--profile", "pix63", "--dry-run"),
}


@pytest.fixture
def topology(request: pytest.FixtureRequest) -> Iterator[LossyTopology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with LossyTopology(
        {BEFORE: FATES, BEYOND: FATES}, seed=len(request.node.name), prefix=f"lossy{os.getpid()}-"
    ) as made:
        yield made


def letters(count: int) -> dict[int, bytes]:
    """Mails by number, of 1 KiB to 1 MiB, most of them small: 20 KiB on average."""
    chance = random.Random(count)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz.", k=chance.randint(1, 12))) for _ in range(500)]
    made = {}
    for number in range(count):
        size = (LARGEST, SMALLEST)[number] if number < 2 else min(int(chance.lognormvariate(8.8, 1.2)), LARGEST)
        lines = [b"From: a@example.net", b"To: b@example.com", b"X-Number: %d" % number, b""]
        length = sum(len(line) + 2 for line in lines)
        while length < size:
            # Lines that begin with a dot, and empty ones: what an end of data is made of.
            line = (
                chance.choice((b".", b"", b"..")) if chance.random() < 0.05 else b" ".join(chance.choices(words, k=9))
            )
            lines.append(line)
            length += len(line) + 2
        made[number] = b"\r\n".join(lines) + b"\r\n"
    return made


def one_by_one(address: str, mails: list[bytes]) -> None:
    """As most clients do: EHLO first, and every reply is waited for."""
    with smtplib.SMTP(address, timeout=TIMEOUT) as client:
        for mail in mails:
            client.sendmail("a@example.net", ["b@example.com"], mail)


def pipelined(address: str, mails: list[bytes]) -> None:
    """In RFC 2920's groups: behind the end of a message its sender goes on with the next one at once."""
    group = b"MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
    with socket.create_connection((address, 25), timeout=TIMEOUT) as connection, connection.makefile("rb") as replies:

        def say(octets: bytes, *codes: bytes) -> None:
            connection.sendall(octets)
            for code in codes:
                reply = replies.readline()
                if not reply.startswith(code):
                    raise ConnectionError(f"{reply!r} where {code!r} was due")

        say(b"", b"220")
        say(b"HELO a.example\r\n", b"250")
        say(group, b"250", b"250", b"354")
        for mail in mails[:-1]:
            say(DOT.sub(b"..", mail) + b".\r\n" + group, b"250", b"250", b"250", b"354")
        say(DOT.sub(b"..", mails[-1]) + b".\r\nQUIT\r\n", b"250", b"221")


def send(topology: LossyTopology, mails: dict[int, bytes]) -> list[str]:
    """Sends all of them, nothing twice, over connections of both kinds and families; what failed."""
    numbers = list(mails)
    batches = [numbers[at : at + MAILS_A_CONNECTION] for at in range(0, len(numbers), MAILS_A_CONNECTION)]

    def session(which: int) -> str | None:
        address = topology.address(SERVER, family=(4, 6)[which % 2])
        speak = (one_by_one, pipelined)[which // 2 % 2]
        try:
            with topology.enter(CLIENT):
                speak(address, [mails[number] for number in batches[which]])
        except OSError as error:  # smtplib's errors are
            return f"{speak.__name__} to {address}: {error!r}"
        return None

    with ThreadPoolExecutor(SESSIONS) as sessions:
        return [failed for failed in sessions.map(session, range(len(batches))) if failed]


def assert_links_were_lossy(topology: LossyTopology) -> None:
    topology.stop_links()
    for counts in topology.counts.values():
        for told in counts.values():
            assert min(told["lost"], told["doubled"], told["delayed"]) > 0, topology.counts
            assert told["refused"] == told["overrun"] == 0, topology.counts


def carry(topology: LossyTopology, scratch: Path, count: int, *options: str) -> dict[str, int]:
    """``count`` mails through a gateway; its counters. Every mail must arrive once, as it was sent."""
    mails = letters(count)
    with MailServer(topology, scratch / "mail", "--no-starttls") as server:
        with Gateway(topology, scratch / "gateway", *options) as gateway:
            failed = send(topology, mails)
        arrived: dict[int, list[bytes]] = {}
        for mail in server.mails():
            found = NUMBER.search(mail)
            arrived.setdefault(int(found[1]) if found else -1, []).append(mail)
    assert_links_were_lossy(topology)
    lost = sorted(mails.keys() - arrived.keys())
    altered = sorted(number for number, copies in arrived.items() if any(copy != mails.get(number) for copy in copies))
    twice = sorted(number for number, copies in arrived.items() if len(copies) > 1)
    stats: dict[str, int] = gateway.events("stats")[-1]["stats"]
    findings = Counter(event["mailguard"]["finding"] for event in gateway.events())
    assert (failed, lost, altered, twice) == ([], [], [], []), (findings, stats)
    assert sum(event["smtp"].get("complete", False) for event in gateway.events("smtp")) == count
    # Honest hosts: nothing to say about their streams, and no connection but went to its end.
    assert [name for name in findings if name.startswith("stream.")] == []
    assert stats["flows_reset"] == stats["flows_dropped"] == stats["flows_passed"] == stats["internal_errors"] == 0
    assert stats["packets"] == stats["accepted"] + stats["replaced"] + stats["dropped"]
    assert min(stats["retransmissions"], stats["out_of_order"]) > 0
    return stats


@pytest.mark.parametrize("case", CASES)
def test_mail_arrives_intact_whatever_the_links_do(topology: LossyTopology, tmp_path: Path, case: str) -> None:
    stats = carry(topology, tmp_path, MAILS, *CASES[case])
    assert stats["queue.gso_packets"] > 0 or not topology.merging
    if not case.startswith("enforce"):
        assert stats["replaced"] == stats["dropped"] == stats["held"] == 0


@pytest.mark.parametrize("case", ["enforce pix63", "monitor"])
def test_mail_arrives_intact_through_the_driver_that_cannot_hold(
    topology: LossyTopology, tmp_path: Path, case: str
) -> None:
    carry(topology, tmp_path, MAILS // 3, *CASES[case], "--driver", "netfilterqueue")
