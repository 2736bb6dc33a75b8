"""``nfmailguard run`` as a process on a router: it works, and however it ends nothing is left."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from queue_router import SERVER, Router, router_or_skip

pytestmark = pytest.mark.live

PROGRAM = [sys.executable, "-m", "nfmailguard", "run", "-c", os.devnull, "--set", "service.control="]
DRIVERS = ["kernel", "netfilterqueue"]


def test_it_says_where_nobody_sees_what_is_found() -> None:
    with router_or_skip() as router:
        for options, wanted in (((), 1), (("--set", "log.eve=/dev/null"), 0)):
            with Gateway(router, *options) as gateway:
                assert gateway.process.stdout
                gateway.process.send_signal(signal.SIGTERM)
                out = gateway.process.stdout.read()  # `communicate` misses what was read ahead
                assert gateway.process.wait(60) == 0
            assert out.count("note: findings are counted, and events written nowhere") == wanted


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


class Gateway:
    """A gateway that was started, and may be ready."""

    def __init__(
        self, router: Router, *options: str, program: Sequence[str] = PROGRAM, files: Sequence[int] = ()
    ) -> None:
        self.router = router
        command = [*program, *options]
        self.process: subprocess.Popen[str] = router.run(
            router.gateway,
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=files,
            ),
        )
        self.first_line = self.read_line()

    def read_line(self) -> str:
        """Not an octet more: what is read ahead nobody sees who waits for the pipe."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], 60)[0], "the gateway says nothing"
            octet = os.read(self.process.stdout.fileno(), 1)
            if not octet:
                break
            line += octet
        return line.decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Its exit code, and the rest of what it printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def refused(router: Router, *options: str) -> tuple[int, str]:
    """Exit code and what is told when a gateway does not start."""
    with Gateway(router, *options) as gateway:
        assert gateway.first_line == ""
        _, err = gateway.process.communicate(timeout=60)
        return gateway.process.returncode, err


def tables(router: Router) -> str:
    command = ["nft", "list", "tables"]
    return router.run(
        router.gateway, lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ).strip()


def dialogue(router: Router, *commands: bytes, version: int = 4) -> tuple[list[bytes], list[bytes]]:
    """What the client read, and what the server read, over port 25; the server greets and says 250."""
    address = (SERVER[version], 25)
    server = router.run(
        router.server,
        lambda: socket.create_server(address, family=socket.AF_INET if version == 4 else socket.AF_INET6),
    )

    def serve() -> list[bytes]:
        server.settimeout(60)
        connection, _ = server.accept()
        connection.settimeout(60)
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 mail.example.com ESMTP\r\n")
            heard = []
            for line in lines:
                heard.append(line)
                connection.sendall(b"250 ok\r\n")
            return heard

    def talk() -> list[bytes]:
        with socket.create_connection(address, timeout=60) as connection, connection.makefile("rb") as lines:
            heard = [lines.readline()]
            for command in commands:
                connection.sendall(command)
                heard.append(lines.readline())
            return heard

    with server:
        serving = router.start(router.server, serve)
        return router.run(router.client, talk), serving.result(60)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("version", [4, 6])
def test_mail_is_guarded_and_told_of(router: Router, tmp_path: Path, driver: str, version: int) -> None:
    eve = tmp_path / "eve.json"
    options = ["--mode", "enforce", "--profile", "pix63", "--driver", driver, "--set", f"log.eve={eve}"]
    with Gateway(router, *options) as gateway:
        assert gateway.first_line.startswith("nfmailguard: ready: enforce pix63, queue 0, ports 25, hook forward")
        assert tables(router) == "table inet nfmailguard"
        client, server = dialogue(router, b"EHLO me\r\n", b"HELO me\r\n", version=version)
        assert client[1:] == [b"250 ok\r\n"] * 2
        assert b"mail.example.com" not in client[0]
        assert len(client[0]) == len(b"220 mail.example.com ESMTP\r\n")
        assert server == [b"XXXX me\r\n", b"HELO me\r\n"]
        code, out, err = gateway.end()
    assert (code, err) == (0, "")
    assert "command.denied 1" in out
    assert tables(router) == ""
    events = [json.loads(line) for line in eve.read_text().splitlines()]
    assert [event["mailguard"]["finding"] for event in events if event["event_type"] == "mailguard"] == [
        "banner.masked",
        "command.denied",
    ]
    stats = events[-1]["stats"]
    assert events[-1]["event_type"] == "stats"
    assert stats["packets"] == stats["accepted"] + stats["replaced"] + stats["dropped"] > 0
    assert stats["replaced"] >= 3  # and the SYN, which agrees on no timestamps; an ACK that could be a cookie's
    if driver == "kernel":
        assert stats["queue.uninspected"] == 0


def test_a_queues_thread_stays_on_its_cpu_polls_and_the_events_thread_gives_way(router: Router) -> None:
    cpu = max(os.sched_getaffinity(0))
    options = ["--mode", "enforce", "--set", f"queue.cpus={cpu}", "--set", "queue.busy_poll=200"]
    with Gateway(router, *options) as gateway:
        client, _ = dialogue(router, b"HELO me\r\n")
        assert client[1:] == [b"250 ok\r\n"]
        deadline = time.monotonic() + 60
        while os.getpriority(os.PRIO_PROCESS, gateway.process.pid) != 19:  # soon after it has said that it is ready
            assert time.monotonic() < deadline
            time.sleep(0.02)
        tasks = {}
        for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
            nice = int((task / "stat").read_text().rpartition(")")[2].split()[16])
            tasks[int(task.name)] = (os.sched_getaffinity(int(task.name)), nice)
        main = tasks.pop(gateway.process.pid)
        assert main == (os.sched_getaffinity(0), 19)
        assert ({cpu}, os.getpriority(os.PRIO_PROCESS, 0)) in tasks.values()
        code, _, err = gateway.end()
    assert (code, err) == (0, "")


def test_a_cpu_that_is_not_there_is_refused(router: Router) -> None:
    code, told = refused(router, "--set", "queue.cpus=4095")
    assert code == 2
    assert "queue.cpus: 4095; this process may run on " in told


@pytest.mark.parametrize("hook", ["input", "output", "input,output"])
def test_a_mail_host_guards_itself(router: Router, hook: str) -> None:
    with Gateway(router, "--mode", "enforce", "--set", f"gateway.hook={hook}"):
        heard = []

        def talk() -> None:
            with (
                socket.create_server(("127.0.0.1", 25)) as server,
                socket.create_connection(("127.0.0.1", 25), timeout=60) as client,
            ):
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"220 mail.example.com ESMTP\r\n")
                    heard.append(client.recv(100))
                    client.sendall(b"EHLO me\r\n")
                    heard.append(accepted.recv(100))

        router.run(router.gateway, talk)
        assert b"mail.example.com" not in heard[0]
        assert heard[1] == b"XXXX me\r\n"


def test_rules_pick_the_mode_of_a_flow(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text('[gateway]\nmode = "enforce"\n[[rule]]\nfrom = "10.99.1.0/24"\nmode = "monitor"\n')
    with Gateway(router, "-c", str(path)):
        client, server = dialogue(router, b"EHLO me\r\n")
        assert (client[0], server) == (b"220 mail.example.com ESMTP\r\n", [b"EHLO me\r\n"])
        client, server = dialogue(router, b"EHLO me\r\n", version=6)
        assert b"mail" not in client[0]
        assert server == [b"XXXX me\r\n"]


def test_a_dry_run_changes_nothing(router: Router) -> None:
    with Gateway(router, "--mode", "enforce", "--dry-run") as gateway:
        client, server = dialogue(router, b"EHLO me\r\n")
        assert (client[0], server) == (b"220 mail.example.com ESMTP\r\n", [b"EHLO me\r\n"])
        assert "command.denied 1" in gateway.end()[1]


def test_after_a_crash_the_table_goes_with_the_next_start_or_remove(router: Router) -> None:
    remove = [sys.executable, "-m", "nfmailguard", "rules", "remove"]
    with Gateway(router, "--mode", "enforce") as gateway:
        gateway.end(signal.SIGKILL)
    assert tables(router) == "table inet nfmailguard"
    with Gateway(router, "--queue", "7") as gateway:
        assert dialogue(router, b"HELO me\r\n")[1] == [b"HELO me\r\n"]
        gateway.end(signal.SIGKILL)
    for _ in range(2):
        assert router.run(router.gateway, lambda: subprocess.run(remove, check=False)).returncode == 0
        assert tables(router) == ""


def test_connections_outlive_the_gateway(router: Router) -> None:
    with Gateway(router, "--mode", "enforce", "--set", "gateway.ports=2525") as gateway:
        data = b"NOOP\r\n" * 2000
        assert router.transfer(data, during=gateway.end) == data


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_taken_queue_is_told_with_its_holder(router: Router, driver: str) -> None:
    with Gateway(router, "--queue", "3") as first:
        code, err = refused(router, "--queue", "2-3", "--driver", driver)
        assert (code, err.count("\n")) == (1, 1)
        assert f"queue 3 is taken by process {first.process.pid}" in err
        # The first one goes on.
        assert tables(router) == "table inet nfmailguard"
        assert dialogue(router, b"HELO me\r\n")[1] == [b"HELO me\r\n"]


def test_the_rules_of_another_gateway_are_not_taken_away(router: Router) -> None:
    with Gateway(router, "--queue", "3") as first:
        code, err = refused(router, "--queue", "4")
        assert (code, err.count("\n")) == (1, 1)
        assert f"queue 3 is read by process {first.process.pid}" in err
        assert dialogue(router, b"HELO me\r\n")[1] == [b"HELO me\r\n"]
        assert "done: 0 packets" not in first.end()[1]


def test_rules_that_somebody_flushed_are_missed_and_not_put_back(router: Router) -> None:
    with Gateway(router, "--set", "log.stats=0.2") as gateway:
        router.run(router.gateway, lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
        lines = iter(gateway.read_line, "")  # a note on the socket buffer may come first
        assert any("our rules are gone" in line for line in lines)
        assert tables(router) == ""
        assert gateway.end()[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--profile", "pix7"], 2, "profile 'pix7'"),
        (["--set", "log.eve=/nonexistent/eve"], 2, "/nonexistent/eve: No such file"),
        (["--tap", "/nonexistent/in.pcap"], 2, "/nonexistent/in.pcap: cannot write"),
        (["--tap", "/nonexistent/in.pcap", "--queue", "0-1"], 2, "--tap: a tap serves one queue"),
        (["-c", "/nonexistent/nfmailguard.toml"], 2, "/nonexistent/nfmailguard.toml: No such file"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_nothing(
    router: Router, options: list[str], code: int, told: str
) -> None:
    exit_code, err = refused(router, *options)
    assert (exit_code, err.count("\n")) == (code, 1)
    assert told in err
    assert tables(router) == ""


def test_an_interface_that_is_not_there_is_named(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text('[[rule]]\nin = "eth77"\nmode = "enforce"\n')
    assert refused(router, "-c", str(path)) == (2, "nfmailguard: rule 1: in: there is no interface 'eth77'\n")


def test_without_privilege_it_says_what_it_needs(router: Router) -> None:
    command = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--", *PROGRAM]
    done = router.run(
        router.gateway, lambda: subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "run as root or with CAP_NET_RAW and CAP_NET_ADMIN" in done.stderr
    assert tables(router) == ""


def test_a_ruleset_of_ones_own_is_left_alone(router: Router) -> None:
    with Gateway(router, "--no-rules") as gateway:
        assert tables(router) == ""
        assert gateway.end()[0] == 0


def test_events_on_standard_output_are_nothing_but_events(router: Router) -> None:
    with Gateway(router, "--set", "log.eve=-", "--set", "log.stats=0.2") as gateway:
        assert json.loads(gateway.first_line)["event_type"] == "stats"
        time.sleep(0.3)
        code, out, err = gateway.end()
    assert code == 0
    assert {json.loads(line)["event_type"] for line in out.splitlines()} == {"stats"}
    assert "ready" in err
