"""nfmailguard's own driver: an NFQUEUE over libmnl, with support for super-packets (GSO).

Promises: an error on opening is one line that says what to do; counters include what the kernel lost besides what the
loop saw. The loop itself is ``cext.drivers.nfqueue_loop``. Does not know the rules that send packets here.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from nfmailguard.cext.drivers.nfqueue_loop import QueueLoop
from nfmailguard.engine import Engine
from nfmailguard.errors import QueueError
from nfmailguard.queues.injector import INJECT_MARK, Injector
from nfmailguard.queues.tap import Tap

__all__ = ["KernelQueue", "QueueState", "QueueStates", "explain", "program", "queue_states", "reader"]

CAP_NET_ADMIN = 12
NETLINK_NETFILTER = 12


class QueueState:
    """One line of ``/proc/net/netfilter/nfnetlink_queue``."""

    def __init__(self, line: str) -> None:
        fields = [int(field) for field in line.split()]
        self.number, self.portid, self.total, self.copy_mode, self.copy_range = fields[:5]
        self.queue_dropped, self.user_dropped, self.id_sequence = fields[5:8]


class QueueStates:
    """Every bound queue of a network namespace. Opened once, because a process that has become another user may not
    open it.
    """

    def __init__(self) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open("/proc/thread-self/net/netfilter/nfnetlink_queue", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> dict[int, QueueState]:
        """The queues by number, as they are now; empty if the kernel does not show them."""
        octets = b""
        with suppress(OSError):  # EBADF: the file could not be opened, or was closed.
            while piece := os.pread(self._fd, 1 << 16, len(octets)):
                octets += piece
        return {state.number: state for state in map(QueueState, octets.decode().splitlines())}

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def queue_states() -> dict[int, QueueState]:
    """Every queue that is bound in this network namespace at the moment."""
    states = QueueStates()
    try:
        return states.read()
    finally:
        states.close()


class KernelQueue:
    """Queue ``number`` through ``engine``, which ``accept_all`` leaves out (for measuring).

    ``length`` counts packets, held ones included; ``batch``, up to 64, is the number of packets received at once.
    ``busy_poll``: microseconds for which it keeps polling before it sleeps. Packets of connections that need no more
    inspection leave with ``offload_mark`` (0: none). A packet whose mark begins like ``connection_mark`` (four bits; 0:
    none) belongs to the connection the mark names, and leaves without it. ``receive_buffer``: largest socket buffer in
    bytes (0: as much as a full queue can fill). If the kernel grants less socket buffer than a full queue can fill,
    ``notes`` has a line for the operator.
    """

    def __init__(
        self,
        engine: Engine | None,
        number: int,
        *,
        length: int = 4096,
        copy_range: int = 0xFFFF,
        gso: bool = True,
        fail_open: bool = False,
        batch: int = 64,
        busy_poll: int = 0,
        offload_mark: int = 0,
        connection_mark: int = 0,
        receive_buffer: int = 0,
        mark: int = INJECT_MARK,
        tap: Tap | None = None,
        accept_all: bool = False,
    ) -> None:
        if not (engine or accept_all):
            raise ValueError("a queue without an engine can only accept everything")
        if not (0 <= number <= 0xFFFF and length > 0 and copy_range > 0 and 1 <= batch <= 64 and busy_poll >= 0):
            raise ValueError("queue number, length, copy range, batch or busy_poll out of range")
        self.number = number
        self.notes: list[str] = []
        self._engine = None if accept_all else engine
        self._length = length
        self._copy_range = copy_range
        self._gso = gso
        self._fail_open = fail_open
        self._batch = batch
        self._busy_poll = busy_poll
        self._offload_mark = offload_mark
        self._connection_mark = connection_mark
        self._most_buffer = receive_buffer
        self._mark = mark
        self._tap = tap
        self._loop: QueueLoop | None = None
        self._injector: Injector | None = None
        self._kernel: dict[str, int] = {}
        self._states: QueueStates | None = None
        self._wall_offset = time.time_ns() - time.monotonic_ns()

    def open(self, socket: int = -1, standing: dict[str, Any] | None = None) -> None:
        """Binds the queue. Raises QueueError, and CaptureError for the tap's files.

        ``socket``: a netlink socket that is already bound to it, owned by this object from here on; ``standing``: the
        loop state of the process that left it; None: not known, and then the packets it held are dropped.
        """
        self._states = QueueStates()
        self._injector = Injector(self._mark)
        try:
            self._loop = QueueLoop(
                self._engine,
                self.number,
                length=self._length,
                copy_range=self._copy_range,
                gso=self._gso,
                fail_open=self._fail_open,
                batch=self._batch,
                busy_poll=self._busy_poll * 1000,
                offload_mark=self._offload_mark,
                connection_mark=self._connection_mark,
                most_buffer=self._most_buffer,
                sender=self._injector,
                writer=self._tap.open() if self._tap else None,
            )
            self._loop.open(socket, standing)
            self._wall_offset = self._loop.standing()["wall_offset"]
        except OSError as error:
            self.close()
            raise QueueError(explain(self.number, error)) from error
        except BaseException:
            self.close()
            raise
        self.notes = []
        if self._loop.receive_buffer < self._loop.wanted_buffer:
            self.notes.append(
                f"queue {self.number}: the socket buffer is {self._loop.receive_buffer >> 10} KiB; servers' windows are"
                f" lowered so that what is on its way fits, where flows may be changed, and bursts of others may be"
                f" lost (counted as enobufs); run as root of the machine or raise net.core.rmem_max"
            )
            if self._engine:
                self._engine.bound_windows(self._loop.receive_buffer)

    def run(self) -> None:
        """Runs until ``stop``, without the GIL. Raises QueueError when the socket fails."""
        try:
            self._opened().run()
        except OSError as error:
            raise QueueError(f"queue {self.number}: {error.strerror}; its packets are lost") from error

    def stop(self) -> None:
        if self._loop:
            self._loop.stop()

    def leave(self) -> None:
        """Ends ``run`` soon without any verdict: another process continues, with ``fileno`` and ``standing``."""
        self._opened().leave()

    def come_back(self) -> None:
        """No other process continues: ``run`` may be called once more."""
        self._opened().come_back()

    def standing(self) -> dict[str, Any]:
        """The loop's clock and counters, when it has left."""
        return self._opened().standing()

    def nudge(self, *, anew: bool = False) -> None:
        """Has an idle loop turn once: ``counters`` shows that it does. ``anew``: it drops all
        flows, as after a start.
        """
        if self._loop:
            self._loop.nudge(anew=anew)

    @property
    def clock(self) -> int:
        """The wall clock's time when the queue was opened, continued by the monotonic clock."""
        return time.monotonic_ns() + self._wall_offset

    def turn(self) -> None:
        self.nudge()

    def treat(self, *, fail_open: bool, connection_mark: int) -> None:
        """Changes these settings. Raises QueueError if the kernel refuses them."""
        if connection_mark != self._connection_mark:
            self._opened().set_marks(connection_mark)
            self._connection_mark = connection_mark
        if fail_open != self._fail_open:
            try:
                self._opened().set_fail_open(fail_open)
            except OSError as error:
                raise QueueError(explain(self.number, error)) from error
            self._fail_open = fail_open

    def close(self) -> None:
        """Raises CaptureError if the tap's files are incomplete; the queue is released all the same."""
        if self._loop:
            self._kernel = self._kernel_counters()
            self._loop.close()
        if self._states:
            self._states.close()
        if self._injector:
            self._injector.close()
        if self._tap:
            self._tap.close()

    def fileno(self) -> int:
        """The netlink socket, -1 when closed."""
        return self._loop.fileno() if self._loop else -1

    def counters(self) -> dict[str, int]:
        """The loop's own counters; ``kernel_*``, if readable, count what the kernel lost before it reached the loop."""
        if self._loop is None:
            return {}
        buffer = {"receive_buffer": self._loop.receive_buffer}
        tap = self._tap.counters() if self._tap else {}
        return {**self._loop.counters(), **buffer, **tap, **(self._kernel_counters() or self._kernel)}

    def _opened(self) -> QueueLoop:
        if self._loop is None:
            raise RuntimeError("the queue is not open")
        return self._loop

    def _kernel_counters(self) -> dict[str, int]:
        state = self._states.read().get(self.number) if self._states else None
        if state is None or self._loop is None or state.portid != self._loop.portid:
            return {}
        return {
            "kernel_queue_total": state.total,
            "kernel_queue_dropped": state.queue_dropped,
            "kernel_user_dropped": state.user_dropped,
            "kernel_id_sequence": state.id_sequence,
        }


def explain(number: int, error: OSError) -> str:
    """One line for the operator: the kernel says EPERM for a taken queue as well as for missing privilege."""
    where = f"queue {number}"
    state = queue_states().get(number)
    if error.errno in (errno.EPERM, errno.EBUSY) and (state or has_net_admin()):
        return f"{where} is taken by {holder(state.portid) if state else 'another process'}; stop that or use another"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{where}: no permission; run as root or with CAP_NET_ADMIN"
    if error.errno in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return f"{where}: this kernel has no NFQUEUE ({error.strerror}); load nfnetlink_queue"
    return f"{where}: {error.strerror or error}"


def has_net_admin() -> bool:
    """Whether this process holds CAP_NET_ADMIN in its user namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False


def reader(portid: int) -> int | None:
    """The process with a netlink port id: it is often the pid, but only the socket's inode is
    certain; None: not known.
    """
    with suppress(OSError):
        for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
            fields = line.split()
            if (int(fields[1]), int(fields[2])) == (NETLINK_NETFILTER, portid) and (
                pid := socket_owner(int(fields[9]))
            ):
                return pid
    return None


def holder(portid: int) -> str:
    """The process with a netlink port id, as text for the operator."""
    with suppress(OSError):
        if pid := reader(portid):
            return f"process {pid} ({program(pid)})"
    return f"another process (netlink port {portid})"


def program(pid: int) -> str:
    """The name of a process; for Python, which hides the program, also the module that it runs."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if name.startswith("python") and "-m" in words[1:-2]:
        name += f" -m {words[words.index('-m', 1) + 1]}"
    return name


def socket_owner(inode: int) -> int | None:
    """The first process found to hold the socket; None: none that we may examine."""
    wanted = Path(f"socket:[{inode}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == wanted:
                return int(link.parts[2])
    return None
