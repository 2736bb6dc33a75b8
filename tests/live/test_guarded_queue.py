"""The core on a real queue, through either live driver; and the tap's capture, replayed, gives the same."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import Future
from pathlib import Path

import pytest
from queue_router import FAMILY, SERVER, engine, router_or_skip

from nfmailguard.engine import OperationKind
from nfmailguard.policy.model import Mode
from nfmailguard.queues import QueueDriver
from nfmailguard.queues.kernel import KernelQueue
from nfmailguard.queues.netfilterqueue import PackageQueue
from nfmailguard.queues.tap import Tap

pytestmark = pytest.mark.live

MESSAGE = b"Subject: x\r\n\r\n" + b"".join(b"line %d of a long mail\r\n" % n for n in range(200_000)) + b".\r\n"
#: What the client says, what the server answers; the first answer is the greeting.
DIALOGUE = [
    (b"", b"220 mail.example.com ESMTP Postfix\r\n"),
    (b"EHLO client.example.com\r\n", b"502 unknown\r\n"),
    (b"HELO client.example.com\r\n", b"250 mail.example.com\r\n"),
    (b"MAIL FROM:<a@example.com>\r\n", b"250 ok\r\n"),
    (b"RCPT TO:<b@example.com>\r\n", b"250 ok\r\n"),
    (b"DATA\r\n", b"354 go on\r\n"),
    (MESSAGE, b"250 taken\r\n"),
    (b"QUIT\r\n", b"221 bye\r\n"),
]


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (more := connection.recv(size - len(data)))
        assert more
    return data


def records(path: Path) -> list[tuple[int, bytes]]:
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        seconds, nanoseconds, captured, length = struct.unpack_from("=IIII", data, at)
        assert captured == length
        found.append((seconds * 10**9 + nanoseconds, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    return found


def replayed(path: Path, *, can_hold: bool) -> list[tuple[int, bytes]]:
    """What leaves a fresh core that is given the capture."""
    core = engine(Mode.ENFORCE, can_hold=can_hold)
    left, packets, now = [], {}, 0
    for number, (moment, data) in enumerate(records(path)):
        packets[number] = data
        while (deadline := core.next_deadline) is not None and deadline <= moment:
            now = max(now, deadline)
            left += [(now, operation) for operation in core.expire(now)]
        now = moment
        left += [(now, operation) for operation in core.process(data, now, number)]
    return [
        (moment, packets[number] if data is None else data)
        for moment, (kind, number, data, _) in left
        if kind != OperationKind.DROP
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("driver", [KernelQueue, PackageQueue])
def test_a_guarded_dialogue_and_its_replay(
    driver: type[KernelQueue | PackageQueue], version: int, tmp_path: Path
) -> None:
    can_hold = driver is KernelQueue
    tap = Tap(str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap"))
    queue: QueueDriver = driver(engine(Mode.ENFORCE, can_hold=can_hold), 5, tap=tap)
    listening: Future[None] = Future()
    address = (SERVER[version], 25)

    def serve() -> list[bytes]:
        with socket.create_server(address, family=FAMILY[version]) as server:
            listening.set_result(None)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                heard = []
                for command, answer in DIALOGUE:
                    heard.append(read(connection, len(command)))
                    connection.sendall(answer)
                return heard

    def deliver() -> list[bytes]:
        with socket.create_connection(address, timeout=30) as connection:
            seen = []
            for command, answer in DIALOGUE:
                connection.sendall(command)
                seen.append(read(connection, len(answer)))
            return seen

    with router_or_skip() as router:
        router.queue(5, version=version)
        router.run(router.gateway, queue.open)
        loop = router.start(router.gateway, queue.run)
        server = router.start(router.server, serve)
        listening.result(60)
        seen = router.run(router.client, deliver)
        heard = server.result(60)
        queue.stop()
        loop.result(60)
        queue.close()
    assert heard[1] == b"XXXX client.example.com\r\n"
    assert heard[:1] + heard[2:] == [command for command, _ in DIALOGUE[:1] + DIALOGUE[2:]]
    assert seen[0].startswith(b"220 ***")
    assert len(seen[0]) == len(DIALOGUE[0][1])
    assert seen[1:] == [answer for _, answer in DIALOGUE[1:]]
    counters = queue.counters()
    assert counters["replaced"] >= 2
    assert counters["packets"] == counters["accepted"] + counters["replaced"] + counters["dropped"]
    assert counters["verdict_errors"] == counters["enobufs"] == 0
    assert replayed(tmp_path / "in.pcap", can_hold=can_hold) == records(tmp_path / "out.pcap")
