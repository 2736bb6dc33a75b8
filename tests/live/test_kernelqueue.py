"""The kernel driver on a real queue, between real TCP peers."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_router import SERVER, Router, engine, router_or_skip

from nfmailguard.cext.drivers.netlink import emit_verdict, parse_messages
from nfmailguard.errors import CaptureError, QueueError
from nfmailguard.queues.injector import INJECT_MARK, Injector
from nfmailguard.queues.kernel import KernelQueue, program
from nfmailguard.queues.tap import Tap

pytestmark = pytest.mark.live

BULK = random.Random(1).randbytes(20_000_000)
UDP = 17


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


@contextmanager
def running(router: Router, queue: KernelQueue) -> Iterator[Future[None]]:
    router.run(router.gateway, queue.open)
    loop = router.start(router.gateway, queue.run)
    try:
        yield loop
    finally:
        queue.stop()
        loop.result(60)
        router.run(router.gateway, queue.close)


def eventually(condition: object, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(met)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("accept_all", [False, True])
def test_bulk_arrives_intact_in_super_packets_each_with_one_verdict(
    router: Router, version: int, accept_all: bool
) -> None:
    router.queue(5, version=version)
    core = engine()
    queue = KernelQueue(core, 5, accept_all=accept_all)
    with running(router, queue):
        assert router.transfer(BULK, version) == BULK
    counters = queue.counters()
    assert counters["gso_packets"] > 100
    assert counters["bytes"] / counters["packets"] > 1500
    # What came between the stop and the close counts only in the kernel.
    assert counters["kernel_id_sequence"] >= counters["packets"] == counters["accepted"] > 0
    assert {counters[name] for name in ("held", "truncated", "unreadable", "enobufs", "verdict_errors")} == {0}
    assert counters["kernel_queue_dropped"] == counters["kernel_user_dropped"] == 0
    assert core.counters()["packets"] == (0 if accept_all else counters["packets"])


def test_without_gso_every_packet_is_a_segment(router: Router) -> None:
    router.queue(5)
    queue = KernelQueue(engine(), 5, gso=False)
    with running(router, queue):
        assert router.transfer(BULK) == BULK
    counters = queue.counters()
    assert counters["gso_packets"] == 0
    assert counters["bytes"] / counters["packets"] <= 1500
    assert counters["verdict_errors"] == counters["held"] == 0


def test_packets_flow_while_another_thread_keeps_the_gil(router: Router) -> None:
    router.queue(5)
    code = """if 1:
        import socket, sys
        if sys.argv[1] == "server":
            with socket.create_server(("10.99.2.2", 2525)) as server:
                print("ready", flush=True)
                connection, _ = server.accept()
                with connection:
                    while connection.recv(1 << 20): pass
        else:
            with socket.create_connection(("10.99.2.2", 2525)) as connection:
                print("ready", flush=True)
                while True: connection.sendall(bytes(1 << 16))
    """
    queue = KernelQueue(engine(), 5)
    with running(router, queue):
        peers = []
        try:
            for namespace, name in ((router.server, "server"), (router.client, "client")):
                peers.append(router.popen(namespace, [sys.executable, "-c", code, name]))
                assert peers[-1].stdout.readline() == "ready\n"
            # One call into C that gives the GIL to nobody; blocks are counted right before and after it.
            assert eventually(lambda: queue.counters()["packets"] > 1000)
            before, blocks = queue.counters()["packets"], sys.getallocatedblocks()
            sum(range(40_000_000))
            grown, after = sys.getallocatedblocks() - blocks, queue.counters()["packets"]
        finally:
            for peer in reversed(peers):
                peer.kill()
                peer.communicate()
    assert after - before > 200
    assert grown < 100


def test_a_signal_ends_a_loop_in_the_main_thread(router: Router) -> None:
    code = """if 1:
        import signal
        from nfmailguard.queues.kernel import KernelQueue
        queue = KernelQueue(None, 5, accept_all=True)
        queue.open()
        signal.signal(signal.SIGTERM, lambda *_: queue.stop())
        print("ready", flush=True)
        queue.run()
        queue.close()
        print("stopped")
    """
    with router.popen(router.gateway, [sys.executable, "-c", code]) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 0


def test_a_taken_queue_is_one_line_that_names_the_holder(router: Router) -> None:
    first, second = KernelQueue(None, 5, accept_all=True), KernelQueue(None, 5, accept_all=True)
    router.run(router.gateway, first.open)
    with pytest.raises(QueueError) as caught:
        router.run(router.gateway, second.open)
    assert (
        str(caught.value)
        == f"queue 5 is taken by process {os.getpid()} ({program(os.getpid())}); stop that or use another"
    )
    assert second.fileno() == -1
    first.close()
    router.run(router.gateway, second.open)
    second.close()


def test_without_privilege_opening_says_what_is_needed(router: Router) -> None:
    code = """if 1:
        import ctypes, struct
        from nfmailguard.queues.kernel import KernelQueue
        from nfmailguard.errors import QueueError
        # capset(2), version 3: this process, no capability at all.
        assert ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)) == 0
        try:
            KernelQueue(None, 5, accept_all=True).open()
        except QueueError as error:
            print(error)
    """
    output, _ = router.popen(router.gateway, [sys.executable, "-c", code]).communicate(timeout=60)
    assert output.count("\n") == 1
    assert "run as root or with CAP_NET_RAW and CAP_NET_ADMIN" in output


@pytest.mark.parametrize(("fail_open", "passed"), [(True, 12), (False, 0)])
def test_a_full_queue_drops_or_with_fail_open_passes(router: Router, fail_open: bool, passed: int) -> None:
    router.queue(5, protocol=UDP)
    queue = KernelQueue(None, 5, accept_all=True, length=8, fail_open=fail_open)
    router.run(router.gateway, queue.open)
    payloads = [bytes([number]) for number in range(20)]
    receiver, early = router.datagrams(payloads, passed)
    with receiver:
        assert early == payloads[8 : 8 + passed]
        loop = router.start(router.gateway, queue.run)
        assert [receiver.recv(100) for _ in range(8)] == payloads[:8]
    counters = router.run(router.gateway, queue.counters)
    assert counters["accepted"] == counters["packets"] == 8
    assert counters["kernel_queue_dropped"] == 12 - passed
    queue.stop()
    loop.result(60)
    queue.close()


def test_an_overrun_socket_buffer_is_counted_and_the_loop_goes_on(router: Router) -> None:
    router.queue(5, protocol=UDP)
    queue = KernelQueue(None, 5, accept_all=True)
    router.run(router.gateway, queue.open)
    with socket.socket(fileno=os.dup(queue.fileno())) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    payloads = [bytes(1000)] * 50
    receiver, _ = router.datagrams(payloads, 0)
    with receiver:
        loop = router.start(router.gateway, queue.run)
        assert eventually(lambda: queue.counters()["enobufs"] == 1)
        counters = router.run(router.gateway, queue.counters)
        assert counters["packets"] + counters["kernel_user_dropped"] == 50
        assert counters["kernel_user_dropped"] > 0
        assert counters["accepted"] == counters["packets"] > 0
        while counters["accepted"]:
            counters["accepted"] -= receiver.recv(2000) == payloads[0]
    again, arrived = router.datagrams([b"after"], 1)
    again.close()
    assert arrived == [b"after"]
    assert not loop.done()
    queue.stop()
    loop.result(60)
    queue.close()


def test_a_cut_packet_is_flagged_and_still_passes_whole(router: Router, tmp_path: Path) -> None:
    router.queue(5, protocol=UDP)
    payload = bytes(range(250)) * 4
    queue = KernelQueue(engine(), 5, copy_range=100, tap=Tap(str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap")))
    with running(router, queue):
        receiver, arrived = router.datagrams([payload], 1)
        receiver.close()
    assert arrived == [payload]
    assert queue.counters()["truncated"] == 1
    for name in ("in.pcap", "out.pcap"):
        record = (tmp_path / name).read_bytes()[24:]
        captured, length = struct.unpack("=II", record[8:16])
        assert (captured, length, len(record)) == (100, 28 + len(payload), 16 + 100)


def test_stopping_in_the_middle_answers_all_and_the_next_driver_goes_on(router: Router) -> None:
    router.queue(5)
    first, second = KernelQueue(engine(), 5), KernelQueue(engine(), 5)
    router.run(router.gateway, first.open)
    loop = router.start(router.gateway, first.run)
    following: list[Future[None]] = []

    def change_over() -> None:
        first.stop()
        loop.result(60)
        first.close()
        router.run(router.gateway, second.open)
        following.append(router.start(router.gateway, second.run))

    assert router.transfer(BULK, during=change_over) == BULK
    second.stop()
    following[0].result(60)
    second.close()
    for queue in (first, second):
        counters = queue.counters()
        assert counters["packets"] == counters["accepted"] > 0
        assert counters["verdict_errors"] == counters["held"] == 0


def test_stop_before_run_and_close_twice() -> None:
    with router_or_skip() as router:
        queue = KernelQueue(None, 5, accept_all=True)
        queue.stop()
        router.run(router.gateway, queue.open)
        queue.stop()
        router.run(router.gateway, queue.run, timeout=60)
        queue.close()
        queue.close()
        with pytest.raises(RuntimeError, match="not open"):
            queue.run()


def test_the_encoded_verdicts_change_drop_and_pass_real_packets(router: Router) -> None:
    """The loop's encoder and parser, a packet at a time from Python, against the kernel."""
    router.queue(5, protocol=UDP)
    queue = KernelQueue(None, 5, accept_all=True)  # never run: only its socket is used
    router.run(router.gateway, queue.open)
    receiver, _ = router.datagrams([b"pass", b"drop", b"edit", b"grow"], 0)
    with receiver, socket.socket(fileno=os.dup(queue.fileno())) as netlink:
        netlink.settimeout(60)
        for _ in range(4):
            [(kind, number, queue_number, in_interface, out_interface, _, length, packet, _)] = parse_messages(
                netlink.recv(70000)
            )
            assert (kind, queue_number, length) == ("packet", 5, len(packet))
            assert 0 < in_interface != out_interface > 0
            header, word = packet[:28], packet[28:]
            changed = header[:26] + b"\0\0" + b"EDIT"  # a UDP checksum of zero says there is none
            verdicts = {
                b"pass": emit_verdict(5, number, True),
                b"drop": emit_verdict(5, number, False),
                b"edit": emit_verdict(5, number, True, changed),
                b"grow": emit_verdict(5, number, True),
            }
            netlink.send(verdicts[word])
        assert [receiver.recv(100) for _ in range(3)] == [b"pass", b"EDIT", b"grow"]
        # The second verdict for an id is refused: every packet is answered exactly once.
        netlink.send(emit_verdict(5, number, True))
        assert parse_messages(netlink.recv(70000)) == [("error", errno.ENOENT)]
    queue.close()


def udp_packet(version: int, payload: bytes) -> bytes:
    length = 8 + len(payload)
    if version == 4:
        addresses = socket.inet_aton("10.99.1.2") + socket.inet_aton(SERVER[4])
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + addresses + udp(length) + payload
    addresses = socket.inet_pton(socket.AF_INET6, "fd99:1::2") + socket.inet_pton(socket.AF_INET6, SERVER[6])
    pseudo = addresses + struct.pack(">II", length, UDP) + struct.pack(">HHH", 1234, 2525, length) + payload
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    return struct.pack(">IHBB", 6 << 28, length, UDP, 64) + addresses + udp(length, checksum) + payload


def udp(length: int, checksum: int = 0) -> bytes:
    return struct.pack(">HHHH", 1234, 2525, length, checksum)


@pytest.mark.parametrize("version", [4, 6])
def test_an_injected_packet_leaves_with_the_mark_that_keeps_it_from_queues(router: Router, version: int) -> None:
    # Nobody listens on queue 9: what is queued there is dropped.
    router.queue(9, protocol=UDP, version=version, mark=INJECT_MARK, hook="output")
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    receiver = router.run(router.server, lambda: socket.socket(family, socket.SOCK_DGRAM))
    marked, unmarked = (router.run(router.gateway, lambda mark=mark: Injector(mark)) for mark in (INJECT_MARK, 0))
    with receiver:
        receiver.bind((SERVER[version], 2525))
        receiver.settimeout(60)
        marked.send(udp_packet(version, b"marked"))
        unmarked.send(udp_packet(version, b"passes"))
        assert receiver.recv(100) == b"passes"
    assert unmarked.sent == 1
    marked.send(b"")
    marked.send(b"\x45" + bytes(10))
    assert marked.errors >= 1
    marked.close()
    unmarked.close()


def test_the_tap_s_files_hold_what_came_and_what_left(router: Router, tmp_path: Path) -> None:
    router.queue(5)
    queue = KernelQueue(engine(), 5, tap=Tap(str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap")))
    with running(router, queue):
        assert router.transfer(BULK) == BULK
    counters = queue.counters()
    assert counters["gso_packets"] > 0
    assert counters["tap_incoming"] == counters["tap_outgoing"] == counters["packets"]
    assert (tmp_path / "in.pcap").read_bytes() == (tmp_path / "out.pcap").read_bytes()
    data, at, times, read = (tmp_path / "in.pcap").read_bytes(), 24, [], bytearray(len(BULK))
    while at < len(data):
        seconds, nanoseconds, captured, length = struct.unpack_from("=IIII", data, at)
        packet = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        times.append(seconds * 10**9 + nanoseconds)
        assert captured == length == int.from_bytes(packet[2:4])
        assert tcp_sum(packet) == 0xFFFF
        segment, seq = packet[20 + (packet[32] >> 4) * 4 :], int.from_bytes(packet[24:28])
        if packet[16:20] == socket.inet_aton(SERVER[4]):
            if packet[33] & 0x3F == 0x02:  # a SYN, with ECN or not
                isn = seq
            place = (seq - isn - 1) % 2**32
            if segment:  # one that is sent again may be shorter, or longer
                read[place : place + len(segment)] = segment
    assert times == sorted(times)
    assert abs(times[0] - time.time_ns()) < 60 * 10**9
    assert read == BULK


def tcp_sum(packet: bytes) -> int:
    segment = packet[20:] + bytes(len(packet) % 2)
    words = sum(struct.unpack(f">{len(segment) // 2}H", segment)) + sum(struct.unpack(">4H", packet[12:20]))
    total = words + 6 + len(packet) - 20
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_full_disk_ends_the_tap_and_disturbs_no_packet(router: Router, tmp_path: Path) -> None:
    router.queue(5)
    queue = KernelQueue(engine(), 5, tap=Tap("/dev/full", str(tmp_path / "out.pcap")))
    router.run(router.gateway, queue.open)
    loop = router.start(router.gateway, queue.run)
    assert router.transfer(BULK) == BULK
    queue.stop()
    loop.result(60)
    with pytest.raises(
        CaptureError, match=r"^/dev/full or .*: the tap's capture is incomplete, \d+ packets lost: No sp"
    ):
        queue.close()
    counters = queue.counters()
    assert counters["tap_lost"] > 0
    assert counters["tap_outgoing"] == counters["packets"] == counters["accepted"]
