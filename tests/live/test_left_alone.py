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

from nfmailguard.errors import RefusedError
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
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


def enforcing(profile: str, *rules: str) -> str:
    """A configuration: ``profile`` for every flow that none of the rules is for."""
    return f'[gateway]\nmode = "enforce"\nprofile = "{profile}"\n' + "".join(f"[[rule]]\n{rule}\n" for rule in rules)


#: Under the first a client's EHLO is masked; under the second it passes, and there is a rule that nobody comes under.
FIRST, SECOND = enforcing("pix63"), enforcing("asa", 'from = ["192.0.2.0/24"]\nmode = "monitor"')
WRONG = '[gateway]\nmode = "enforce"\nprofile = "none"\nports = [0]\n[limits]\nidle = -1\nfloww = 3\n'


def send_asking(topology: Topology, client: int) -> list[tuple[int, bool, bool]]:
    """Mails on connections that last a moment; of each its port, and whether EHLO passed at its beginning and end."""
    found = []
    with topology.enter(CLIENT):
        for mail in range(MAILS):
            with smtplib.SMTP(topology.address(SERVER), timeout=60) as smtp:
                assert smtp.sock is not None
                port = smtp.sock.getsockname()[1]
                first = smtp.ehlo("a.example")[0]
                if first != 250:
                    assert smtp.helo("a.example")[0] == 250
                time.sleep(0.05 * (client % 5))
                smtp.sendmail("a@example.net", ["b@example.com"], letter(client * MAILS + mail))
                last = smtp.ehlo("a.example")[0]
                found.append((port, first == 250, last == 250))
    return found


def test_mail_flows_on_while_rules_are_replaced(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    path, settings = tmp_path / "control.sock", tmp_path / "nfmailguard.toml"
    settings.write_text(FIRST)
    options = ("-c", str(settings), "--set", f"service.control={path}", "--queue", "0-1")
    refused = 0
    with (
        Topology(f"nl{os.getpid()}-") as topology,
        MailServer(topology, tmp_path / "mail") as server,
        Gateway(topology, tmp_path / "gateway", *options) as gateway,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        sending = [pool.submit(send_asking, topology, client) for client in range(CLIENTS)]
        with Asking(str(path)) as asking:
            for reload in range(RELOADS):
                settings.write_text((SECOND, FIRST)[reload % 2])
                answer = asking.ask("reload")
                assert answer["generation"] == reload + 2
                assert "gateway.profile: pix63 -> asa" in answer["changed"] or reload % 2
                assert answer["notes"] == []
                if reload % 10 == 5:
                    settings.write_text(WRONG)
                    with pytest.raises(RefusedError) as error:
                        asking.ask("reload")
                    assert len(error.value.lines) == 4
                    refused += 1
                    standing = asking.ask("status")["configuration"]
                    assert (standing["generation"], standing["older"] <= 1) == (reload + 2, True)
                if reload % 10 == 3:
                    told = asking.ask("flows")
                    assert {flow["profile"] for flow in told["flows"]} <= {"pix63", "asa"}
                    assert len(told["flows"]) == min(100, told["of"])
                time.sleep(0.03)
            flows = [flow for one in sending for flow in one.result(120)]
            status, stats = asking.ask("status"), asking.ask("stats")
        assert status["state"] == "healthy", status["reasons"]
        assert stats["events_lost"] == stats["records_lost"] == stats["queue.uninspected"] == 0
        assert sorted(server.mails()) == sorted(letter(number) for number in range(CLIENTS * MAILS))
    # None has seen two sets of rules, and there are enough of both.
    assert [flow for flow in flows if flow[1] != flow[2]] == []
    passed = {port for port, first, _ in flows if first}
    masked = {port for port, first, _ in flows if not first}
    assert min(len(passed), len(masked)) > CLIENTS
    denied = [event for event in gateway.events() if event["mailguard"]["finding"] == "command.denied"]
    assert {(event["mailguard"]["profile"], event["mailguard"]["verb"]) for event in denied} == {("pix63", "EHLO")}
    assert {event["src_port"] for event in denied} == masked
    assert {event["mailguard"]["profile"] for event in gateway.events()} == {"pix63", "asa"}
    health = [event["health"] for event in gateway.events("health")]
    assert sum(event.get("reload") == "done" for event in health) == RELOADS
    assert sum(event.get("reload") == "refused" and len(event["errors"]) == 4 for event in health) == refused == 10


@pytest.mark.parametrize("driver", ["kernel", "netfilterqueue"])
def test_rules_that_watch_become_rules_that_enforce_and_back(driver: str, tmp_path: Path) -> None:
    """The table and the queue change with them, and not before the last flow that was enforced has ended."""
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    path, settings = tmp_path / "control.sock", tmp_path / "nfmailguard.toml"
    settings.write_text('[gateway]\nmode = "monitor"\n[limits]\nclosing = 1\nstartup = 1\n')
    options = ("-c", str(settings), "--set", f"service.control={path}", "--driver", driver)
    with (
        Topology(f"nl{os.getpid()}-") as topology,
        MailServer(topology, tmp_path / "mail"),
        Gateway(topology, tmp_path / "gateway", *options),
        Asking(str(path)) as asking,
        topology.enter(CLIENT),
    ):

        def table() -> str:
            done = topology.run(GATEWAY, ["nft", "-s", "list", "table", "inet", "nfmailguard"], capture_output=True)
            return bytes(done.stdout).decode()

        def session() -> smtplib.SMTP:
            return smtplib.SMTP(topology.address(SERVER), timeout=60)

        watched = session()
        before = table()
        settings.write_text('[gateway]\nmode = "enforce"\n[limits]\nclosing = 1\nstartup = 1\n')
        assert asking.ask("reload")["changed"] == ["gateway.mode: monitor -> enforce"]
        assert table() != before
        enforced = session()
        assert watched.ehlo("a.example")[0] == 250
        assert enforced.ehlo("a.example")[0] == 500
        settings.write_text('[gateway]\nmode = "monitor"\n[limits]\nclosing = 1\nstartup = 1\n')
        asking.ask("reload")
        time.sleep(2.5)
        assert table() != before  # one is still enforced
        assert enforced.ehlo("a.example")[0] == 500
        with session() as again:
            assert again.ehlo("a.example")[0] == 250
        assert watched.quit()[0] == 221
        assert enforced.quit()[0] == 221
        deadline = time.monotonic() + 30
        while table() != before:
            assert time.monotonic() < deadline, table()
            time.sleep(0.2)
        assert asking.ask("status")["configuration"]["flows_under_older"] == 0


def test_a_bypass_ends_with_the_rules_of_a_reload_meanwhile(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    path, settings = tmp_path / "control.sock", tmp_path / "nfmailguard.toml"
    settings.write_text('[gateway]\nmode = "monitor"\n')
    options = ("-c", str(settings), "--set", f"service.control={path}")
    with (
        Topology(f"nl{os.getpid()}-") as topology,
        MailServer(topology, tmp_path / "mail"),
        Gateway(topology, tmp_path / "gateway", *options),
        Asking(str(path)) as asking,
        topology.enter(CLIENT),
    ):
        asking.ask("bypass", on=True)
        settings.write_text(FIRST)
        assert asking.ask("reload")["changed"] == ["gateway.mode: monitor -> enforce"]
        assert asking.ask("status")["rules"] == "away: bypass is on"
        with smtplib.SMTP(topology.address(SERVER), timeout=60) as smtp:
            assert smtp.ehlo("a.example")[0] == 250
        asking.ask("bypass", on=False)
        with smtplib.SMTP(topology.address(SERVER), timeout=60) as smtp:
            assert smtp.ehlo("a.example")[0] == 500
