"""The machine a benchmark ran on, and the processes it watches.

Promises: reads files of the kernel and nothing else. Does not change the machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nfmailguard import __version__

__all__ = ["Usage", "facts", "pinned", "tool", "usage"]


class Usage(NamedTuple):
    """What a process has used: nanoseconds of CPU, and how often it waited or was made to wait."""

    cpu: int
    voluntary: int
    involuntary: int

    def since(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def usage(pid: int) -> Usage:
    """The sum over all running threads of ``pid``; zero if the process is gone."""
    cpu = voluntary = involuntary = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            cpu += int((task / "schedstat").read_text().split()[0])
            status = (task / "status").read_text()
            voluntary += int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])
            involuntary += int(re.findall(r"^nonvoluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])
    return Usage(cpu, voluntary, involuntary)


def tool(name: str) -> str | None:
    """Where a program is: on the PATH, in /usr/sbin, or unpacked by ``deploy/setup bench``."""
    here = Path(__file__).parents[3] / "build" / "suricata" / "root" / "usr" / "bin" / name
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or (str(here) if here.exists() else None)


def facts() -> dict[str, str]:
    """Facts about the machine that a reader of the figures needs."""
    cpus = sorted(os.sched_getaffinity(0))
    memory = int(_first(r"^MemTotal:\s+(\d+)", "/proc/meminfo") or 0)
    found = {
        "processor": _first(r"^model name\s*:\s*(.+)$", "/proc/cpuinfo") or platform.machine(),
        "CPUs": f"{len(cpus)} ({', '.join(map(str, cpus))})",
        "memory": f"{memory >> 20} GiB",
        "kernel": platform.release(),
        "virtual": "yes" if re.search(r"^flags\s*:.*\bhypervisor\b", _read("/proc/cpuinfo"), re.MULTILINE) else "no",
        "frequency governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "not told",
        "load before": _read("/proc/loadavg").split(" ")[0],
        "Python": platform.python_version(),
        "nfmailguard": __version__,
    }
    if program := tool("suricata"):
        told = subprocess.run([program, "-V"], capture_output=True, text=True, check=False, env=environment(program))
        found["Suricata"] = (re.findall(r"\d+\.[\d.]+", told.stdout) or ["there"])[0]
    return found


def environment(program: str) -> dict[str, str]:
    """For a program that was unpacked, its libraries."""
    root = Path(program).parents[2]
    if root.name != "root":
        return dict(os.environ)
    libraries = [str(path) for path in sorted((root / "usr" / "lib").glob("*-linux-gnu"))]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Inside the block the calling thread, and what it starts, runs on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""


def _first(pattern: str, path: str) -> str | None:
    found = re.search(pattern, _read(path), re.MULTILINE)
    return found[1] if found else None
