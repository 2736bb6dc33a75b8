"""Private namespaces for the lab: network, mount and process namespaces that disappear with it.

Promises: what runs in them cannot touch the host's network, and nothing is left when it ends, however it ends: a
namespace disappears with its last process. Needs no root where the kernel allows unprivileged user namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from nfmailguard.errors import LabError

__all__ = ["enter_private", "inside", "may_change_users", "run_private", "start_private"]

_MARK = "NFMAILGUARD_PRIVATE"


def inside() -> bool:
    """Whether this process is already in private namespaces."""
    return os.environ.get(_MARK) == "1"


def may_change_users() -> bool:
    """Whether processes here can become other users: as root, unless root is the only user in the namespace."""
    mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and sum(int(line[2]) for line in mapped) > 1


def _unshare() -> list[str]:
    binary = shutil.which("unshare")
    if binary is None:
        raise LabError("lab: no `unshare` here; install util-linux")
    command = [binary, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        reason = probe.stderr.strip().splitlines()[-1] if probe.stderr.strip() else f"exit {probe.returncode}"
        needs = "" if os.geteuid() == 0 else "; run as root, or allow unprivileged user namespaces"
        raise LabError(f"lab: cannot make namespaces ({reason}){needs}")
    return command


def run_private(argv: Sequence[str]) -> int:
    """Runs ``argv`` in private namespaces and returns its exit code; raises LabError where none can be made."""
    environment = {**os.environ, _MARK: "1"}
    world = subprocess.Popen([*_unshare(), *argv], env=environment)
    # Ctrl-C in a terminal also reaches the processes in the namespaces, so it is ignored here until they end.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return world.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def start_private(argv: Sequence[str], pass_fds: Sequence[int], **options: Any) -> subprocess.Popen[bytes]:
    """Starts ``argv`` in private namespaces that outlive this process; LabError where none can be made.

    The namespaces end when their first process does, or the one that is returned.
    """
    environment = {**os.environ, _MARK: "1"}
    return subprocess.Popen(
        [*_unshare(), *argv],
        env=environment,
        pass_fds=pass_fds,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        **options,
    )


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def enter_private() -> None:
    """Prepares the namespaces ``run_private`` made: a /run of their own, signals that end them. Call once, inside."""
    # Without the environment variable that marks a process as already in its namespaces, what is started from here may
    # make namespaces of its own inside them.
    del os.environ[_MARK]
    # The first process of a PID namespace receives only signals it has a handler for.
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Under nohup(1) SIGHUP is ignored, and stays ignored.
        signal.signal(signal.SIGHUP, _terminate)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"lab: no /run of its own: {done.stderr.strip()}")
