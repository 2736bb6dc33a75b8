"""The driver on the PyPI package NetfilterQueue: for comparison, and where the kernel driver cannot be built.

Promises: one verdict per packet; no packet leaves truncated. The package copies at most 4,016 bytes and reads messages
of 4,096 with their attributes, knows no super-packets, and gives a verdict only inside its callback: so the engine must
be made with ``can_hold=False`` (out-of-order packets are dropped, TCP retransmits them), a longer packet reaches the
core as truncated, and its payload is never replaced. One Python object and several calls per packet: expect a fraction
of ``queues.kernel``'s rate.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

import netfilterqueue

from nfmailguard.engine import Engine
from nfmailguard.errors import QueueError
from nfmailguard.queues.injector import INJECT_MARK, Injector
from nfmailguard.queues.kernel import explain
from nfmailguard.queues.tap import Tap

__all__ = ["PackageQueue"]

# Bytes of a packet that are requested. The package reads a message into 4,096 bytes, of which up to 4,016 are the
# packet; that leaves too little room for the attributes of today's kernels, and the message would be cut.
COPY_RANGE = 3840
# Bytes one packet takes of the socket's receive buffer: an allocation of 4 KiB, or of 8 KiB with its header.
PACKET_CHARGE = 8448
ACCEPT, REPLACE, DROP, EMIT = range(4)
#: The bits of a packet's mark that tell whether the mark was set by nfmailguard's table.
CONNECTION_MARK_MASK = 0xF0000000


#: An operation of the core: kind, packet id, data, to_server, as in ``engine.Operation``.
RawOperation = tuple[int, int, bytes | None, bool]


class PackageQueue:
    """Queue ``number`` through ``engine``, which ``accept_all`` leaves out (for measuring).

    ``connection_mark`` as ``queues.kernel`` has it.
    """

    def __init__(
        self,
        engine: Engine | None,
        number: int,
        *,
        length: int = 4096,
        connection_mark: int = 0,
        mark: int = INJECT_MARK,
        tap: Tap | None = None,
        accept_all: bool = False,
    ) -> None:
        if not (engine or accept_all):
            raise ValueError("a queue without an engine can only accept everything")
        self.number = number
        self.notes: list[str] = []
        self._engine = None if accept_all else engine
        self._length = length
        self._connection_mark = connection_mark
        self._mark = mark
        self._tap = tap
        self._queue: netfilterqueue.NetfilterQueue | None = None
        self._injector: Injector | None = None
        self._reader: Reader | None = None
        self._now = 0
        self._wall_offset = 0
        self._counts = dict.fromkeys(
            ("packets", "bytes", "truncated", "accepted", "replaced", "dropped", "emitted", "verdict_errors"), 0
        )

    def open(self) -> None:
        """Binds the queue. Raises QueueError, and CaptureError for the tap's files."""
        self._injector = Injector(self._mark)
        try:
            if self._tap:
                self._tap.open()
            self._wall_offset = time.time_ns() - time.monotonic_ns()
            self._bind()
        except OSError as error:
            self.close()
            # The package loses the errno; what usually fails is permission, or the queue is already in use.
            reason = OSError(error.errno or errno.EPERM, os.strerror(error.errno or errno.EPERM))
            raise QueueError(explain(self.number, reason)) from error
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Runs until ``stop``, in Python. Raises QueueError when the socket fails."""
        if self._queue is None or self._reader is None:
            raise RuntimeError("the queue is not open")
        try:
            self._queue.run_socket(self._reader)
        except OSError as error:
            raise QueueError(f"queue {self.number}: {error.strerror}; its packets are lost") from error
        finally:
            if self._engine:
                self._now = max(self._now, self._clock())
                self._answer_none(self._engine.finish(self._now))

    def stop(self) -> None:
        if self._reader:
            self._reader.stop()

    @property
    def clock(self) -> int:
        """As the kernel driver's."""
        return self._clock()

    def turn(self) -> None:
        """Takes new rules up at once: the engine is called only with the GIL, which the caller holds."""
        if self._engine:
            self._engine.take_up(max(self._now, self._clock()))

    def treat(self, *, fail_open: bool, connection_mark: int) -> None:
        self._connection_mark = connection_mark

    def close(self) -> None:
        """Raises CaptureError if the tap's files are incomplete; the queue is released all the same."""
        if self._queue:
            self._queue.unbind()
        self._queue = None
        if self._reader:
            self._reader.close()
        if self._injector:
            self._injector.close()
        if self._tap:
            self._tap.close()

    def counters(self) -> dict[str, int]:
        """Counters as in the kernel driver, as far as the package makes them visible."""
        own = {
            **self._counts,
            "enobufs": self._reader.enobufs if self._reader else 0,
            "emit_errors": self._injector.errors if self._injector else 0,
        }
        return {**own, **(self._tap.counters() if self._tap else {})}

    def _bind(self) -> None:
        self._queue = netfilterqueue.NetfilterQueue()
        self._reader = Reader(self._queue.get_fd(), self._wait)
        buffer = min(self._length * PACKET_CHARGE // 2, 0x3FFFFFFF)
        with warnings.catch_warnings(record=True) as refused:
            warnings.simplefilter("always")
            self._queue.bind(self.number, self._receive, max_len=self._length, range=COPY_RANGE, sock_len=buffer)
        self.notes = [f"queue {self.number}: {warning.message}" for warning in refused]

    def _clock(self) -> int:
        return time.monotonic_ns() + self._wall_offset

    def _wait(self) -> float | None:
        """Carries out what is due, before the socket is read; returns how long it may then sleep, in seconds."""
        if self._engine is None:
            return None
        self._expire(now := self._clock())
        deadline = self._engine.next_deadline
        return None if deadline is None else max(deadline - now, 0) / 1e9

    def _expire(self, now: int) -> None:
        """Handles each deadline up to ``now`` at its own time, as a replay of the tap's capture will."""
        assert self._engine is not None
        while (deadline := self._engine.next_deadline) is not None and deadline <= now:
            self._now = max(self._now, deadline)
            self._answer_none(self._engine.expire(self._now))
            if self._engine.next_deadline == deadline:
                break

    def _receive(self, packet: netfilterqueue.Packet) -> None:
        try:
            self._answer(packet)
        except Exception:
            # An internal error: the packet is dropped, TCP retransmits it, and the error is passed to the caller.
            with suppress(RuntimeError):  # RuntimeError: the packet already has a verdict.
                packet.drop()
            raise

    def _answer(self, packet: netfilterqueue.Packet) -> None:
        data = packet.get_payload()
        length = max(len(data), ip_length(data))
        self._counts["packets"] += 1
        self._counts["bytes"] += length
        self._counts["truncated"] += len(data) < length
        now = self._clock()
        connection = self._connection(packet) if self._connection_mark else 0
        if self._engine:
            self._expire(now)
        self._now = now = max(self._now, now)
        if self._tap and self._tap.writer:
            self._tap.writer.incoming(data, now, packet.id, length)
        operations: list[RawOperation] = [(ACCEPT, packet.id, None, False)]
        if self._engine:
            operations = self._engine.process(data, now, packet.id, length, packet.indev, packet.outdev, 0, connection)
        self._carry_out(packet, operations, complete=len(data) == length)

    def _connection(self, packet: netfilterqueue.Packet) -> int:
        """The connection that the mark of nfmailguard's table names, which is removed from the packet; 0: none."""
        mark: int = packet.get_mark()
        if mark & CONNECTION_MARK_MASK != self._connection_mark:
            return 0
        packet.set_mark(0)
        return mark

    def _carry_out(self, packet: netfilterqueue.Packet, operations: list[RawOperation], *, complete: bool) -> None:
        answered = False
        for kind, number, data, to_server in operations:
            if kind == EMIT:
                self._emit(data, to_server)
            elif number != packet.id or answered or (kind == REPLACE and not complete):
                self._counts["verdict_errors"] += 1
            else:
                answered = True
                self._record(kind, number, data)
                self._verdict(packet, kind, data)
        if not answered:
            # The core held the packet, or the package would cut the changed packet: it is dropped, so that no packet
            # stays without a verdict.
            self._counts["verdict_errors"] += 1
            self._record(DROP, packet.id, None)
            self._verdict(packet, DROP, None)

    def _verdict(self, packet: netfilterqueue.Packet, kind: int, data: bytes | None) -> None:
        self._counts[("accepted", "replaced", "dropped")[kind]] += 1
        if kind == DROP:
            packet.drop()
            return
        if data is not None:
            packet.set_payload(data)
        packet.accept()

    def _answer_none(self, operations: list[RawOperation]) -> None:
        """Carries out operations outside a packet's callback: these can only be packets of the gateway's own."""
        for kind, _, data, to_server in operations:
            if kind == EMIT:
                self._emit(data, to_server)
            else:
                self._counts["verdict_errors"] += 1

    def _emit(self, data: bytes | None, to_server: bool) -> None:
        if data and self._injector:
            self._counts["emitted"] += 1
            self._record(EMIT, 0, data)
            self._injector.send(data)

    def _record(self, kind: int, number: int, data: bytes | None) -> None:
        if self._tap and self._tap.writer:
            self._tap.writer.operation(kind, number, data, self._now)


class Reader(socket.socket):
    """The socket as the package expects it in ``run_socket``, with a way to stop, and with ENOBUFS counted.

    The package itself would silently read on after an overrun.
    """

    def __init__(self, fd: int, wait: Callable[[], float | None]) -> None:
        super().__init__(fileno=os.dup(fd))
        self.setblocking(False)
        self.enobufs = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wait = wait

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """The next message; EAGAIN, which ends ``run_socket``, once stopped."""
        while True:
            ready, _, _ = select.select([self.fileno(), self._wake], [], [], self._wait())
            if self._wake in ready:
                raise BlockingIOError(errno.EAGAIN, "stopped")
            try:
                return super().recv(bufsize, flags)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.enobufs += 1

    def stop(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        super().close()
        if self._wake >= 0:
            os.close(self._wake)
        self._wake = -1


def ip_length(data: bytes) -> int:
    """The length the IP header states, 0 where it states none."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        return int.from_bytes(data[2:4])
    if len(data) >= 40 and data[0] >> 4 == 6 and data[4:6] != b"\0\0":
        return 40 + int.from_bytes(data[4:6])
    return 0
