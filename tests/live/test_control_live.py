"""A running gateway is asked how it is, what it counted, what happens; and it says by itself when something is lost."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from queue_router import SERVER, Router, router_or_skip
from test_gateway import PROGRAM, Gateway, dialogue, tables

from nfmailguard.errors import RefusedError
from nfmailguard.service.asking import Asking
from nfmailguard.service.notices import MOST

pytestmark = pytest.mark.live


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def command(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", *words, "--socket", str(path)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def until(asking: Asking, wanted: str) -> dict[str, Any]:
    """The first status in which the gateway is as ``wanted``."""
    deadline = time.monotonic() + 60
    while (status := asking.ask("status"))["state"] != wanted:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return dict(status)


def line_with(gateway: Gateway, words: str) -> str:
    return next(line for line in iter(gateway.read_line, "") if words in line)


def listener() -> socket.socket:
    made = socket.create_server((SERVER[4], 25))
    made.settimeout(10)
    return made


def test_its_flows_are_told(router: Router, path: Path) -> None:
    with (
        Gateway(router, "--mode", "enforce", "--queue", "3-4", "--set", f"service.control={path}"),
        router.run(router.server, listener) as server,
        # A client that says nothing, and a server that has not greeted: an idle loop is made to turn.
        router.run(router.client, lambda: socket.create_connection((SERVER[4], 25), 10)) as client,
        server.accept()[0],
    ):
        port = client.getsockname()[1]
        done = command(path, "flows")
        assert (done.returncode, done.stderr) == (0, "")
        (heading, line, count) = done.stdout.splitlines()
        assert heading.startswith("AGE")
        assert f":{port}" in line
        assert line.endswith("the server's first word")
        assert count == "1 flows"
        (flow,) = json.loads(command(path, "flows", "--json", "--state", "unconfirmed").stdout)["flows"]
        assert (flow["client_port"], flow["profile"], flow["queue"] in (3, 4)) == (port, "pix63", True)
        assert command(path, "flows", "--client", "192.0.2.1").stdout == "0 flows\n"
        wrong = command(path, "flows", "--client", "mail.example")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "no address or network" in wrong.stderr


def test_it_says_how_it_is(router: Router, path: Path) -> None:
    with Gateway(router, "--mode", "enforce", "--queue", "3-4", "--set", f"service.control={path}") as gateway:
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]
        done = command(path, "status")
        assert (done.returncode, done.stderr) == (0, "")
        first, process, rules, confined, *queues = done.stdout.splitlines()
        assert first == "healthy: enforce pix63, queue 3-4, ports 25, hook forward"
        assert f"process {gateway.process.pid}, up 0 min" in process
        assert rules == "rules: in place; 0 packets passed uninspected"
        assert confined.startswith("confined: user root, CAP_NET_ADMIN, ")
        assert [line.partition(":")[0] for line in queues] == ["queue 3", "queue 4"]
        status = json.loads(command(path, "status", "--json").stdout)
        assert sum(queue["packets"] for queue in status["queues"]) > 5
        stats = json.loads(command(path, "stats", "--json").stdout)
        assert stats["packets"] == sum(queue["packets"] for queue in status["queues"])
        assert (stats["finding.command.denied"], stats["degraded_now"]) == (1, 0)
        top = command(path, "top", "--interval", "0.2").stdout
        assert top.startswith("healthy: enforce pix63, queue 3-4")
        assert [line.split()[:2] for line in top.splitlines() if line.startswith("command.")] == [
            ["command.denied", "1"]
        ]
        assert command(path, "events").stderr == "nfmailguard: log.eve: no events are made\n"
        with Asking(str(path)) as asking:
            for name in ("status", "stats"):
                began = time.monotonic()
                asking.ask(name)
                assert time.monotonic() - began < 0.2
        assert gateway.end()[0] == 0
    assert not path.exists()
    assert command(path, "status").returncode == 2


def test_rules_that_are_gone_degrade_it_until_they_are_back(router: Router, path: Path, tmp_path: Path) -> None:
    eve = tmp_path / "eve.json"
    options = ["--set", f"service.control={path}", "--set", f"log.eve={eve}"]
    with Gateway(router, *options) as gateway, Asking(str(path)) as asking:
        router.run(router.gateway, lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
        (reason,) = until(asking, "degraded")["reasons"]
        assert reason["reason"] == "rules"
        assert "our rules are gone" in line_with(gateway, "degraded")
        assert command(path, "status").returncode == 1
        apply = [sys.executable, "-m", "nfmailguard", "rules", "apply", "-c", os.devnull]
        router.run(router.gateway, lambda: subprocess.run(apply, check=True))
        until(asking, "healthy")
        assert "healthy again: rules" in line_with(gateway, "healthy again")
        assert gateway.end()[0] == 0
    events = [json.loads(line) for line in eve.read_text().splitlines()]
    assert [event["health"]["state"] for event in events if event["event_type"] == "health"] == ["degraded", "healthy"]


def test_a_log_that_takes_nothing_is_told_when_it_begins_and_when_it_ends(
    router: Router, path: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    options = ["--set", f"service.control={path}", "--set", f"log.eve={fifo}", "--set", "log.stats=0.2"]
    with Gateway(router, *options) as gateway, Asking(str(path)) as asking:
        (reason,) = until(asking, "degraded")["reasons"]
        assert reason["reason"] == "log.eve"
        assert "events are lost" in line_with(gateway, "degraded: log.eve")
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        until(asking, "healthy")
        assert asking.ask("stats")["events_lost"] > 0
        assert "healthy again: log.eve" in line_with(gateway, "healthy again")
        assert gateway.end()[0] == 0
        os.close(reader)


def test_events_are_followed_and_a_gateway_that_stops_ends_them(router: Router, path: Path, tmp_path: Path) -> None:
    options = ["--mode", "enforce", "--set", f"service.control={path}", "--set", f"log.eve={tmp_path / 'eve'}"]
    with Gateway(router, *options) as gateway:
        argv = [sys.executable, "-m", "nfmailguard", "events", "--socket", str(path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout
            with Asking(str(path)) as asking:
                deadline = time.monotonic() + 60
                found = None
                while found is None:
                    assert time.monotonic() < deadline
                    dialogue(router, b"EHLO me\r\n")
                    asking.ask("status")
                    os.set_blocking(follower.stdout.fileno(), False)
                    lines = [json.loads(line) for line in follower.stdout]
                    found = next((line for line in lines if line["event_type"] == "mailguard"), None)
            assert gateway.end(signal.SIGTERM)[0] == 0
            follower.communicate(timeout=60)
            assert follower.returncode == 0


def test_two_gateways_and_one_socket_the_second_is_not_asked(router: Router, path: Path) -> None:
    with Gateway(router, "--set", f"service.control={path}") as first:
        second_router = ["--no-rules", "--queue", "7", "--set", f"service.control={path}"]
        with Gateway(router, *second_router) as second:
            assert "another gateway answers there" in line_with(second, "note: service.control")
            assert second.end()[0] == 0
        assert json.loads(command(path, "status", "--json").stdout)["pid"] == first.process.pid
        assert tables(router) == "table inet nfmailguard"


def test_systemd_hears_of_a_gateway_that_inspects_reloads_and_ends(router: Router, path: Path, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60)
        wanted = [*PROGRAM, "--queue", "0-1", "--set", f"service.control={path}"]
        systemd = ["env", f"NOTIFY_SOCKET={address}", "WATCHDOG_USEC=400000"]
        with Gateway(router, program=[*systemd, *wanted]) as gateway:
            assert manager.recv(1000).startswith(b"READY=1\nSTATUS=monitor pix63, queue 0-1")
            assert tables(router) == "table inet nfmailguard"
            for _ in range(10):  # no packet comes: the loops turn because they are asked to
                assert manager.recv(1000) == b"WATCHDOG=1"
            argv = [sys.executable, "-m", "nfmailguard", "reload", "--socket", str(path)]
            heard: list[bytes] = []
            with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as reload:
                while len(heard) < 2:  # read at once, as systemd does: a socket holds ten of them
                    line = manager.recv(1000)
                    heard += [line] if line != b"WATCHDOG=1" else []
            assert reload.returncode == 0
            assert heard[0].startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert heard[1].startswith(b"READY=1")
            gateway.process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            while select.select([manager], [], [], 0)[0]:  # what was on its way
                manager.recv(1000)
            assert not select.select([manager], [], [], 1)[0]
            manager.settimeout(60)
            gateway.process.send_signal(signal.SIGCONT)
            assert gateway.end()[0] == 0
            while manager.recv(1000) == b"WATCHDOG=1":
                pass
        assert tables(router) == ""


def test_a_flood_of_hups_is_told_in_few_lines(router: Router) -> None:
    with Gateway(router) as gateway:
        end = time.monotonic() + 8
        while time.monotonic() < end:
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"EHLO me\r\n"]
        code, out, err = gateway.end()
    assert (code, err) == (0, "")
    shown = out.count("SIGHUP: log files")
    assert shown <= 2 * MOST
    assert "too many lines; not shown: " in out or shown < MOST  # a busy machine hears few of them


def test_bypass_takes_it_out_of_the_path_and_back_and_no_connection_breaks(router: Router, path: Path) -> None:
    options = ["--mode", "enforce", "--profile", "pix63", "--set", f"service.control={path}", "--queue", "0-1"]
    with Gateway(router, *options, "--set", "gateway.ports=25,2525") as gateway, Asking(str(path)) as asking:

        def turn(what: str) -> None:
            done = command(path, "bypass", what)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == ("rules: away: bypass is on\n" if what == "on" else "rules: in place\n")

        def through_it() -> None:
            assert asking.ask("stats")["flows_now"] > 0
            turn("on")
            assert asking.ask("stats")["flows_now"] == 0
            assert asking.ask("status")["reasons"][0]["reason"] == "bypass"
            assert tables(router) == ""
            assert dialogue(router, b"EHLO me\r\n")[1] == [b"EHLO me\r\n"]
            turn("off")
            assert asking.ask("status")["state"] == "healthy"
            assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]

        data = b"NOOP\r\n" * 4000
        assert router.transfer(data, during=through_it) == data
        data = b"NOOP\r\n" * 400_000
        flipping = [asking.ask("bypass", on=number % 2 == 0) for number in range(2)]
        assert [answer["rules"] for answer in flipping] == ["away: bypass is on", "in place"]
        flips = router.start(router.gateway, lambda: [asking.ask("bypass", on=number % 2 == 0) for number in range(20)])
        assert router.transfer(data) == data
        flips.result(60)
        assert dialogue(router, b"EHLO me\r\n")[1] == [b"XXXX me\r\n"]
        turn("off")  # it is off
        with pytest.raises(RefusedError, match="on is true or false"):
            asking.ask("bypass", on="yes")
        code, _, err = gateway.end()
    assert (code, err) == (0, "")
    assert tables(router) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--no-rules"], "the rules are your own"), (["--driver", "netfilterqueue"], "only the kernel driver")],
)
def test_bypass_that_cannot_be_is_refused(router: Router, path: Path, options: list[str], told: str) -> None:
    with Gateway(router, "--set", f"service.control={path}", *options):
        done = command(path, "bypass", "on")
        assert (done.returncode, told in done.stderr) == (1, True)


def test_a_reload_is_tried_before_it_is_done(router: Router, path: Path, tmp_path: Path) -> None:
    settings = tmp_path / "nfmailguard.toml"
    settings.write_text('[gateway]\nprofile = "pix63"\n')
    program = [sys.executable, "-m", "nfmailguard", "run", "-c", str(settings), "--set", f"service.control={path}"]
    with Gateway(router, program=program):
        done = command(path, "reload", "--dry-run")
        assert (done.returncode, done.stdout, done.stderr) == (0, "nothing would change\n", "")
        settings.write_text('[gateway]\nprofile = "asa"\n')
        done = command(path, "reload", "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "gateway.profile: pix63 -> asa\nnothing was changed\n"
        settings.write_text('[gateway]\nprofile = "asa"\n[queue]\nlength = 5\nlenght = 6\n')
        done = command(path, "reload", "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        assert "lenght" in done.stderr
        status = json.loads(command(path, "status", "--json").stdout)
        assert status["configuration"]["generation"] == 1
        assert status["policies"] == [{"mode": "monitor", "profile": "pix63"}]


@pytest.mark.parametrize("action", ["pass", "reset"])
def test_what_was_open_before_the_start_is_told(router: Router, path: Path, action: str) -> None:
    """It passes uninspected; where it is reset instead, nothing does."""
    address = (SERVER[4], 25)
    options = ["--mode", "enforce", "--set", f"service.control={path}", "--set", "limits.startup=2"]
    with (
        router.run(router.server, lambda: socket.create_server(address)) as server,
        router.run(router.client, lambda: socket.create_connection(address, timeout=20)) as client,
        server.accept()[0] as link,
        Gateway(router, *options, "--set", f"on.midstream_at_start={action}") as gateway,
    ):
        link.settimeout(20)
        client.sendall(b"EHLO me\r\n")
        if action == "pass":
            assert link.recv(100) == b"EHLO me\r\n"
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        told = "; 1 open since before, uninspected (on.midstream_at_start)\n"
        assert (told in command(path, "status").stdout) == (action == "pass")
        time.sleep(3.5)
        code, out, err = gateway.end()
    assert (code, err) == (0, "")
    wanted = "note: flows open since before the start, which pass uninspected to their ends: 1; "
    assert (wanted in out) == ("; 1 open since before, uninspected" in out) == (action == "pass")
