"""What systemd is told (sd_notify(3)), and its watchdog.

Promises: without systemd nothing happens; nobody waits for it. The watchdog is fed only when every queue's loop
has moved since the last time: never by time alone. Does not know what the loops do.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

from nfmailguard.service.signals import masked

__all__ = ["Systemd"]

_PATIENCE = 1.0


class Systemd:
    """The service manager named in ``environment``, which our children do not see any more."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        period, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = process in ("", str(os.getpid()))
        self._watchdog = int(period) / 1e6 if period.isascii() and period.isdigit() and ours else 0.0
        self._stopping = threading.Event()

    @property
    def abstract(self) -> bool:
        """Whether it listens at a Unix socket without a file."""
        return self._address.startswith("\0")

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._stopping.set()
        self._send("STOPPING=1")

    def watch(self, moved: Callable[[], bool]) -> None:
        """From now on the watchdog is fed whenever ``moved`` says that all goes on."""
        if self._watchdog and self._address:
            threading.Thread(target=self._feed, args=(moved,), name="watchdog", daemon=True).start()

    def _feed(self, moved: Callable[[], bool]) -> None:
        masked()
        while not self._stopping.wait(self._watchdog / 4):
            if moved():
                self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(_PATIENCE)
            link.connect(self._address)  # or a full queue would be no reason to wait: poll(2) asks the other end's
            link.send("\n".join(line.replace("\n", " ") for line in lines).encode())
