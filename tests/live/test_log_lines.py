"""The box's own log lines out of a live gateway, at a syslog server and in a file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.clients import Client
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nl{os.getpid()}-") as made:
        yield made


def test_a_syslog_server_and_alerts_get_what_an_asa_would_log(topology: Topology, tmp_path: Path) -> None:
    with topology.enter(GATEWAY):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
    settings = (
        f"syslog.target=udp://127.0.0.1:{receiver.getsockname()[1]}",
        "syslog.server=dmz",
        "syslog.host=gw",
        "log.alerts=yes",
    )
    options = [option for setting in settings for option in ("--set", setting)]
    gateway = Gateway(topology, tmp_path / "gateway", "--mode", "enforce", "--profile", "asa", *options)
    with (
        receiver,
        MailServer(topology, tmp_path / "mail"),
        gateway,
        topology.enter(CLIENT),
        Client(topology.address(SERVER)) as client,
    ):
        port = client.local_port
        client.hello("client.example.net")
        client.send(b"NOOP " + b"x" * 600)
        lines = [receiver.recv(4096).decode() for _ in range(2)]
    ends = f"from outside:{topology.address(CLIENT)}/{port} to dmz:{topology.address(SERVER)}/25"
    deed, reason = "Dropped connection for ESMTP Request", "inspector disconnected, dropped packet."
    assert [line.partition(" gw ")[2] for line in lines] == [
        f"%ASA-4-108004: ESMTP Classification: {deed} {ends}; matched Class 1: cmd line length gt 512",
        f"%ASA-4-507003: tcp flow {ends} terminated by inspection engine, reason - {reason}",
    ]
    assert all(line.startswith("<164>") for line in lines), "local4, warning"
    alerts = [event["alert"] for event in gateway.events("alert")]
    assert [alert["signature_id"] for alert in alerts if alert["action"] == "blocked"] == [1_825_002]
    counted = [sys.executable, "-m", "nfmailguard", "counters", "--events", str(gateway.eve), "--cisco"]
    shown = subprocess.run([*counted, "--profile", "asa"], capture_output=True, text=True, check=True).stdout
    assert "match cmd line length gt 512\n          drop-connection log, packet 1\n" in shown


def test_a_pix_logs_what_it_replaced_in_an_address(topology: Topology, tmp_path: Path) -> None:
    log = tmp_path / "pix.log"
    options = ("--mode", "enforce", "--profile", "pix63", "--set", f"syslog.target={log}")
    with (
        MailServer(topology, tmp_path / "mail"),
        Gateway(topology, tmp_path / "gateway", *options),
        topology.enter(CLIENT),
        Client(topology.address(SERVER)) as client,
    ):
        client.hello("client.example.net")
        client.command("MAIL FROM:<|a@example.net>")
        client.command("QUIT")
    client_address, server_address = topology.address(CLIENT), topology.address(SERVER)
    expected = f"%PIX-2-108002: SMTP replaced string: out {client_address} in {server_address} data: |\n"
    assert log.read_text().endswith(expected)
