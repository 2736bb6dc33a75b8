"""A gateway that is replaced by another while mail goes through it: nobody at either end sees that."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from queue_router import SERVER, Router, router_or_skip
from test_gateway import PROGRAM, Gateway, tables

from nfmailguard.queues.kernel import queue_states
from nfmailguard.service.asking import Asking

pytestmark = pytest.mark.live


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


class Relay:
    """Gateways one after the other, each with all of ``options``; ``at`` is the one that runs."""

    def __init__(self, router: Router, folder: Path, *options: str, manager: Manager | None = None) -> None:
        self.router, self.path = router, folder / "control.sock"
        self.events = folder / "eve.json"
        self.options = ("--set", f"service.control={self.path}", "--set", f"log.eve={self.events}", *options)
        self.at = manager.start(self) if manager else Gateway(router, *self.options)
        line = self.at.first_line
        while not line.startswith("nfmailguard: ready"):
            assert line, self.at.process.communicate()
            assert manager, line
            line = self.at.read_line()

    def hand_over(self, *more: str, program: Sequence[str] = PROGRAM) -> list[str]:
        """The next one takes over, and the one before ends; what the next one says first."""
        before = self.at
        self.at = Gateway(self.router, *self.options, "--hand-over", *more, program=program)
        lines = [self.at.first_line]
        while not lines[-1].startswith("nfmailguard: hand-over"):
            assert lines[-1], (lines, self.at.process.communicate(), before.process.poll())
            lines.append(self.at.read_line())
        out, err = before.process.communicate(timeout=60)
        assert (before.process.returncode, err) == (0, ""), out
        assert "hand-over: the successor has taken over" in out
        return lines

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Events of one type so far."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return [event for event in map(json.loads, lines) if event["event_type"] == kind]

    def line_with(self, words: str) -> str:
        return next(line for line in iter(self.at.read_line, "") if words in line)

    def ask(self, command: str) -> Any:
        with Asking(str(self.path)) as asking:
            return asking.ask(command)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.at.__exit__()


def test_a_connection_goes_on_and_stays_guarded(router: Router, tmp_path: Path) -> None:
    listener = router.run(router.server, lambda: socket.create_server((SERVER[4], 25)))
    with Relay(router, tmp_path, "--mode", "enforce") as relay, listener:
        client = router.run(router.client, lambda: socket.create_connection((SERVER[4], 25), 10))
        server, _ = listener.accept()
        server.settimeout(10)
        with client, server:
            server.sendall(b"220 mail\r\n")
            assert client.recv(100) == b"220 ****\r\n"
            client.sendall(b"HELO a\r\nMAI")
            assert server.recv(100) == b"HELO a\r\nMAI"
            before = relay.ask("stats")
            lines = relay.hand_over()
            assert ": 1 flows, 0 packets held; for " in lines[-1]
            client.sendall(b"Q secret\r\n")
            assert server.recv(100) == b"X secret\r\n"
            server.sendall(b"250 ok\r\n500 what\r\n")
            assert client.recv(100) == b"250 ok\r\n500 what\r\n"
            relay.hand_over()
            client.sendall(b"VRFY x\r\n")
            assert server.recv(100) == b"XXXX x\r\n"
            after, status = relay.ask("stats"), relay.ask("status")
    assert (after["flows_opened"], after["flows_midstream"], after["finding.command.denied"]) == (1, 0, 2)
    assert after["queue.packets"] > before["queue.packets"]
    assert after["queue.uninspected"] == 0
    assert status["taken_over"]["flows"] == 1
    assert status["rules"] == "in place"


#: A successor that ``os.execv`` would be, but for what stands before `main`.
CHANGED = """
import os
from nfmailguard.cext.handover import state
from nfmailguard.service import handover
{change}
from nfmailguard.cli import main
main()
"""


class Between:
    """A client and a server with a connection through the router."""

    def __init__(self, router: Router, listener: socket.socket) -> None:
        self.client = router.run(router.client, lambda: socket.create_connection((SERVER[4], 25), 10))
        self.server, _ = listener.accept()
        self.server.settimeout(10)

    def say(self, octets: bytes) -> bytes:
        """What the server reads of it."""
        self.client.sendall(octets)
        return self.server.recv(1000)

    def answer(self, octets: bytes) -> bytes:
        self.server.sendall(octets)
        return self.client.recv(1000)

    def __enter__(self) -> Between:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def listener(router: Router) -> Iterator[socket.socket]:
    with router.run(router.server, lambda: socket.create_server((SERVER[4], 25))) as made:
        yield made


def program(change: str) -> tuple[str, ...]:
    return (sys.executable, "-c", CHANGED.format(change=change), "run", "-c", os.devnull)


def waiting(router: Router) -> int:
    """Packets in queue 0 that nobody has answered."""
    return router.run(router.gateway, queue_states)[0].total


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_held_packet_is_held_on_and_let_go_by_the_successor(
    router: Router, listener: socket.socket, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce") as relay, Between(router, listener) as between:
        between.answer(b"220 mail\r\n")
        assert between.say(b"DATA\r\n") == b"DATA\r\n"
        between.client.sendall(b"EXPN x\r\n")
        until(lambda: waiting(router) == 1)
        assert "1 flows, 1 packets held" in relay.hand_over()[-1]
        assert waiting(router) == 1
        assert between.answer(b"500 no\r\n") == b"500 no\r\n"
        assert between.server.recv(100) == b"XXXX x\r\n"
        assert waiting(router) == 0
        counters = relay.ask("stats")
        assert (counters["held"], counters["held_expired"]) == (1, 0)
        assert counters["queue.dropped"] == counters["drop.repeated"], "the client said it again while it waited"


def test_a_state_of_another_version_is_left_and_what_was_held_is_dropped_at_once(
    router: Router, listener: socket.socket, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce") as relay, Between(router, listener) as between:
        between.answer(b"220 mail\r\n")
        between.say(b"DATA\r\n")
        between.client.sendall(b"EXPN x\r\n")
        until(lambda: waiting(router) == 1)
        lines = relay.hand_over(program=program("state.version = lambda: (1, 1)"))
        assert "and nothing else: its state is that of another version" in lines[-1]
        with Between(router, listener) as another:
            another.answer(b"220 mail\r\n")
            until(lambda: waiting(router) == 0)
            assert another.say(b"EXPN y\r\n") == b"XXXX y\r\n", "what begins is guarded"
            # The client repeats it; it was open before, and goes on uninspected as after a crash.
            assert between.server.recv(100) == b"EXPN x\r\n"
        counters, status = relay.ask("stats"), relay.ask("status")
    assert counters["flows_midstream"] >= 1
    assert counters["queue.verdict_errors"] == 0
    assert status["taken_over"]["flows"] == 0
    told = [json.loads(line) for line in relay.events.read_text().splitlines()]
    assert [event["health"]["hand_over"] for event in told if "hand_over" in event.get("health", {})] == [
        "handed_over", "without_state",
    ]  # fmt: skip


def test_a_successor_that_does_not_come_to_its_end_has_changed_nothing(
    router: Router, listener: socket.socket, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce") as relay, Between(router, listener) as between:
        between.answer(b"220 mail\r\n")
        dies = program("handover.RunningGateway.commit = lambda self: os._exit(9)")
        with Gateway(router, *relay.options, "--hand-over", program=dies) as successor:
            assert successor.process.wait(60) == 9
        assert "the successor has not taken over; all goes on here" in relay.line_with("hand-over")
        assert between.say(b"EXPN x\r\n") == b"XXXX x\r\n"
        assert relay.ask("stats")["flows_opened"] == 1
        between.answer(b"500 no\r\n")
        relay.hand_over()
        assert between.say(b"EXPN y\r\n") == b"XXXX y\r\n"


def test_what_cannot_change_is_refused_and_the_gateway_goes_on(
    router: Router, listener: socket.socket, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce") as relay, Between(router, listener) as between:
        between.answer(b"220 mail\r\n")
        more = ("--set", "queue.length=100", "--set", "limits.flows=7")
        with Gateway(router, *relay.options, "--hand-over", *more) as successor:
            out, err = successor.process.communicate(timeout=60)
        assert (successor.process.returncode, out) == (1, "")
        assert "hand-over: queue.length changed from 4096 to 100: needs a restart" in err
        assert "hand-over: limits.flows changed" in err
        with Gateway(router, *relay.options, "--hand-over", "--no-rules") as successor:
            assert successor.process.wait(60) == 1
        for more in (("--tap", str(tmp_path / "in.pcap")), ("--queue", "7")):
            with Gateway(router, *relay.options, "--hand-over", *more) as successor:
                assert successor.process.wait(60) != 0
        assert between.say(b"EXPN x\r\n") == b"XXXX x\r\n"


def test_flows_keep_their_rules_and_new_ones_come_under_the_successors(
    router: Router, listener: socket.socket, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce") as relay, Between(router, listener) as old:
        old.answer(b"220 mail\r\n")
        relay.hand_over("--profile", "asa")
        assert old.say(b"EHLO a\r\n") == b"XXXX a\r\n"
        with Between(router, listener) as new:
            new.answer(b"220 mail\r\n")
            assert new.say(b"EHLO a\r\n") == b"EHLO a\r\n"
            assert relay.ask("status")["configuration"]["flows_under_older"] == 1
            relay.hand_over("--profile", "asa")
            assert old.answer(b"500 no\r\n") == b"500 no\r\n"
            assert old.say(b"EHLO b\r\n") == b"XXXX b\r\n"
            found = lambda: [event["mailguard"]["profile"] for event in relay.told("mailguard")]  # noqa: E731
            until(lambda: len(found()) == 4)
            assert found() == ["pix63", "pix63", "asa", "pix63"]


def test_where_no_gateway_runs_it_starts_as_any_other(router: Router, tmp_path: Path) -> None:
    options = ("--set", f"service.control={tmp_path / 'control.sock'}", "--hand-over")
    with Gateway(router, *options) as gateway:
        assert "no gateway answers" in gateway.first_line
        assert gateway.read_line().startswith("nfmailguard: ready")
        assert gateway.end()[0] == 0
    with Gateway(router, "--set", "service.control=", "--hand-over") as gateway:
        assert gateway.process.wait(60) == 2


class Manager:
    """What systemd does for a service with FileDescriptorStoreMax=: keeps what it is sent, and hands it on."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.link.bind(str(self.address))
        self.kept: dict[str, int] = {}
        self.said: list[str] = []
        self.keeping = True
        self.ending = False
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            message, files, _, _ = socket.recv_fds(self.link, 4096, 4)
            words = dict(line.partition("=")[::2] for line in message.decode().splitlines())
            self.said += words
            name = words.get("FDNAME", "")
            if "FDSTORE" in words and self.keeping:
                self.kept[name] = files.pop()
            elif "FDSTOREREMOVE" in words:
                os.close(self.kept.pop(name))
            for file in files:  # of a barrier, too
                os.close(file)
            if self.ending:
                return

    def start(self, relay: Relay, *more: str) -> Gateway:
        """The gateway that it starts next, with what it keeps."""
        names, files = list(self.kept), list(self.kept.values())
        begin = (
            "import fcntl, os\n"
            f"files = {files}\n"
            "moved = [fcntl.fcntl(file, fcntl.F_DUPFD, 100) for file in files]\n"
            "[os.close(file) for file in files]\n"
            "[os.dup2(file, 3 + place) for place, file in enumerate(moved)]\n"
            "[os.close(file) for file in moved]\n"
            f"os.environ |= dict(NOTIFY_SOCKET={str(self.address)!r}, LISTEN_PID=str(os.getpid()))\n"
            f"os.environ |= dict(LISTEN_FDS='{len(files)}', LISTEN_FDNAMES={':'.join(names)!r})\n"
            "from nfmailguard.cli import main\n"
            "main()\n"
        )
        program = (sys.executable, "-c", begin, "run", "-c", os.devnull)
        return Gateway(relay.router, *relay.options, "--hand-over", *more, program=program, files=tuple(files))

    def restart(self, relay: Relay, *more: str) -> list[str]:
        """As `systemctl restart`; what the next gateway says up to its word on the hand-over."""
        code, out, err = relay.at.end()
        assert (code, err) == (0, ""), out
        assert not self.kept or "the service manager keeps queues and flows" in out
        relay.at = self.start(relay, *more)
        lines = [relay.at.first_line]
        while not lines[-1].startswith("nfmailguard: hand-over"):
            assert lines[-1], (lines, relay.at.process.communicate())
            lines.append(relay.at.read_line())
        return lines

    def close(self) -> None:
        self.ending = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect(str(self.address))
            link.send(b"X=1")
        self.thread.join(10)
        self.link.close()
        for file in self.kept.values():
            os.close(file)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def test_over_a_managers_restart_a_connection_goes_on_and_packets_wait(
    router: Router, listener: socket.socket, manager: Manager, tmp_path: Path
) -> None:
    options = ("--mode", "enforce", "--queue", "0-1")
    with Relay(router, tmp_path, *options, manager=manager) as relay, Between(router, listener) as between:
        between.answer(b"220 mail\r\n")
        assert between.say(b"HELO a\r\nMAI") == b"HELO a\r\nMAI"
        for letter in (b"a", b"b"):
            code, out, _ = relay.at.end()
            assert (code, tables(router)) == (0, "table inet nfmailguard"), out
            assert set(manager.kept) == {"nfmailguard-state", "nfmailguard-queue-0", "nfmailguard-queue-1"}
            between.client.sendall(b"Q secret" + letter + b"\r\nMAI")
            until(lambda: sum(state.total for state in router.run(router.gateway, queue_states).values()) > 0)
            relay.at = manager.start(relay)
            assert "taken over from process" in relay.line_with("hand-over")
            assert between.server.recv(100) == b"X secret" + letter + b"\r\nMAI"
            until(lambda: not manager.kept)
        counters, status = relay.ask("stats"), relay.ask("status")
    assert (counters["flows_opened"], counters["flows_midstream"], counters["queue.uninspected"]) == (1, 0, 0)
    assert (status["taken_over"]["flows"], status["rules"]) == (1, "in place")


def test_what_a_manager_kept_and_does_not_fit_is_let_go_and_said(
    router: Router, listener: socket.socket, manager: Manager, tmp_path: Path
) -> None:
    with Relay(router, tmp_path, "--mode", "enforce", manager=manager) as relay:
        said = manager.restart(relay, "--queue", "3")[-1]
        assert said.endswith("hand-over: queue.numbers changed from 0 to 3; started as if there were none\n")
        relay.line_with("ready")
        assert list(router.run(router.gateway, queue_states)) == [3]
        assert manager.kept == {}
        # Rules that were taken away meanwhile: the queues are taken, and nothing is believed of the flows.
        with Between(router, listener) as between:
            between.answer(b"220 mail\r\n")
            assert relay.at.end()[0] == 0
            remove = [sys.executable, "-m", "nfmailguard", "rules", "remove"]
            router.run(router.gateway, lambda: subprocess.run(remove, check=True))
            assert between.say(b"EXPN x\r\n") == b"EXPN x\r\n"
            relay.at = manager.start(relay, "--queue", "3")
            assert "rules were taken away meanwhile" in relay.line_with("hand-over")
            assert tables(router) == "table inet nfmailguard"
            with Between(router, listener) as another:
                another.answer(b"220 mail\r\n")
                assert another.say(b"EXPN y\r\n") == b"XXXX y\r\n"


def test_a_manager_that_keeps_nothing_starts_a_gateway_as_any_other(
    router: Router, listener: socket.socket, manager: Manager, tmp_path: Path
) -> None:
    manager.keeping = False
    with Relay(router, tmp_path, "--mode", "enforce", manager=manager) as relay:
        assert "no gateway answers" in manager.restart(relay)[-1]
        relay.line_with("ready")
        with Between(router, listener) as between:
            between.answer(b"220 mail\r\n")
            assert between.say(b"EXPN x\r\n") == b"XXXX x\r\n"


class Mailbox:
    """A mail server's end: every mail as it arrived, and every command that should never have."""

    def __init__(self) -> None:
        self.mails: dict[str, bytes] = {}
        self.denied: list[str] = []
        self.lost = Counter[str]()

    async def handle_DATA(self, server: SMTP, session: object, envelope: Any) -> str:  # noqa: N802
        assert envelope.mail_from not in self.mails, "a mail arrived twice"
        self.mails[envelope.mail_from] = envelope.original_content
        return "250 taken"


class Server(SMTP):
    """Of what pix63 denies it hears these only where they pass."""

    async def smtp_EXPN(self, arg: str) -> None:  # noqa: N802
        self.event_handler.denied.append(f"EXPN {arg}")
        await self.push("250 me")

    async def smtp_VRFY(self, arg: str) -> None:  # noqa: N802
        self.event_handler.denied.append(f"VRFY {arg}")
        await self.push("250 me")

    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.lost[type(error).__name__] += 1
        super().connection_lost(error)


class Crowd:
    """Clients that send mail after mail, slowly, each with a denied command in between, until they are to end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: dict[str, bytes] = {}
        self.broken: list[str] = []
        self.ending = threading.Event()
        self.denied = 0
        self.greeted = 0

    async def talk(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(SERVER[4], 25)

        async def ask(line: bytes, *wanted: bytes) -> None:
            # In two segments: a hand-over may come between them.
            middle = len(line) // 2
            for part in (line[:middle], line[middle:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            reply = await asyncio.wait_for(reader.readline(), 60)
            assert reply.startswith(wanted), (line, reply)

        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"220 ")
        self.greeted += 1
        await ask(b"HELO me\r\n", b"250")
        count = 0
        while count == 0 or not self.ending.is_set():
            await ask(b"EXPN secret%d\r\n" % number, b"5")
            await ask(b"VRFY secret%d\r\n" % number, b"5")
            self.denied += 2
            sender = f"m{number}.{count}@example.org"
            text = b"".join(b"%d of mail %d: %s\r\n" % (line, number, b"x" * 60) for line in range(120))
            await ask(f"MAIL FROM:<{sender}>\r\n".encode(), b"250")
            await ask(b"RCPT TO:<b@example.org>\r\n", b"250")
            await ask(b"DATA\r\n", b"354")
            for at in range(0, len(text), 700):
                writer.write(text[at : at + 700])
                await writer.drain()
                await asyncio.sleep(0.05)
            await ask(b".\r\n", b"250")
            self.sent[sender] = text
            count += 1
        await ask(b"QUIT\r\n", b"221")
        writer.close()
        await writer.wait_closed()

    async def one(self, number: int) -> None:
        try:
            await asyncio.sleep(number * 0.01)
            await self.talk(number)
        except (AssertionError, OSError, TimeoutError) as error:
            self.broken.append(f"{number}: {type(error).__name__}: {error}")

    def run(self) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self.one(number) for number in range(self.size)))

        asyncio.run(all_of_them())


class MailServer:
    """An aiosmtpd on the router's server, in a thread."""

    def __init__(self, router: Router) -> None:
        self.mailbox = Mailbox()
        self.loop = asyncio.new_event_loop()
        ready: Future[None] = Future()

        def serve() -> None:
            asyncio.set_event_loop(self.loop)
            made = self.loop.create_server(lambda: Server(self.mailbox, timeout=300), SERVER[4], 25, backlog=512)
            self.server = self.loop.run_until_complete(made)
            ready.set_result(None)
            self.loop.run_forever()

        self.thread = router.start(router.server, serve)
        ready.result(10)

    def close(self) -> None:
        def end() -> None:
            self.server.close()
            self.loop.stop()

        self.loop.call_soon_threadsafe(end)
        self.thread.result(10)
        self.loop.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("by", ["successor", "manager"])
def test_200_connections_send_mail_while_the_gateway_is_replaced_20_times(
    by: str, router: Router, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosmtpd.smtp.BOGUS_LIMIT", 10**6)  # masked commands in one connection, before it hangs up
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    crowd = Crowd(200)
    options = ("--mode", "enforce", "--queue", "0-1", "--set", "limits.log_rate=100000000")
    with Relay(router, tmp_path, *options, manager=manager if by == "manager" else None) as relay:
        server = MailServer(router)
        clients = router.start(router.client, crowd.run)
        try:
            while crowd.greeted < crowd.size and not crowd.broken:
                time.sleep(0.1)
            flows = []
            for _ in range(20):
                lines = manager.restart(relay) if by == "manager" else relay.hand_over()
                assert ": taken over from process" in lines[-1]
                flows.append(relay.ask("status")["taken_over"]["flows"])
        finally:
            crowd.ending.set()
            clients.result(300)
            server.close()
        # Events are written by the nicest thread: on a busy machine the last of them a moment later.
        deadline = time.monotonic() + 30
        while relay.ask("stats")["mails.accepted"] < len(crowd.sent) and time.monotonic() < deadline:
            time.sleep(0.2)
        counters = relay.ask("stats")
        status = relay.ask("status")
        code, _, _ = relay.at.end()
    assert crowd.broken == []
    assert min(flows) >= 200
    assert len(crowd.sent) >= 200
    assert server.mailbox.mails == crowd.sent, "0 lost, 0 altered"
    assert server.mailbox.denied == []
    assert server.mailbox.lost == {"NoneType": 200}
    assert counters["finding.command.denied"] == crowd.denied
    assert counters["flows_opened"] == 200
    told = Counter(event["smtp"]["mail_from"] for event in relay.told("smtp"))
    assert told == Counter(crowd.sent.keys()), "each mail is told once, whole"
    assert counters["mails.accepted"] == len(crowd.sent)
    assert {
        name: counters[name] for name in ("flows_midstream", "flows_reset", "queue.uninspected", "queue.verdict_errors")
    } == dict.fromkeys(("flows_midstream", "flows_reset", "queue.uninspected", "queue.verdict_errors"), 0)
    assert status["state"] == "healthy"
    # Who runs at the service's end takes the rules away.
    assert (code, tables(router)) == (0, "table inet nfmailguard" if by == "manager" else "")
