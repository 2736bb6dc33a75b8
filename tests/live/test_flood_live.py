"""A flood of SYNs through a running gateway, while mail goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.clients import Client
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology

pytestmark = pytest.mark.live

SYNS = 200_000
FLOWS = 5_000
MEMORY = 8 << 20

#: SYNs from random addresses and ports, as fast as one process sends them; right checksums, for the
#: server is to see them, too.
FLOOD = """if 1:
    import random, socket, struct, sys
    server, count = socket.inet_aton(sys.argv[1]), int(sys.argv[2])
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    packet = bytearray(40)
    struct.pack_into("!BBHHHBBH", packet, 0, 0x45, 0, 40, 0, 0x4000, 64, 6, 0)
    packet[16:20] = server
    struct.pack_into("!HHIIBBHHH", packet, 20, 0, 25, 1, 0, 0x50, 0x02, 65535, 0, 0)
    fixed = sum(struct.unpack("!10H", packet[20:])) + sum(struct.unpack("!2H", server)) + 6 + 20
    bits = random.Random(1).getrandbits
    lost = 0
    for _ in range(count):
        address, port = 0x0A400000 | bits(22), 1024 + bits(15)        # 10.64.0.0/10
        total = fixed + (address >> 16) + (address & 0xFFFF) + port
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!I", packet, 12, address)
        struct.pack_into("!H", packet, 20, port)
        struct.pack_into("!H", packet, 36, ~total & 0xFFFF)
        try:
            raw.sendto(packet, (sys.argv[1], 0))
        except OSError:
            lost += 1
    print(lost)
"""


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nf{os.getpid()}-") as made:
        yield made


def test_mail_goes_on_in_a_flood_of_syns(topology: Topology, tmp_path: Path) -> None:
    mail = b"Subject: x\r\n\r\n" + b"All in good order.\r\n" * 2_000
    options = ("--mode", "enforce", "--set", f"limits.flows={FLOWS}", "--set", f"limits.memory={MEMORY}")
    with (
        MailServer(topology, tmp_path / "mail") as server,
        Gateway(topology, tmp_path / "gateway", *options) as gateway,
    ):
        address = topology.address(SERVER)
        with topology.enter(CLIENT), Client(address) as session, Client(address) as idle:
            assert not session.hello("a.example")
            flood = topology.popen(
                CLIENT, [sys.executable, "-c", FLOOD, address, str(SYNS)], stdout=subprocess.PIPE, text=True
            )
            mails = 0
            while flood.poll() is None:
                session.command("MAIL FROM:<a@example.net>")
                session.command("RCPT TO:<b@example.com>")
                assert session.message(mail).code == 250
                mails += 1
            # The connection that said nothing all the while is still known, and still guarded.
            assert not idle.hello("b.example")
            session.command("QUIT")
        sent = SYNS - int(flood.communicate()[0])
        assert server.mails() == [mail] * mails
        guarded = b"".join(said.octets for said in server.dialogue(2) if said.read)
        assert guarded.startswith(b"XXXX b.example\r\nHELO b.example\r\n")
    stats = gateway.events("stats")[-1]["stats"]
    assert mails > 0
    assert sent > SYNS // 2
    assert stats["flows_opened"] > FLOWS
    assert stats["flows_evicted"] >= stats["flows_opened"] - FLOWS
    assert stats["flows_refused"] == stats["flows_reset"] == stats["flows_dropped"] == 0
    assert stats["memory_now"] <= MEMORY
