"""The live drivers' Python: errors in words, and the package's limits."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfmailguard.cext.drivers.capture import CaptureLoop
from nfmailguard.cext.drivers.nfqueue_loop import QueueLoop
from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode
from nfmailguard.queues import QueueDriver, kernel
from nfmailguard.queues.kernel import KernelQueue, QueueState, explain, program
from nfmailguard.queues.netfilterqueue import PackageQueue, ip_length

ACCEPT, REPLACE, DROP, EMIT = range(4)


def test_a_line_of_the_kernel_s_queue_file() -> None:
    state = QueueState("   21  -4242     3 2 65531    17     9     1234  1")
    assert (state.number, state.portid, state.total, state.copy_mode, state.copy_range) == (21, -4242, 3, 2, 65531)
    assert (state.queue_dropped, state.user_dropped, state.id_sequence) == (17, 9, 1234)


@pytest.mark.parametrize(
    ("code", "states", "privileged", "line"),
    [
        (errno.EPERM, {5: "5 999999999 0 2 65531 0 0 0 1"}, True,
         "queue 5 is taken by another process (netlink port 999999999); stop that or use another"),
        (errno.EBUSY, {}, True, "queue 5 is taken by another process; stop that or use another"),
        (errno.EPERM, {6: "6 1 0 2 65531 0 0 0 1"}, False,
         "queue 5: no permission; run as root or with CAP_NET_ADMIN"),
        (errno.EINVAL, {}, True,
         "queue 5: this kernel has no NFQUEUE (Invalid argument); load nfnetlink_queue"),
        (errno.ENOMEM, {}, True, "queue 5: Cannot allocate memory"),
    ],
)  # fmt: skip
def test_the_kernel_s_refusal_in_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, states: dict[int, str], privileged: bool, line: str
) -> None:
    found = {number: QueueState(text) for number, text in states.items()}
    monkeypatch.setattr(kernel, "queue_states", lambda: found)
    monkeypatch.setattr(kernel, "has_net_admin", lambda: privileged)
    assert explain(5, OSError(code, os.strerror(code))) == line


def test_a_driver_without_an_engine_can_only_accept() -> None:
    for driver in (KernelQueue, PackageQueue):
        with pytest.raises(ValueError, match="only accept"):
            driver(None, 5)
        made: QueueDriver = driver(None, 5, accept_all=True)
        made.stop()
        made.close()


@pytest.mark.parametrize("change", [{"number": -1}, {"number": 65536}, {"length": 0}, {"copy_range": 0}])
def test_numbers_the_kernel_has_no_room_for_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        KernelQueue(None, **{"number": 5, "accept_all": True, **change})


def test_the_length_an_ip_header_states() -> None:
    assert ip_length(b"\x45\0\x23\x28" + bytes(16)) == 9000
    assert ip_length(b"\x60\0\0\0\x23\x28" + bytes(34)) == 9040
    assert ip_length(b"\x60" + bytes(39)) == ip_length(b"\x45") == ip_length(b"") == 0


class Packet:
    """As the package gives it to its callback."""

    id, indev, outdev = 9, 3, 4

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done: list[object] = []

    def get_payload(self) -> bytes:
        return self.data

    def set_payload(self, data: bytes) -> None:
        self.done.append(data)

    def accept(self) -> None:
        self.done.append("accept")

    def drop(self) -> None:
        self.done.append("drop")


WHOLE = b"\x45\0\0\x18" + bytes(20)
CUT = b"\x45\0\x23\x28" + bytes(20)


@pytest.mark.parametrize(
    ("data", "operations", "done", "errors"),
    [
        (WHOLE, [(ACCEPT, 9, None, False)], ["accept"], 0),
        (WHOLE, [(DROP, 9, None, False)], ["drop"], 0),
        (WHOLE, [(REPLACE, 9, b"new", False)], [b"new", "accept"], 0),
        (CUT, [(ACCEPT, 9, None, False)], ["accept"], 0),
        (CUT, [(REPLACE, 9, b"new", False)], ["drop"], 2),
        (WHOLE, [], ["drop"], 1),
        (WHOLE, [(ACCEPT, 9, None, False), (DROP, 9, None, False)], ["accept"], 1),
        (WHOLE, [(ACCEPT, 8, None, False), (ACCEPT, 9, None, False)], ["accept"], 1),
    ],
)
def test_one_verdict_a_packet_and_never_a_cut_one(
    data: bytes, operations: list[tuple[int, int, bytes | None, bool]], done: list[object], errors: int
) -> None:
    asked = []

    def process(*given: object) -> list[tuple[int, int, bytes | None, bool]]:
        asked.append(given)
        return operations

    engine = SimpleNamespace(process=process, next_deadline=None)
    queue = PackageQueue(engine, 5)  # type: ignore[arg-type]
    packet = Packet(data)
    queue._receive(packet)  # type: ignore[arg-type]
    assert packet.done == done
    assert queue.counters()["verdict_errors"] == errors
    assert asked[0][0] == data
    assert asked[0][2:] == (9, int.from_bytes(data[2:4]), 3, 4, 0, 0)
    assert queue.counters()["truncated"] == (data is CUT)


def test_an_error_of_ours_drops_the_packet_and_is_heard() -> None:
    def process(*_: object) -> None:
        raise ZeroDivisionError

    packet = Packet(WHOLE)
    queue = PackageQueue(SimpleNamespace(process=process, next_deadline=None), 5)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        queue._receive(packet)  # type: ignore[arg-type]
    assert packet.done == ["drop"]


def test_what_is_due_expires_at_its_own_time() -> None:
    expired = []

    class Clocked:
        deadlines = [5, 7, 10**30]

        @property
        def next_deadline(self) -> int:
            return self.deadlines[0]

        def expire(self, now: int) -> list[tuple[int, int, bytes | None, bool]]:
            expired.append(now)
            self.deadlines = self.deadlines[1:]
            return []

    queue = PackageQueue(Clocked(), 5)  # type: ignore[arg-type]
    queue._expire(10)
    assert expired == [5, 7]


def test_the_names_of_counters_stay() -> None:
    """They are fields of C structs, and what operators read in `stats` events."""
    loop = QueueLoop(
        None, 0, length=1, copy_range=1, gso=False, fail_open=False, batch=1, busy_poll=0, offload_mark=0,
        connection_mark=0, most_buffer=0, sender=None, writer=None,
    )  # fmt: skip
    shared = {"packets", "bytes", "truncated", "accepted", "replaced", "dropped", "emitted", "expired", "held"}
    assert set(loop.counters()) == shared | {
        *("batches", "gso_packets", "unreadable", "sleeps", "settled", "enobufs", "receive_errors", "send_retries"),
        *("verdict_errors", "emit_errors"),
    }
    assert set(CaptureLoop(None).counters()) == shared | {
        *("not_ip", "checksum_partial", "clock_back", "written", "internal_errors"),
    }
    engine = Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))])
    assert {name for name in engine.counters() if "." not in name and not name.startswith("records_")} == {
        *("packets", "accepted", "replaced", "dropped", "emitted", "held", "held_now", "held_expired", "not_tcp"),
        *("not_inspected", "fragments", "malformed", "truncated", "bad_checksum", "odd_flags", "options_blanked"),
        *(
            "out_of_order",
            "beyond_window",
            "retransmissions",
            "windows_narrowed",
            "windows_widened",
            "syns_asked",
            "flows_opened",
        ),
        *("flows_midstream", "flows_evicted", "flows_evicted_ended", "flows_evicted_embryonic"),
        *(
            "flows_evicted_unconfirmed",
            "flows_evicted_one_sided",
            "flows_evicted_greeted",
            "flows_refused",
            "flows_refused_share",
        ),
        *(
            "flows_passed",
            "flows_dropped",
            "flows_reset",
            "flows_stalled",
            "refusals_omitted",
            "cookies_unnoted",
            "findings_repeated",
            "internal_errors",
        ),
        *("flows_now", "flows_opened_now", "memory_now", "table_octets"),
    }


def test_a_python_program_is_called_by_its_module_too() -> None:
    """As the package runs: our own gateway is no stranger that has taken the queue."""
    command = [sys.executable, "-m", "json.tool"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        assert one.stdin is not None
        one.stdin.write(b"{}")
        one.stdin.flush()
        while not Path(f"/proc/{one.pid}/cmdline").read_bytes():  # it has a name a moment before it has words
            time.sleep(0.01)
        assert re.fullmatch(r"python[0-9.]* -m json\.tool", program(one.pid))
