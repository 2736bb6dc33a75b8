"""``bench engine``: the cost of deciding, from memory and from a capture file, on one CPU.

Promises: every case of a round sees the same packets; merely copying them is measured as a case too. Records are made,
and read outside the timed parts. Does not know the kernel.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nfmailguard.bench.dialogues import Packet, captures, mails, octets, write_pcap
from nfmailguard.bench.machine import environment, tool
from nfmailguard.bench.results import Benchmark
from nfmailguard.cext.bench.core_bench import Drill
from nfmailguard.engine import Engine
from nfmailguard.errors import BenchError
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode

__all__ = ["CASES", "engine", "files", "instructions"]

Tell = Callable[[str], object]

#: Mode and profile of each case; None only copies the packets.
CASES: dict[str, tuple[Mode, str] | None] = {
    "copy": None,
    "monitor pix63": (Mode.MONITOR, "pix63"),
    "enforce pix63": (Mode.ENFORCE, "pix63"),
    "enforce asa": (Mode.ENFORCE, "asa"),
}
#: Packets between two readings of the records; so few that the ring buffer of records does not overflow.
PART = 2000
#: Number of packets for which instructions are counted: callgrind is fifty times as slow.
COUNTED = 4000
#: Number of mails in the capture that is replayed for comparison with other programs, and bytes of each mail.
FILE_SESSIONS, FILE_SIZE = 12_000, 10 * 1024


def made(case: tuple[Mode, str] | None) -> Engine | None:
    return Engine([FlowRule(case[0], load_profile(case[1]))]) if case else None


def timed(drill: Drill, engine: Engine | None, count: int) -> int:
    """Nanoseconds of one pass, without the reading of records."""
    total = 0
    for first in range(0, count, PART):
        total += drill.run(first, min(first + PART, count))
        while engine and engine.drain():
            pass
    return total


def engine(rounds: int, tell: Tell) -> Benchmark:
    """Measures packets per second from memory."""
    found = Benchmark(
        "engine",
        "Deciding from memory, one CPU, checksums verified, records made",
        {"packets/s": "million/s", "rate": "Gbit/s", "time": "ns a packet"},
        "copy",
    )
    for name, packets in captures().items():
        size = octets(packets)
        drills = {case: (one := made(how), Drill(one, packets)) for case, how in CASES.items()}
        for turn in range(rounds + 1):
            for case, (one, drill) in drills.items():
                taken = timed(drill, one, len(packets))
                if turn:  # The first round only warms up and is not counted.
                    rate = len(packets) / taken * 1e3
                    figures = {"packets/s": rate, "rate": size * 8 / taken, "time": taken / len(packets)}
                    found.add(name, case, **figures)
        tell(f"engine: {name}: {len(packets):,} packets, {size / 1e6:,.1f} MB")
    found.notes.append(
        "Each packet is copied to where it is decided, as a receive of the queue does; that copy is in every figure."
    )
    return found


def instructions(found: Benchmark, tell: Tell) -> None:
    """Adds callgrind's count of the core's instructions per packet, which is the same in every run; needs valgrind."""
    valgrind = tool("valgrind")
    if not valgrind:
        found.notes.append("Instructions are not counted: valgrind is not installed.")
        return
    found.units["instructions"] = "a packet"
    for name, packets in captures().items():
        count = _instructions(valgrind, packets, "enforce pix63")
        found.groups[name]["enforce pix63"]["instructions"] = [count]
        tell(f"engine: {name}: {count:,.0f} instructions a packet")


def _instructions(valgrind: str, packets: list[Packet], case: str) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch, "packets")
        stored.write_bytes(marshal.dumps(packets[:COUNTED]))
        command = [
            *(valgrind, "--tool=callgrind", f"--callgrind-out-file={scratch}/out"),
            "--toggle-collect=*_core_process",
            *(sys.executable, "-c", f"from nfmailguard.bench.engine import once; once({str(stored)!r}, {case!r})"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        collected = [line.split()[-1] for line in done.stderr.splitlines() if "Collected" in line]
        if done.returncode or not collected:
            raise BenchError(f"bench: valgrind failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(collected[0]) / int(done.stdout)


def once(stored: str, case: str) -> None:
    """One pass, for callgrind; prints the number of packets."""
    packets = marshal.loads(Path(stored).read_bytes())
    one = made(CASES[case])
    timed(Drill(one, packets), one, len(packets))
    print(len(packets))  # noqa: T201


def files(rounds: int, tell: Tell) -> Benchmark:
    """CPU seconds of whole commands that read one capture file."""
    found = Benchmark(
        "replay", "CPU of a command that reads a capture, from its start to its end", {"CPU": "s"}, "replay", more=False
    )
    packets = mails(FILE_SESSIONS, FILE_SIZE)
    group = f"{len(packets):,} packets, {octets(packets) / 1e6:,.0f} MB"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "mail.pcap")
        write_pcap(packets, path)
        cases = dict(_readers(path, Path(scratch)))
        for turn in range(rounds):
            for case, command in cases.items():
                found.add(group, case, CPU=_cpu(command, scratch))
            tell(f"replay: round {turn + 1} of {rounds}")
    if "suricata" not in cases:
        found.notes.append("Suricata is not installed: `deploy/setup bench` unpacks it where Debian has it.")
    return found


def _readers(path: Path, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    replay = [sys.executable, "-m", "nfmailguard", "replay", str(path), "--mode", "enforce", "--profile", "pix63"]
    yield "replay", replay
    yield "replay, events", [*replay, "--events", str(scratch / "eve.json")]
    if tcpdump := tool("tcpdump"):
        yield "libpcap's copy", [tcpdump, "-r", str(path), "-w", str(scratch / "copy.pcap")]
    if suricata := tool("suricata"):
        from nfmailguard.bench.candidates import suricata_command

        yield "suricata", [*suricata_command(suricata, scratch), "-r", str(path)]
        yield "suricata, no output", [*suricata_command(suricata, scratch, quiet=True), "-r", str(path)]


def _cpu(command: list[str], scratch: str) -> float:
    with Path(scratch, "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment(command[0]))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = Path(scratch, "said").read_text(errors="replace").strip().splitlines()[-1:]
        raise BenchError(f"bench: {Path(command[0]).name} failed: {' '.join(last)}")
    return used.ru_utime + used.ru_stime
