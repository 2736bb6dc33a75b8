"""What the product does, recorded: to be the same before and after a change that is to change nothing.

    python -m tests.baseline FILE [--captures FOLDER]... [--only BEGINNING]... [--deliveries N]
    python -m tests.baseline --compare FILE [the same options]

Plays every vector, every capture in the tree and in the folders named, the engine benchmark's traffic, the
fuzz targets' corpus and crashes, and deliveries of the stream machine from fixed seeds. A case becomes a line:
its name, how many packets it had, and four digests: of what left (each verdict, each byte), of the events as
EVE lines, of the counters with their names, and of their values alone, which a counter's new name leaves as
they are. --compare records again, says which cases differ and in what, and exits 1 when one does.

Promises: the same tree gives the same file, on any machine, in any time zone. Looks only at what the
product's public face gives: an Engine, `replay`, the EVE writer. Left out are numbers that say how much memory
a structure takes. Cases named "tight" run with little memory: what they do may change with a structure's size.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from nfmailguard.bench.dialogues import captures as benchmark_traffic
from nfmailguard.bench.dialogues import write_pcap
from nfmailguard.config import load
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError
from nfmailguard.events.eve import EveWriter
from nfmailguard.policy.cisco.read import read as read_cisco
from nfmailguard.policy.load import profile_names
from nfmailguard.policy.model import FlowRule, Limits, Mode
from nfmailguard.replay import replay
from tests.fuzz.build import build_harness
from tests.fuzz.settings import PASSES
from tests.fuzz.settings import SETTINGS as FUZZED
from tests.fuzz.targets import TARGETS
from tests.stream import flood, ports, setting
from tests.stream.machine import Run
from tests.stream.test_machine import SETTINGS
from tests.support.captures import RAW, framed, mail, pcap
from tests.support.dialogue import CLIENTS, SERVERS
from tests.support.wire import ACK, FIN, PSH, SYN, build
from tests.vectors.cases import Case, cases

ROOT = Path(__file__).parents[1]
DELIVERIES = 200_000
#: Beside those of the stream machine, as parts of their number: connections over the same ports, and floods.
OVER_PORTS, IN_FLOODS = 0.1, 0.5
RUNS_A_CASE = 5
SEGMENT = 1448
SMALL = Limits(flows=16)
TIGHT = 1 << 16  # bytes; what the fuzz targets' ordinary settings have is more
MOST_CUTS = 100
MEMORY = {"memory_now", "table_octets"}  # counters that say how large structures are
PARTS = ("outputs", "events", "counters", "values")
_FLOW_ID = re.compile(rb'"flow_id":(\d+)')
_TIME = re.compile(rb'"(timestamp|start|end)":"[^"]*"')


@dataclass
class Tape:
    """What one case has come to. ``clock``: events count with their times."""

    name: str
    clock: bool = True
    packets: int = 0
    outputs: Any = field(default_factory=hashlib.sha256)
    events: Any = field(default_factory=hashlib.sha256)
    counters: dict[str, int] = field(default_factory=dict)
    faults: int = 0
    _flows: dict[bytes, bytes] = field(default_factory=dict)

    def put(self, *what: object) -> None:
        """Something that left."""
        for one in what:
            octets = one if isinstance(one, bytes) else str(one).encode()
            self.outputs.update(b"%d:" % len(octets) + octets)

    def write(self, lines: list[bytes]) -> None:
        """Events: a flow is called by its place among the flows of the case."""
        for line in lines:
            told = _FLOW_ID.sub(self._flow, line)
            self.events.update(told if self.clock else _TIME.sub(b'"time":0', told))

    def _flow(self, match: re.Match[bytes]) -> bytes:
        return b'"flow_id":' + self._flows.setdefault(match[1], b"%d" % len(self._flows))

    def line(self) -> str:
        counted = sorted((name, count) for name, count in self.counters.items() if count and name not in MEMORY)
        digests = (
            self.outputs.hexdigest(),
            self.events.hexdigest(),
            hashlib.sha256(repr(counted).encode()).hexdigest(),
            hashlib.sha256(repr(sorted(count for _, count in counted)).encode()).hexdigest(),
        )
        return "\t".join((self.name, str(self.packets), *(digest[:16] for digest in digests)))


class _Sink:
    """Where the events of an engine go: to the tape of the moment."""

    lost = 0

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def write(self, lines: list[bytes]) -> None:
        self._recorder.tape.write(lines)


class Recorder:
    """Stands between every Engine and who plays it; ``case`` begins a tape and ends it."""

    def __init__(self) -> None:
        self.tape = Tape("")
        self.lines: list[str] = []
        self.faults: list[str] = []  # cases in which what played it objected
        self.engines: dict[Engine, EveWriter] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Engines that are made meanwhile have no secrets, and are recorded."""
        process, expire, finish, drain, make = (
            Engine.process,
            Engine.expire,
            Engine.finish,
            Engine.drain,
            Engine.__new__,
        )

        def made(cls: type[Engine], rules: Any, **options: Any) -> Engine:
            engine = make(cls, rules, **options)
            self.engines[engine] = EveWriter(engine.rules, _Sink(self))  # type: ignore[arg-type]
            return engine

        def processed(engine: Engine, data: Any, *rest: Any, **named: Any) -> Any:
            self.tape.packets += 1
            return self._answers(process(engine, data, *rest, **named))

        def drained(engine: Engine, *most: int) -> Any:
            records = drain(engine, *most)
            if records and engine in self.engines:
                self.engines[engine].write(records)
            return records

        with contextlib.ExitStack() as stack:
            for name, value in {
                "__new__": staticmethod(made),
                "process": processed,
                "expire": lambda engine, now: self._answers(expire(engine, now)),
                "finish": lambda engine, now: self._answers(finish(engine, now)),
                "drain": drained,
            }.items():
                stack.enter_context(mock.patch.object(Engine, name, value))
            stack.enter_context(mock.patch.object(secrets, "token_bytes", bytes))
            yield

    def _answers(self, operations: list[tuple[int, int, bytes | None, bool]]) -> Any:
        self.tape.put(len(operations))
        for kind, number, data, to_server in operations:
            self.tape.put(kind, number, data or b"", int(to_server))
        return operations

    @contextlib.contextmanager
    def case(self, name: str, *, clock: bool = True, keep: bool = False) -> Iterator[Tape]:
        """One case; ``keep``: its engines are there before it and after it."""
        if not keep:
            self.engines.clear()
        self.tape = tape = Tape(name, clock)
        before = {engine: engine.counters() for engine in self.engines}
        yield tape
        for engine in self.engines:
            while engine.drain():
                pass
            known = before.get(engine, {})
            for counter, count in engine.counters().items():
                tape.counters[counter] = tape.counters.get(counter, 0) + count - known.get(counter, 0)
        self.lines.append(tape.line())
        if tape.faults:
            self.faults.append(tape.name)


# Vectors.


def _talk(engine: Engine, packets: list[tuple[bool, bytes]], family: int) -> None:
    """A connection in order: each side acknowledges what the other has sent, whatever became of it."""
    ends = {True: CLIENTS[family], False: SERVERS[family]}
    number = {True: 1000, False: 5000}
    now = 1_000_000_000

    def send(to_server: bool, flags: int, payload: bytes = b"") -> None:
        nonlocal now
        now += 1_000_000
        acknowledged = number[not to_server] if flags & ACK else 0
        packet = build(ends[to_server], ends[not to_server], number[to_server], acknowledged, flags, payload)
        engine.process(packet, now, id=now // 1_000_000)
        number[to_server] += len(payload) + bool(flags & (SYN | FIN))

    for to_server, flags in ((True, SYN), (False, SYN | ACK), (True, ACK)):
        send(to_server, flags)
    for to_server, data in packets:
        for at in range(0, len(data), SEGMENT):
            send(to_server, ACK | PSH, data[at : at + SEGMENT])
    for to_server, flags in ((True, FIN | ACK), (False, FIN | ACK), (True, ACK)):
        send(to_server, flags)
    engine.finish(now + 1)


def _vector(case: Case, mode: Mode, family: int, size: int) -> None:
    packets = [(side, data[at : at + size]) for side, data in case.packets for at in range(0, len(data), size)]
    rule = FlowRule(Mode.RESTORE if case.restore else mode, case.policy, restore=case.restore)
    _talk(Engine([rule]), [*case.before, *packets], family)


def vectors(recorder: Recorder) -> Iterator[str]:
    known: dict[str, int] = {}
    for case in cases():
        known[str(case)] = known.get(str(case), 0) + 1
        name = f"vectors/{case}" + (f"-{known[str(case)]}" if known[str(case)] > 1 else "")
        for variant, mode, family, size in (
            ("whole", Mode.ENFORCE, 4, 65536),
            ("whole-6", Mode.ENFORCE, 6, 65536),
            ("bytes", Mode.ENFORCE, 4, 1),
            ("monitor", Mode.MONITOR, 4, 65536),
        ):
            yield f"{name}/{variant}"
            with recorder.case(f"{name}/{variant}"):
                _vector(case, mode, family, size)
        yield f"{name}/cuts"
        with recorder.case(f"{name}/cuts"):
            whole = b"".join(data for _, data in case.packets)
            rule = FlowRule(Mode.RESTORE if case.restore else Mode.ENFORCE, case.policy, restore=case.restore)
            for cut in range(1, min(len(whole), MOST_CUTS)):
                packets = [(case.to_server, whole[:cut]), (case.to_server, whole[cut:])]
                _talk(Engine([rule], limits=SMALL), [*case.before, *packets], 4)


#: For policies that come with no dialogue of their own: something of everything.
TALK = [
    (False, b"220 mail2.example ESMTP Postfix 2.0\r\n"),
    (True, b"EHLO client.example\r\n"),
    (False, b"250-mail2.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250-X-OWN\r\n250 CHUNKING\r\n"),
    (True, b"TURN\r\n"),
    (False, b"502 no\r\n"),
    (True, b"MAIL FROM:<a|b%c@client.example> SIZE=100\r\n"),
    (False, b"250 ok\r\n"),
    *[(True, b"RCPT TO:<" + b"x" * 70 + b"@mail2.example>\r\n"), (False, b"550 who?\r\n")] * 3,
    (True, b"RCPT TO:<b@mail2.example>\r\n"),
    (False, b"250 ok\r\n"),
    (True, b"DATA\r\n"),
    (False, b"354 go on\r\n"),
    (True, b"To: b@mail2.example\r\nSubject: " + b"y" * 1200 + b"\r\n\r\nbare\nnul\0\r\n" + b"z" * 1100 + b"\r\n.\r\n"),
    (False, b"250 queued\r\n"),
    (True, b"STARTTLS\r\n"),
    (False, b"220 go on\r\n"),
]


# Captures.


def _replayed(recorder: Recorder, name: str, capture: Path, scratch: Path, **options: Any) -> None:
    with recorder.case(name) as tape:
        out, events = scratch / "out.pcap", scratch / "events"
        out.unlink(missing_ok=True)
        events.unlink(missing_ok=True)
        try:
            summary = replay(load(**options), capture, out, str(events))
        except Exception as error:  # noqa: BLE001  no capture at all is an answer, too
            tape.put(type(error).__name__)
            return
        tape.put(out.read_bytes() if out.exists() else b"")
        if events.exists():
            # The last line tells the counters, which are looked at apart.
            tape.write([line for line in events.read_bytes().splitlines(True) if b'"event_type":"stats"' not in line])
        tape.packets = summary.packets
        tape.put(summary.fault is not None)
        recorder.engines.clear()
        tape.counters.update(summary.counters)


def captures(recorder: Recorder, folders: list[Path]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        found: list[tuple[str, Path]] = []
        for family in (4, 6):
            (made := scratch / f"mail-{family}.pcap").write_bytes(pcap(framed(mail(family)), RAW))
            found.append((f"captures/a mail over IPv{family}", made))
        for base, where in (("captures", ROOT / "tests"), *((f"captures/{one.name}", one) for one in folders)):
            found += [(f"{base}/{path.relative_to(where)}", path) for path in sorted(where.rglob("*.pcap*"))]
        for name, path in found:
            runs = [(Mode.ENFORCE, profile) for profile in profile_names()]
            runs += [(Mode.MONITOR, "asa"), (Mode.MONITOR, "pix63"), (Mode.RESTORE, "asa"), (Mode.RESTORE, "pix63")]
            for mode, profile in runs:
                yield f"{name}/{mode}-{profile}"
                _replayed(recorder, f"{name}/{mode}-{profile}", path, scratch, mode=str(mode), profile=profile)


def benchmark(recorder: Recorder) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for name, packets in benchmark_traffic().items():
            write_pcap(packets[:8000], path := Path(folder) / "in.pcap")
            for mode, profile in ((Mode.ENFORCE, "pix63"), (Mode.ENFORCE, "asa"), (Mode.MONITOR, "pix63")):
                case = f"benchmark/{name}/{mode}-{profile}"
                yield case
                _replayed(recorder, case, path, Path(folder), mode=str(mode), profile=profile)


# Fuzzing.


def _is_tight(target: str, data: bytes) -> bool:
    """Whether an input chooses a setting with little memory (the heads of harness/*.pyx)."""
    number = data[0] if data else 0
    settings = {"packets": FUZZED, "streams": FUZZED, "ports": (*FUZZED, PASSES), "captures": FUZZED[:4]}.get(
        target, ()
    )
    if target == "captures":
        number = (number >> 1) % 5  # the last of them accepts all
    elif settings:
        number %= len(settings)
    return number < len(settings) and settings[number].limits.memory < TIGHT


def corpus(recorder: Recorder) -> Iterator[str]:
    """What the targets' inputs come to; the harness digests what leaves, the engines tell the rest."""
    build_harness()
    from tests.fuzz.harness import gate

    for name, target in TARGETS.items():
        inputs = sorted([*target.corpus.iterdir(), *(target.crashes.iterdir() if target.crashes.exists() else ())])
        yield f"corpus/{name}"
        recorder.engines.clear()
        run, _ = target.ready(False)
        for path in inputs:
            data = path.read_bytes()
            case = f"corpus{'-tight' if _is_tight(name, data) else ''}/{name}/{path.parent.parent.name}/{path.name}"
            yield case
            with recorder.case(case, clock=False, keep=target.sanitized) as tape:
                gate.begin_digest()
                fault = run(data)
                tape.faults += fault is not None
                tape.put(int(fault is not None), gate.digest())
                if name == "cisco":
                    with contextlib.suppress(ConfigError):
                        for policy in read_cisco(data.decode("utf-8", "surrogateescape")).policies:
                            Engine([FlowRule(Mode.ENFORCE, policy)], limits=SMALL)
                if name in ("cisco", "config"):
                    for engine in [engine for engine in recorder.engines if engine.counters()["packets"] == 0]:
                        _talk(engine, TALK, 4)
            if name == "captures":
                with tempfile.TemporaryDirectory() as folder:
                    (capture := Path(folder) / "in.pcap").write_bytes(data[1:])
                    kept = dict(recorder.engines)
                    _replayed(recorder, f"{case}/asa", capture, Path(folder), mode="enforce", profile="asa")
                    recorder.engines.update(kept)


# Deliveries.


def _seeds(
    recorder: Recorder,
    kind: str,
    deliveries: int,
    play: Callable[[int], None],
    forget: Callable[[], None],
    tight: Callable[[int], bool],
) -> Iterator[str]:
    """Cases of some runs each, until so many packets have been delivered."""
    seed = 0
    while deliveries > 0:
        name = f"{kind}{'-tight' if tight(seed) else ''}/{seed}"
        yield name
        forget()
        with recorder.case(name, clock=False) as tape:
            for run in range(RUNS_A_CASE):
                try:
                    play(seed + run)
                except AssertionError as violation:
                    tape.faults += 1
                    tape.put(type(violation).__name__)
        deliveries -= tape.packets
        seed += RUNS_A_CASE


def _below(seed: int) -> Callable[[int], int]:
    choose = random.Random(seed).random
    return lambda n: int(choose() * n)


def machine(recorder: Recorder, deliveries: int) -> Iterator[str]:
    """Each setting of the machine's seeds by itself, for some have little memory."""
    for number, one in enumerate(SETTINGS):
        little = one.memory != setting.MEMORY
        yield from _seeds(
            recorder,
            f"machine/{number}",
            deliveries // len(SETTINGS),
            lambda seed, one=one: Run(_below(seed), one).run(),  # type: ignore[misc]
            setting.forget_engines,
            lambda _, little=little: little,  # type: ignore[misc]
        )


def over_ports(recorder: Recorder, deliveries: int) -> Iterator[str]:
    play = lambda seed: ports.Ports(_below(seed)).run()  # noqa: E731
    yield from _seeds(recorder, "ports", deliveries, play, ports.forget_engines, lambda _: False)


def floods(recorder: Recorder, deliveries: int) -> Iterator[str]:
    play = lambda seed: flood.Flood(_below(seed)).run()  # noqa: E731
    yield from _seeds(recorder, "floods", deliveries, play, lambda: None, lambda _: True)


def record(folders: list[Path], only: list[str], deliveries: int) -> list[str]:
    """The lines of all cases."""
    recorder = Recorder()
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "vectors": lambda: vectors(recorder),
        "captures": lambda: captures(recorder, folders),
        "benchmark": lambda: benchmark(recorder),
        "corpus": lambda: corpus(recorder),
        "machine": lambda: machine(recorder, deliveries),
        "ports": lambda: over_ports(recorder, int(deliveries * OVER_PORTS)),
        "floods": lambda: floods(recorder, int(deliveries * IN_FLOODS)),
    }
    with recorder.installed():
        for name, part in parts.items():
            if only and name not in only:
                continue
            began, cases_before = time.monotonic(), len(recorder.lines)
            for _ in part():
                pass
            packets = sum(int(line.split("\t")[1]) for line in recorder.lines[cases_before:])
            took = time.monotonic() - began
            _say(f"{name}: {len(recorder.lines) - cases_before:,} cases, {packets:,} packets, {took:.0f} s")
    if recorder.faults:
        _say(f"{len(recorder.faults)} cases break a rule: {', '.join(recorder.faults[:20])}")
    return recorder.lines


def differences(before: list[str], now: list[str]) -> list[str]:
    """What is not the same, a line for each case."""
    old, new = ({row[0]: row[1:] for row in (line.split("\t") for line in lines)} for lines in (before, now))
    told = [f"{name}: gone" for name in old if name not in new]
    told += [f"{name}: new" for name in new if name not in old]
    for name in old:
        if name in new and old[name] != new[name]:
            parts = [part for part, a, b in zip(("packets", *PARTS), old[name], new[name], strict=True) if a != b]
            told.append(f"{name}: {', '.join(parts)}")
    return told


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="to write")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier one")
    parser.add_argument(
        "--captures", type=Path, action="append", default=[], metavar="FOLDER", help="with more captures"
    )
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="vectors, captures, ...")
    parser.add_argument("--deliveries", type=int, default=DELIVERIES)
    options = parser.parse_args(arguments)
    if not options.file and not options.compare:
        parser.error("FILE or --compare")
    os.environ["TZ"] = "UTC"  # events have local times
    time.tzset()
    lines = record(options.captures, options.only, options.deliveries)
    if options.file:
        options.file.write_text("".join(f"{line}\n" for line in lines))
    if not options.compare:
        return 0
    before = options.compare.read_text().splitlines()
    if options.only:
        before = [line for line in before if line.partition("/")[0].partition("-")[0] in options.only]
    told = differences(before, lines)
    for one in told:
        _say(one)
    _say(f"{len(told)} of {len(before)} cases differ" if told else f"{len(before):,} cases, all the same")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
