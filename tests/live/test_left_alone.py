"""A gateway that is asked, whose logs are rotated, that is told to reload: mail flows on, and none of it is changed."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.service.asking import Asking

pytestmark = pytest.mark.live

CLIENTS, MAILS, RELOADS = 20, 10, 100


def letter(number: int) -> bytes:
    """A mail that is not like any other; some are long."""
    lines = [b"Subject: %d" % number, b""] + [b"%d.%d " % (number, line) + b"x" * 60 for line in range(number % 7 * 40)]
    return b"\r\n".join(lines) + b"\r\n"


def send(topology: Topology, client: int) -> None:
    with topology.enter(CLIENT):
        for mail in range(MAILS):
            with smtplib.SMTP(topology.address(SERVER), timeout=60) as smtp:
                smtp.sendmail("a@example.net", ["b@example.com"], letter(client * MAILS + mail))


def stuck(path: Path) -> socket.socket:
    """A client that asks much and reads nothing."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(str(path))
    link.sendall(b'{"v": 1, "command": "events"}\n' + b'{"v": 1, "command": "stats"}\n' * 50)
    return link


def test_mail_flows_on_while_it_is_asked_reloaded_and_its_log_rotated(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    path, took = tmp_path / "control.sock", []
    options = ("--mode", "enforce", "--profile", "pix63", "--set", f"service.control={path}")
    with (
        Topology(f"nl{os.getpid()}-") as topology,
        MailServer(topology, tmp_path / "mail") as server,
        Gateway(topology, tmp_path / "gateway", *options) as gateway,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        deaf = [stuck(path) for _ in range(5)]
        sending = [pool.submit(send, topology, client) for client in range(CLIENTS)]
        done = threading.Event()
        rotated = []
        with Asking(str(path)) as asking:
            for reload in range(RELOADS):
                if reload % 10 == 0:
                    rotated.append(gateway.eve.with_suffix(f".{reload}"))
                    gateway.eve.rename(rotated[-1])
                if reload % 2:
                    gateway.process.send_signal(signal.SIGHUP)
                else:
                    assert asking.ask("reload")
                began = time.monotonic()
                status = asking.ask("status")
                took.append(time.monotonic() - began)
                assert status["rules"] == "in place"
                done.wait(0.02)
            for one in sending:
                one.result(120)
            stats = asking.ask("stats")
            assert asking.ask("status")["state"] == "healthy"
        assert stats["events_lost"] == stats["records_lost"] == stats["queue.uninspected"] == 0
        for link in deaf:
            link.close()
        assert sorted(server.mails()) == sorted(letter(number) for number in range(CLIENTS * MAILS))
    lines = [line for log in [*rotated, gateway.eve] for line in log.read_text().splitlines()]
    events = [json.loads(line) for line in lines]  # none is torn
    assert sum(event["event_type"] == "smtp" for event in events) == CLIENTS * MAILS
    assert sorted(took)[len(took) // 2] < 0.2
