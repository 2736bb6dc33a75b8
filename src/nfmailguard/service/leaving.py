"""The end of a gateway that hands over: it stops reading its queues, and its state goes to its successor, or to the
service manager until there is one.

Promises: until the other side has confirmed that it has everything, and a successor has been answered, nothing is given
up: whatever goes wrong before, this gateway continues to read the queues. Does not know what a successor does.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Sequence
from typing import Any

from nfmailguard import __version__
from nfmailguard.cext.handover import state
from nfmailguard.config import Config
from nfmailguard.errors import RefusedError
from nfmailguard.queues.kernel import KernelQueue
from nfmailguard.service.changes import fixed_differ, fixed_values
from nfmailguard.service.control import ControlSocket, Request
from nfmailguard.service.handover import PATIENCE, stage
from nfmailguard.service.kept import KEPT_QUEUE, KEPT_STATE
from nfmailguard.service.notify import Systemd
from nfmailguard.service.worker import QueueWorker

__all__ = ["leave", "leave_to_manager"]

#: Seconds between two checks whether the successor is still connected.
_LOOK = 0.02
#: Most seconds to wait until the successor has read the last answer.
_LAST = 1.0


def leave(
    request: Request,
    requests: queue.SimpleQueue[Request],
    workers: Sequence[QueueWorker],
    configs: dict[int, Config],
    config: Config,
    placed: dict[str, Any],
    control: ControlSocket,
) -> bool:
    """Whether the successor that asks has taken over; if not, this gateway continues. Raises RefusedError, OSError.

    ``requests``: the queue in which its confirmation arrives; ``configs``: configurations that flows are under, by
    number; ``config``: the one in force.
    """
    fixed = request.arguments.get("fixed")
    if not isinstance(fixed, dict):
        raise RefusedError("hand-over: fixed: what cannot change while a gateway runs is missing")
    if found := fixed_differ(fixed_values(config), fixed):
        raise RefusedError(*(f"hand-over: {line}" for line in found))
    if request.arguments.get("rules") is not bool(placed["rules"]):
        raise RefusedError("hand-over: --no-rules: of the two gateways one has it, and the rules would be nobody's")
    reason = ""
    if request.arguments.get("state") != list(state.version()):
        reason = f"its state is that of another version ({__version__}, process {os.getpid()})"
    files: list[int] = []
    taken = False
    try:
        left = _leave_queues(workers)
        if not reason:
            files = [stage(workers, configs, placed, fixed_values(config), left)]
        answer = {
            "pid": os.getpid(),
            "version": __version__,
            "queues": [worker.number for worker in workers],
            "reason": reason,
            "left": left,
        }
        request.reply_with(answer, [control.fileno(), *_sockets(workers).values(), *files])
        taken = _has_taken(request, requests, control)
    finally:
        _end(workers, files, taken=taken)
    return taken


def leave_to_manager(
    workers: Sequence[QueueWorker],
    configs: dict[int, Config],
    config: Config,
    placed: dict[str, Any],
    systemd: Systemd,
) -> bool:
    """Whether the service manager keeps queues and state for the next start; if not, the gateway continues. Raises
    OSError.

    If the manager stops the service for good it closes them, and the state is lost.
    """
    files: list[int] = []
    taken = False
    try:
        left = _leave_queues(workers)
        files = [stage(workers, configs, placed, fixed_values(config), left)]
        queues = [(f"{KEPT_QUEUE}{number}", socket) for number, socket in _sockets(workers).items()]
        taken = systemd.keep([(KEPT_STATE, files[0]), *queues])
    finally:
        _end(workers, files, taken=taken)
    return taken


def _leave_queues(workers: Sequence[QueueWorker]) -> int:
    """Stops reading the queues and writes all records; returns since when nobody reads them, in
    monotonic nanoseconds.
    """
    for worker in workers:
        worker.drain(_LAST)
    left = time.monotonic_ns()
    for worker in workers:
        worker.leave()
    for worker in workers:
        worker.drain()
    return left


def _sockets(workers: Sequence[QueueWorker]) -> dict[int, int]:
    """The sockets of the kernel driver's queues, by number."""
    return {worker.number: worker.driver.fileno() for worker in workers if isinstance(worker.driver, KernelQueue)}


def _end(workers: Sequence[QueueWorker], files: Sequence[int], *, taken: bool) -> None:
    for file in files:
        os.close(file)
    if not taken:
        for worker in workers:
            worker.come_back()


def _has_taken(request: Request, requests: queue.SimpleQueue[Request], control: ControlSocket) -> bool:
    """Waits for the successor's confirmation, and answers it: from then on there is no way back."""
    deadline = time.monotonic() + PATIENCE
    others = []
    word: Request | None = None
    while word is None and request.asker.waits() and time.monotonic() < deadline:
        try:
            found = requests.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if found.command == "taken" and found.asker.connection is request.asker.connection:
            word = found
        else:
            others.append(found)
    for other in others:
        requests.put(other)
    if word is None:
        return False
    control.leave()
    word.reply({})
    deadline = time.monotonic() + _LAST
    while word.asker.waits() and time.monotonic() < deadline:
        time.sleep(_LOOK / 4)  # The successor closes the connection once it has the answer.
    return True
