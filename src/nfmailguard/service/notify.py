"""Messages to systemd (sd_notify(3)), its watchdog, and what it keeps for the gateway (sd_pid_notify_with_fds(3)).

Promises: without systemd nothing happens; nothing waits for systemd, except for its confirmation that it has read what
it is to keep, or to forget. The watchdog is fed only when every queue's loop has moved since the last time: never by
time alone. Does not know what the loops do.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

from nfmailguard.service.signals import masked

__all__ = ["Systemd"]

_PATIENCE = 1.0
#: Most seconds to wait until systemd has read the messages sent to it; it may be busy with other services.
_BARRIER = 5.0
#: Number of the first file descriptor that systemd passes to a service (SD_LISTEN_FDS_START).
_FIRST = 3


class Systemd:
    """The service manager named in ``environment``; the variables are removed, so that child
    processes do not see them.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        period, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = process in ("", str(os.getpid()))
        self._watchdog = int(period) / 1e6 if period.isascii() and period.isdigit() and ours else 0.0
        self._stopping = threading.Event()
        self._kept = _passed_on(environment)
        self._names = list(self._kept)

    @property
    def manages(self) -> bool:
        """Whether there is a service manager to notify."""
        return bool(self._address)

    @property
    def keeps(self) -> bool:
        """Whether it has kept something of the previous gateway."""
        return bool(self._kept)

    def take_kept(self) -> dict[str, int]:
        """The kept descriptors by name; the caller owns them from here on."""
        kept, self._kept = self._kept, {}
        return kept

    def keep(self, files: Sequence[tuple[str, int]]) -> bool:
        """Has systemd keep descriptors until the next start, or until it stops the service; returns whether it has read
        the message.

        systemd does not say whether it keeps them: if the unit has no FileDescriptorStoreMax= it closes them.
        """
        sent = [self._send("FDSTORE=1", f"FDNAME={name}", files=[file]) for name, file in files]
        return bool(sent) and all(sent) and self._barrier()

    def forget_kept(self) -> None:
        """Has systemd close what it had kept; this process's copies stay open."""
        for name in self._names:
            self._send("FDSTOREREMOVE=1", f"FDNAME={name}")
        if self._names:
            self._barrier()
        self._names = []

    def _barrier(self) -> bool:
        """Whether systemd has read all messages: then it closes the descriptor sent with the last one."""
        ours, its = socket.socketpair()
        with ours:
            with its:
                sent = self._send("BARRIER=1", files=[its.fileno()])
            ours.settimeout(_BARRIER)
            with suppress(OSError):
                return sent and ours.recv(1) == b""
        return False

    @property
    def abstract(self) -> bool:
        """Whether systemd listens at an abstract Unix socket (one without a file)."""
        return self._address.startswith("\0")

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._stopping.set()
        self._send("STOPPING=1")

    def watch(self, moved: Callable[[], bool]) -> None:
        """From now on the watchdog is fed whenever ``moved`` says that all loops move."""
        if self._watchdog and self._address:
            threading.Thread(target=self._feed, args=(moved,), name="watchdog", daemon=True).start()

    def _feed(self, moved: Callable[[], bool]) -> None:
        masked()
        while not self._stopping.wait(self._watchdog / 4):
            if moved():
                self._send("WATCHDOG=1")

    def _send(self, *lines: str, files: Sequence[int] = ()) -> bool:
        if not self._address:
            return False
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(_PATIENCE)
            # Connected so that sending waits while systemd's queue is full: poll(2) checks the receiver's queue only on
            # a connected socket.
            link.connect(self._address)
            socket.send_fds(link, [message], list(files))
            return True
        return False


def _passed_on(environment: MutableMapping[str, str]) -> dict[str, int]:
    """Descriptors kept for this process, by name; if two have the same name they are not the
    gateway's, and are closed.
    """
    process, count, names = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    found: dict[str, int] = {}
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return found
    for place, name in zip(range(_FIRST, _FIRST + int(count)), names.split(":"), strict=False):
        if name in found:
            os.close(place)
            continue
        os.set_inheritable(place, False)
        found[name] = place
    return found
