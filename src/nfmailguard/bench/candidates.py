"""Who is measured on a queue: ours in every mode, what does less, and the peers.

Promises: each candidate is a process of its own that prints ``ready`` (or is given time to
bind), with rules of its own or ours, and leaves no trace. Does not measure.

    python -m nfmailguard.bench.candidates accept-all KEY=VALUE...

runs the kernel driver with no engine behind it, on queue 0, until it is ended.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nfmailguard.bench.machine import tool

__all__ = ["Candidate", "accept_all", "enforcing", "ours", "peers", "suricata_command"]

PEERS = Path(__file__).parents[3] / "benchmarks" / "peers"
ALERT = 'alert smtp any any -> any any (msg:"EHLO"; flow:established,to_server; content:"EHLO"; sid:1; rev:1;)\n'


class Candidate(NamedTuple):
    """A program to be measured; ``command`` None: packets are not queued at all."""

    name: str
    command: tuple[str, ...] | None
    #: True if the program sets up its own nftables rules.
    own_rules: bool = False
    #: True if the program's first line of output says that it is ready.
    says_ready: bool = True


def accept_all(name: str = "accept-all", **options: object) -> Candidate:
    """The kernel driver without an engine; ``options`` are KernelQueue's."""
    words = [f"{key}={value}" for key, value in options.items()]
    return Candidate(name, (sys.executable, "-m", "nfmailguard.bench.candidates", "accept-all", *words), own_rules=True)


def ours(name: str, mode: str, profile: str, events: Path | None, *sets: str) -> Candidate:
    """``nfmailguard run`` as an operator starts it."""
    log = ["--set", f"log.eve={events}"] if events else []
    more = [word for one in sets for word in ("--set", one)]
    command = (
        sys.executable,
        "-m",
        "nfmailguard",
        "run",
        "-c",
        "/dev/null",
        "--set",
        "service.control=",
        "--mode",
        mode,
        "--profile",
        profile,
    )
    return Candidate(name, (*command, *log, *more), own_rules=True)


def enforcing(name: str, events: Path | None, *sets: str) -> Candidate:
    """The candidate of the targets: enforcing pix63."""
    return ours(name, "enforce", "pix63", events, *sets)


def peers(scratch: Path) -> tuple[list[Candidate], list[str]]:
    """Other programs that are installed here, and why others are not measured."""
    found, notes = [], []
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler and (PEERS / "accept_all.c").exists():
        program = scratch / "accept_all"
        subprocess.run([compiler, "-O2", "-o", program, PEERS / "accept_all.c"], check=True)
        found.append(Candidate("C accept-all", (str(program), "0")))
    else:
        notes.append("C accept-all: no compiler, or no checkout with benchmarks/peers")
    if (PEERS / "scapy_mailguard.py").exists():
        found.append(Candidate("NetfilterQueue+scapy", (sys.executable, str(PEERS / "scapy_mailguard.py"), "0")))
    if suricata := tool("suricata"):
        command = (*suricata_command(suricata, scratch), "-q", "0")
        found.append(Candidate("Suricata", command, says_ready=False))
    else:
        notes.append("Suricata is not installed; `deploy/setup bench` unpacks it where Debian has it")
    return found, notes


def suricata_command(program: str, scratch: Path, *, quiet: bool = False) -> list[str]:
    """Suricata as its package configures it, with one rule; ``quiet`` turns its logs off."""
    folder = Path(program).parents[2] / "etc" / "suricata"
    if not (folder / "suricata.yaml").exists():
        folder = Path("/etc/suricata")
    rules, logs = scratch / "suricata.rules", scratch / "suricata"
    rules.write_text(ALERT)
    logs.mkdir(exist_ok=True)
    command = [program, "-c", str(folder / "suricata.yaml"), "-S", str(rules), "-l", str(logs)]
    for key in ("classification", "reference"):
        name = "classification-file" if key == "classification" else "reference-config-file"
        command += ["--set", f"{name}={folder / f'{key}.config'}"]
    command += ["--set", f"threshold-file={folder / 'threshold.config'}"]
    if quiet:
        command += ["--set", "outputs.0.fast.enabled=no", "--set", "outputs.1.eve-log.enabled=no"]
    return command


def run(options: Sequence[str]) -> None:
    """The kernel driver, accepting everything, until SIGTERM."""
    from nfmailguard.queues.kernel import KernelQueue
    from nfmailguard.ruleset import Ruleset

    pairs = (option.partition("=") for option in options)
    given = {key: int(value) if value.isdigit() else value == "True" for key, _, value in pairs}
    queue = KernelQueue(None, 0, accept_all=True, **given)  # type: ignore[arg-type]
    rules = Ruleset(0, 0, [25], ["forward"])
    queue.open()
    signal.signal(signal.SIGTERM, lambda *_: queue.stop())
    rules.apply()
    try:
        print("ready", flush=True)  # noqa: T201
        queue.run()
    finally:
        rules.remove()
        print(json.dumps(queue.counters()))  # noqa: T201
        queue.close()


if __name__ == "__main__":
    run(sys.argv[2:])
