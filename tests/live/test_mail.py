"""Real mail software through the live gateway, in hosts of its own: what mail people and scanners see."""

from __future__ import annotations

import json
import os
import random
import re
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.clients import Client
from nfmailguard.lab.namespaces import may_change_users as is_real_root
from nfmailguard.lab.postfix import Postfix, installed
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology

pytestmark = pytest.mark.live

ROOT = os.geteuid() == 0
FAMILIES = (4, 6)
DRIVERS = ("kernel", "netfilterqueue")
PIX63 = ("--mode", "enforce", "--profile", "pix63")


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if not ROOT:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nm{os.getpid()}-") as made:
        yield made


def letter(size: int) -> bytes:
    """A mail of about ``size`` octets with CRLF line ends, dots and all."""
    lines = [b"From: a@example.net", b"To: b@example.com", b"Subject: %d octets" % size, b""]
    chance = random.Random(size)
    total = 0
    while total < size:
        line = bytes(chance.choices(b"abcdefghij .XE", k=chance.randint(0, 76)))
        lines.append(line)
        total += len(line) + 2
    return b"\r\n".join(lines) + b"\r\n"


def submit(topology: Topology, mail: bytes, family: int, host: str = SERVER) -> None:
    with topology.enter(CLIENT), smtplib.SMTP(topology.address(host, family=family), timeout=60) as client:
        client.sendmail("a@example.net", ["b@example.com"], mail)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_mail_of_every_size_arrives_octet_for_octet(
    topology: Topology, tmp_path: Path, family: int, driver: str
) -> None:
    mails = [letter(size) for size in (1024, 100 * 1024, 10 * 1024 * 1024)]
    with MailServer(topology, tmp_path / "mail") as server:
        with Gateway(topology, tmp_path / "gateway", *PIX63, "--driver", driver) as gateway:
            for mail in mails:
                submit(topology, mail, family)
        assert server.mails() == mails
    told = gateway.events("smtp")
    assert [event["smtp"]["complete"] for event in told] == [True, True, True]
    assert len(gateway.events("flow")) == 3


def test_a_client_that_gets_xxxx_for_ehlo_falls_back_to_helo_and_delivers(topology: Topology, tmp_path: Path) -> None:
    with MailServer(topology, tmp_path / "mail") as server, Gateway(topology, tmp_path / "gateway", *PIX63):
        with topology.enter(CLIENT), Client(topology.address(SERVER)) as client:
            assert client.greeting.octets == b"220 ****2**********************2**0\r\n"
            assert not client.hello("client.example.net")
            client.command("MAIL FROM:<a@example.net>")
            client.command("RCPT TO:<b@example.com>")
            assert client.message(letter(100)).code == 250
        read = b"".join(said.octets for said in server.dialogue(1) if said.read)
        assert read.startswith(b"XXXX client.example.net\r\nHELO client.example.net\r\n")
        assert server.mails() == [letter(100)]


@pytest.mark.parametrize("profile", ["pix63", "asa"])
def test_nmap_takes_the_server_for_a_pix(topology: Topology, tmp_path: Path, profile: str) -> None:
    if subprocess.run(["which", "nmap"], capture_output=True, check=False).returncode:
        pytest.skip("no nmap here; apt-get install nmap")
    gateway = ("--mode", "enforce", "--profile", profile)
    with MailServer(topology, tmp_path / "mail"), Gateway(topology, tmp_path / "gateway", *gateway):
        scan = topology.run(
            CLIENT, ["nmap", "-sV", "-Pn", "-n", "-p25", topology.address(SERVER)], capture_output=True, text=True
        )
    assert "Cisco PIX sanitized smtpd" in scan.stdout, scan.stdout + scan.stderr


@pytest.mark.skipif(
    not (is_real_root() and installed()), reason="needs the machine's root and Postfix: apt-get install postfix"
)
@pytest.mark.parametrize("server_kind", ["aiosmtpd", "postfix"])
def test_postfix_enables_its_pix_workarounds_and_delivers(topology: Topology, tmp_path: Path, server_kind: str) -> None:
    mail = letter(50_000).replace(b"\r\n", b"\n")
    address = topology.address(SERVER)
    server: MailServer | Postfix
    if server_kind == "postfix":
        server = Postfix(topology, SERVER, tmp_path / "server", addresses=(address,))
    else:
        server = MailServer(topology, tmp_path / "server", "--greeting", "mail.example.com ESMTP")
    with server, Gateway(topology, tmp_path / "gateway", *PIX63):
        with Postfix(topology, CLIENT, tmp_path / "client", relay=address) as client:
            client.send("a@example.net", "b@example.com", mail)
            log = client.wait_for("status=sent")
        # delay_dotcrlf comes on top for mail that is older than smtp_pix_workaround_threshold_time (500 s).
        assert "enabling PIX workarounds: disable_esmtp" in log
        (arrived,) = server.mails()
    assert arrived.replace(b"\r\n", b"\n").endswith(mail.partition(b"\n\n")[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reset_ends_the_connection_on_both_sides(topology: Topology, tmp_path: Path, family: int) -> None:
    with topology.enter(SERVER):
        listener = socket.create_server(
            (topology.address(SERVER, family=family), 25), family=socket.AF_INET if family == 4 else socket.AF_INET6
        )
    with listener, topology.enter(CLIENT):
        client = socket.create_connection((topology.address(SERVER, family=family), 25), timeout=60)
        server = listener.accept()[0]
        server.settimeout(60)
        with client, server, Gateway(topology, tmp_path / "gateway", *PIX63, "--set", "on.midstream_at_start=reset"):
            # Who speaks is told, as by a host without the connection.
            for end in (client, server):
                end.sendall(b"EHLO a.example\r\n")
                with pytest.raises(ConnectionResetError):
                    end.recv(100)


@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_gateway_that_is_the_mail_host_itself(topology: Topology, tmp_path: Path, hook: str) -> None:
    options = (*PIX63, "--set", f"gateway.hook={hook}")
    host, sender = (GATEWAY, CLIENT) if hook == "input" else (SERVER, GATEWAY)
    with MailServer(topology, tmp_path / "mail", host=host) as server:
        gateway = Gateway(topology, tmp_path / "gateway", *options)
        with gateway, topology.enter(sender), Client(topology.address(host)) as client:
            assert not client.hello("a.example")
            client.command("QUIT")
        read = b"".join(said.octets for said in server.dialogue(1) if said.read)
    assert read == b"XXXX a.example\r\nHELO a.example\r\nQUIT\r\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_tap_replayed_gives_the_same_bytes_and_findings(topology: Topology, tmp_path: Path, driver: str) -> None:
    taken, left, again = (tmp_path / f"{name}.pcap" for name in ("in", "out", "again"))
    options = ("--mode", "enforce", "--profile", "asa", "--driver", driver, "--tap", f"{taken},{left}")
    with MailServer(topology, tmp_path / "mail"), Gateway(topology, tmp_path / "gateway", *options) as gateway:
        submit(topology, letter(300_000), 4)
        submit(topology, letter(2_000), 6)
    replayed = tmp_path / "again.json"
    command = [sys.executable, "-m", "nfmailguard", "replay", str(taken), str(again), "--events", str(replayed)]
    subprocess.run([*command, "--mode", "enforce", "--profile", "asa"], check=True, capture_output=True)
    assert again.read_bytes() == left.read_bytes()
    live = [line for line in gateway.eve.read_text().splitlines() if '"event_type":"mailguard"' in line]
    offline = [line for line in replayed.read_text().splitlines() if '"event_type":"mailguard"' in line]
    assert live == offline
    assert live


#: Runs a command in a network of its own, where nobody else comes and goes meanwhile, and says what it left.
WORLD = """
mount -t tmpfs tmpfs /run
everything() { ip netns; ip -br link; nft list tables; }
everything >"$0/before"
"$@" && code=0 || code=$?
everything >"$0/after"
exit $code
"""


def test_the_demo_delivers_on_every_path_and_leaves_nothing(tmp_path: Path) -> None:
    shown = tmp_path / "demo.txt"
    world = ["unshare", "--net", "--mount", "--", "sh", "-ec", WORLD, str(tmp_path)]
    command = [*world, sys.executable, "-m", "nfmailguard", "lab", "demo", "--record", str(shown)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "cannot make namespaces" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert "Delivered in 4 of 4 runs; EHLO accepted in 3 of 4; TLS in 2 of 4" in shown.read_text()
    assert "lo" in (tmp_path / "before").read_text()
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()


def test_the_demos_page_has_every_path_that_was_asked_for(tmp_path: Path) -> None:
    page, picture = tmp_path / "demo.html", tmp_path / "demo.svg"
    argv = [
        "lab",
        "demo",
        "--profile",
        "asa",
        "--profile",
        "ios-esmtp",
        "--report",
        str(page),
        "--record",
        str(picture),
    ]
    command = [sys.executable, "-m", "nfmailguard", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    dialogues = json.loads(found[1])["dialogues"]
    assert [one["title"].partition(":")[0] for one in dialogues] == ["no gateway", "enforce asa", "enforce ios-esmtp"]
    assert dialogues[0]["changes"] == 0
    assert ["", "STARTTLS"] not in [line[2] for line in dialogues[0]["lines"]]
    assert all(line[4] for one in dialogues[1:] for line in one["lines"] if isinstance(line[3], list))
    assert "≠" in picture.read_text()
