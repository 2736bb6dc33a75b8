"""Runs ``lab compare``: all modes at the same time, each in a lane of its own, in namespaces that disappear afterwards.

Promises: what is missing on this machine is reported in one line, with how to get it, before anything is made; exit
code 1 when an outcome is not the expected one. Raises LabError, ConfigError.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec

from nfmailguard.errors import ConfigError, LabError
from nfmailguard.lab.matrix import receivers, report, senders
from nfmailguard.lab.matrix.cells import CLIENTS, MODES, SERVERS, Cell, Choice, Outcome
from nfmailguard.lab.matrix.expected import expect, surprises
from nfmailguard.lab.matrix.lane import Lane
from nfmailguard.lab.namespaces import enter_private, inside, may_change_users, run_private
from nfmailguard.plain import json_safe
from nfmailguard.policy.load import profile_names
from nfmailguard.reports import pages
from nfmailguard.reports.console import Console, save

__all__ = ["JOBS", "chosen", "main"]

#: Mails sent at the same time in each mode; two processors can carry as many.
JOBS = 5
_WIDTH = 100


def chosen(clients: Sequence[str], servers: Sequence[str], profiles: Sequence[str], modes: Sequence[str]) -> Choice:
    """The named values, or all if none is named; in the order of the axes, each once. Raises ConfigError."""
    axes = (("client", clients, CLIENTS), ("server", servers, SERVERS), ("profile", profiles, profile_names()),
            ("mode", modes, MODES))  # fmt: skip
    found = []
    for axis, named, known in axes:
        for name in named:
            if name not in known:
                raise ConfigError(f"--{axis} {name}: unknown here; one of {', '.join(known)}")
        found.append([name for name in known if name in named or not named])
    return Choice(*found)


def check_machine(choice: Choice) -> None:
    """Raises LabError with everything that is missing on this machine for ``choice``."""
    needed = [*map(senders.missing, choice.clients), *map(receivers.missing, choice.servers)]
    if absent := list(dict.fromkeys(filter(None, needed))):
        raise LabError(
            f"lab compare: not here: {', '.join(absent)}; in a checkout `deploy/setup compare` gets them all; "
            "or choose others with --client and --server"
        )
    changing = [name for name in dict.fromkeys((*choice.servers, *choice.clients)) if name in SERVERS[:-1]]
    if changing and not may_change_users():
        raise LabError(
            f"lab compare: {', '.join(changing)} change users, which takes root; without it choose "
            "--server aiosmtpd and other clients than postfix"
        )


class _Progress:
    """Progress on standard error: an updated line, or one line per profile if there is no terminal."""

    def __init__(self, mails: int) -> None:
        self._console = Console(stderr=True)
        self._lock = threading.Lock()
        self._mails, self._done = mails, 0
        self._status = self._console.status(f"{mails} mails: starting servers")

    def mail(self) -> None:
        with self._lock:
            self._done += 1
            self._status.update(f"{self._done} of {self._mails} mails")

    def profile(self, mode: str, profile: str) -> None:
        if not self._console.is_terminal:
            with self._lock:
                self._console.print(
                    f"{self._done} of {self._mails} mails: {mode} {profile} is through", highlight=False
                )

    def __enter__(self) -> _Progress:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def _one_mode(lane: Lane, profiles: Sequence[str], progress: _Progress, failed: threading.Event) -> dict[Cell, Outcome]:
    """Runs all cells of one mode; ends early when another mode has failed."""
    found: dict[Cell, Outcome] = {}
    try:
        lane.start()
        for profile in profiles:
            if failed.is_set():
                break
            found.update(lane.run(profile, progress.mail))
            progress.profile(lane.mode, profile)
        logs = lane.logs()
    except BaseException:
        failed.set()
        raise
    return {cell: msgspec.structs.replace(one, log=logs.get(cell, {})) for cell, one in found.items()}


def compare(choice: Choice, family: int, jobs: int) -> list[report.Seen]:
    """Runs every cell of ``choice``, in private namespaces."""
    mails = len(choice.clients) * len(choice.servers) * len(choice.profiles) * len(choice.modes)
    failed = threading.Event()
    outcomes: dict[Cell, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, ExitStack() as stack:
        # One thread creates the networks; the programs in them are then started by several threads.
        lanes = [stack.enter_context(Lane(mode, choice, Path(scratch, mode), family, jobs)) for mode in choice.modes]
        progress = stack.enter_context(_Progress(mails))
        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [pool.submit(_one_mode, lane, choice.profiles, progress, failed) for lane in lanes]
            try:
                for one in running:
                    outcomes.update(one.result())
            except BaseException:
                failed.set()  # One mode's run has failed: the other modes' runs end after the profile they are at.
                raise
    seen = []
    for cell, outcome in outcomes.items():
        expected = expect(cell)
        seen.append(report.Seen(cell, expected, outcome, tuple(surprises(expected, outcome))))
    return seen


def run(choice: Choice, family: int, jobs: int, record: Path | None, page: Path | None, *, as_json: bool) -> int:
    """The comparison, inside private namespaces; its exit code."""
    began = time.monotonic()
    seen = compare(choice, family, jobs)
    seconds = time.monotonic() - began
    if as_json:
        text = msgspec.json.format(msgspec.json.encode(report.as_json(seen, seconds)), indent=2)
        sys.stdout.write(json_safe(text).decode() + "\n")
    else:
        report.show(Console(), seen, seconds)
    if record is not None:
        console = Console(record=True, width=_WIDTH, file=io.StringIO())
        report.show(console, seen, seconds)
        save(console, record, report.TITLE)
    if page is not None:
        pages.write(page, report.page(seen, seconds))
    return 1 if any(one.surprises for one in seen) else 0


def main(
    choice: Choice,
    family: int = 4,
    jobs: int = JOBS,
    record: Path | None = None,
    page: Path | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Runs it in namespaces of its own; its exit code, 1 when an outcome is not the expected one."""
    if not inside():
        check_machine(choice)
        return run_private([sys.executable, "-m", "nfmailguard", *sys.argv[1:]])
    enter_private()
    try:
        return run(choice, family, jobs, record, page, as_json=as_json)
    except KeyboardInterrupt:
        return 130
