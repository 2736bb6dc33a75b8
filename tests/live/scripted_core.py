"""The kernel driver's loop under a core that does as it is told, packet by packet.

Run as a program with the name of a scenario; the asserts speak. In a process of its own
because it puts Python functions where the loop looks up the core's, before it does so.
The script sees UDP datagrams from the client to the server; the first payload word says
what happens to each: pass, drop, edit, long (an impossible edit), hold, free (the held ones
go, then this), emit.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import struct
import sys
import tempfile
import time
from ctypes import POINTER, Structure, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path

from queue_router import Router, engine

from nfmailguard.cext import operation
from nfmailguard.cext import process as core

UDP = 17
NEVER = 2**64 - 1
ACCEPT, REPLACE, DROP, EMIT = range(4)


CEXT = Path(__file__).parents[2] / "cext"
FIELD = re.compile(r"^    (uint\d+_t|Operation) (\*?)(\w+)", re.MULTILINE)
TYPES = {"uint8_t": c_uint8, "uint32_t": c_uint32, "uint64_t": c_uint64}


def structure(module: str, name: str) -> type[Structure]:
    """A struct of the core's face, laid out as its .pxd says."""
    body = re.search(rf"^cdef struct {name}:\n((?:    .*\n)+)", next(CEXT.rglob(module)).read_text(), re.MULTILINE)
    assert body is not None
    fields = [(field, c_void_p if star else TYPES[kind]) for kind, star, field in FIELD.findall(body[1])]
    return type(name, (Structure,), {"_fields_": fields})


QueuedPacket = structure("packet.pxd", "QueuedPacket")
Operation = structure("operation.pxd", "Operation")
Operations = structure("operation.pxd", "Operations")


class Script:
    """The core's five functions, and what they were asked."""

    hold_for: int | None = None
    deadline = NEVER

    def __init__(self) -> None:
        self.held: list[int] = []
        self.expired_at: list[int] = []
        self.times: list[int] = []
        self.kept: list[object] = []

    def process(self, _core: int, packet: POINTER(QueuedPacket), now: int, out: POINTER(Operations)) -> None:
        self.times.append(now)
        packet = packet[0]
        data = ctypes.string_at(packet.data, packet.captured)
        word = data[28:32]
        if word == b"hold":
            self.held.append(packet.id)
            if self.hold_for is not None:
                self.deadline = now + self.hold_for
        elif word == b"free":
            self.give(out, [(ACCEPT, number, None) for number in self.held] + [(ACCEPT, packet.id, None)])
            self.held = []
        elif word == b"edit":
            # As the core does it: in place, and the operation points into the loop's own arena.
            ctypes.memmove(packet.data + 26, b"\0\0EDIT", 6)
            self.give(out, [(REPLACE, packet.id, (packet.data, packet.captured))])
        elif word == b"long":
            self.give(out, [(REPLACE, packet.id, bytes(70000))])
        elif word == b"emit":
            forged = bytearray(data)
            forged[26:32] = b"\0\0EMIT"
            self.give(out, [(ACCEPT, packet.id, None), (EMIT, 0, bytes(forged))])
        else:
            self.give(out, [(DROP if word == b"drop" else ACCEPT, packet.id, None)])

    def expire(self, _core: int, now: int, out: POINTER(Operations)) -> None:
        self.expired_at.append(now)
        self.deadline = NEVER
        self.give(out, [(ACCEPT, number, None) for number in self.held])
        self.held = []

    def finish(self, _core: int, _now: int, out: POINTER(Operations)) -> None:
        self.give(out, [(DROP, number, None) for number in self.held])
        self.held = []

    def give(self, out: POINTER(Operations), wanted: list[tuple[int, int, object]]) -> None:
        items = (Operation * max(len(wanted), 1))()
        for item, (kind, number, data) in zip(items, wanted, strict=False):
            item.kind, item.id = kind, number
            if isinstance(data, tuple):
                item.data, item.length = data
            elif data is not None:
                buffer = ctypes.create_string_buffer(data, len(data))
                item.data, item.length = ctypes.addressof(buffer), len(data)
                self.kept.append(buffer)
        self.kept.append(items)
        out[0].items = ctypes.addressof(items)
        out[0].count = len(wanted)


def install(script: Script) -> None:
    """Before ``nfmailguard.cext.drivers.nfqueue_loop`` is imported: it takes the functions from these capsules."""
    assert "nfmailguard.cext.drivers.nfqueue_loop" not in sys.modules
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = c_void_p, [ctypes.py_object]
    api.PyCapsule_New.restype, api.PyCapsule_New.argtypes = ctypes.py_object, [c_void_p, c_void_p, c_void_p]
    functions = {
        "core_process": ctypes.CFUNCTYPE(None, c_void_p, POINTER(QueuedPacket), c_uint64, POINTER(Operations))(
            script.process
        ),
        "core_expire": ctypes.CFUNCTYPE(None, c_void_p, c_uint64, POINTER(Operations))(script.expire),
        "core_finish": ctypes.CFUNCTYPE(None, c_void_p, c_uint64, POINTER(Operations))(script.finish),
        "core_next_deadline": ctypes.CFUNCTYPE(c_uint64, c_void_p)(lambda _core: script.deadline),
        "operations_free": ctypes.CFUNCTYPE(None, POINTER(Operations))(lambda _out: None),
    }
    for name, function in functions.items():
        exported = (operation if name == "operations_free" else core).__pyx_capi__
        address = ctypes.cast(function, c_void_p).value
        exported[name] = api.PyCapsule_New(address, api.PyCapsule_GetName(exported[name]), None)
    script.kept.append(functions)


def records(path: str) -> list[tuple[int, bytes]]:
    data, at, found = Path(path).read_bytes(), 24, []
    while at < len(data):
        seconds, nanoseconds, captured, _ = struct.unpack_from("=IIII", data, at)
        found.append((seconds * 10**9 + nanoseconds, data[at + 44 : at + 16 + captured]))
        at += 16 + captured
    return found


class Run:
    """Datagrams through the loop, with the tap on; ``arrived`` is what the server got, in order."""

    def __init__(self, words: list[bytes], expect: int, *, hold_for: int | None = None) -> None:
        self.script = Script()
        self.script.hold_for = hold_for
        install(self.script)
        from nfmailguard.queues.kernel import KernelQueue
        from nfmailguard.queues.tap import Tap

        router = Router()
        router.queue(5, protocol=UDP)
        with tempfile.TemporaryDirectory() as directory:
            came, left = f"{directory}/in.pcap", f"{directory}/out.pcap"
            queue = KernelQueue(engine(), 5, tap=Tap(came, left))
            router.run(router.gateway, queue.open)
            receiver, _ = router.datagrams(words, 0)
            with receiver:
                # The loop starts with all of them waiting: one batch.
                loop = router.start(router.gateway, queue.run)
                self.arrived = [receiver.recv(100) for _ in range(expect)]
                time.sleep(0.2)
                self.while_running = queue.counters()
                queue.stop()
                loop.result(60)
                queue.close()
                receiver.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    self.arrived.append(receiver.recv(100))
            self.came, self.left = records(came), records(left)
        self.counters = queue.counters()
        router.close()
        assert [data for _, data in self.came] == words
        assert [data for _, data in self.left] == self.arrived
        assert self.counters["held"] == 0
        answers = sum(self.counters[name] for name in ("accepted", "replaced", "dropped"))
        assert answers == self.counters["packets"] == len(words)


def changed_dropped_and_passed() -> None:
    run = Run([b"pass1", b"drop2", b"edit3", b"pass4"], 3)
    assert run.arrived == [b"pass1", b"EDIT3", b"pass4"]
    assert [run.counters[name] for name in ("accepted", "replaced", "dropped", "batches")] == [2, 1, 1, 1]
    assert run.counters["verdict_errors"] == 0


def held_until_released() -> None:
    run = Run([b"hold1", b"pass2", b"edit3", b"hold4", b"free5", b"pass6"], 6)
    assert run.arrived == [b"pass2", b"EDIT3", b"hold1", b"hold4", b"free5", b"pass6"]
    assert run.while_running["held"] == run.counters["verdict_errors"] == 0


def held_until_the_end() -> None:
    run = Run([b"hold1", b"pass2", b"hold3"], 1)
    assert run.arrived == [b"pass2"]
    assert run.while_running["held"] == 2
    assert run.counters["dropped"] == 2
    assert run.counters["verdict_errors"] == 0


def held_until_the_deadline() -> None:
    run = Run([b"hold1", b"pass2"], 2, hold_for=150_000_000)
    assert run.arrived == [b"pass2", b"hold1"]
    # The deadline's own time, not that of waking up: a replay of the capture expires the same.
    assert run.script.expired_at == [run.script.times[0] + 150_000_000]
    assert [moment for moment, _ in run.left] == [run.script.times[1], run.script.expired_at[0]]
    assert run.counters["expired"] == 1


def emitted_behind_what_it_follows() -> None:
    run = Run([b"pass1", b"emit2", b"pass3"], 4)
    assert run.arrived == [b"pass1", b"emit2", b"EMIT2", b"pass3"]
    assert (run.counters["emitted"], run.counters["emit_errors"]) == (1, 0)


def too_long_for_a_verdict() -> None:
    """No netlink message holds it: dropped and counted, never sent as it came."""
    run = Run([b"long1", b"pass2"], 1)
    assert run.arrived == [b"pass2"]
    assert run.counters["verdict_errors"] == 1


if __name__ == "__main__":
    globals()[sys.argv[1]]()
