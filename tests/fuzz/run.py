"""Fuzzes the targets within a budget of time and keeps count over all runs.

    python -m tests.fuzz.run [--seconds S] [--jobs N] [--ignore RULE] [TARGET ...]
    python -m tests.fuzz.run --merge [TARGET ...]
    python -m tests.fuzz.run --tally

Each target gets its share of the seconds, of one processor; what it finds worth keeping stays
in build/fuzz/corpus for the next run, and what breaks something in build/fuzz/crashes. After a
crash the target goes on; a rule that has been broken three times is ignored from then on, and
counted. ``--merge`` writes the smallest corpus with the same coverage to tests/fuzz/corpus.
Exits with 1 when anything broke. Does not know what a target does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.build import BUILD, ROOT, build_fuzzer, build_harness
from tests.fuzz.targets import TARGETS, Target

TALLY = BUILD / "tally.json"
ENOUGH = 3  # crashes by one rule, before it is ignored
_LOCK = threading.Lock()


@dataclass
class Result:
    """What a target's runs came to."""

    executions: int = 0
    seconds: float = 0.0
    crashes: int = 0
    coverage: int = 0
    features: int = 0
    corpus: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def rate(self) -> int:
        return round(self.executions / self.seconds) if self.seconds else 0

    def __str__(self) -> str:
        return (
            f"{self.executions:,} executions in {self.seconds:.0f} s ({self.rate:,}/s), cov {self.coverage},"
            f" ft {self.features}, corpus {self.corpus}, {self.crashes} crashes"
        )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _numbers(log: str) -> tuple[int, int, int, int]:
    """Executions, coverage, features and corpus as libFuzzer has told them last."""
    told = re.findall(r"^stat::number_of_executed_units:\s*(\d+)", log, re.MULTILINE)
    steps = re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    state = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", log)
    executions = int(told[-1]) if told else int(steps[-1]) if steps else 0
    coverage, features, corpus = (int(number) for number in state[-1]) if state else (0, 0, 0)
    return executions, coverage, features, corpus


def _message(log: str) -> str:
    """What broke, in a line."""
    for pattern in (r"^VIOLATION: (.*)$", r"^.*(runtime error: .*)$", r"^SUMMARY: (.*)$", r"^==\d+== ?ERROR: (.*)$"):
        found = re.search(pattern, log, re.MULTILINE)
        if found:
            return found[1]
    return "ended without a word: " + log[-200:]


def _rule(message: str) -> str:
    """The part of a violation that ``--ignore`` takes; empty for what cannot be ignored."""
    return message.partition(":")[0] if re.match(r"\d ", message) else ""


def _once(target: Target, seconds: int, ignore: list[str], log: Path) -> int:
    """Runs libFuzzer for a time; its exit code."""
    corpus, crashes = BUILD / "corpus" / target.name, BUILD / "crashes" / target.name
    for folder in (corpus, crashes, target.corpus, target.crashes):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(BUILD / target.name),
        f"-max_total_time={seconds}",
        f"-max_len={target.most}",
        f"-dict={ROOT / 'tests' / 'fuzz' / target.dictionary}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
        "-timeout=10",
        "-rss_limit_mb=3000",
        "-reload=0",
        str(corpus),
        str(target.corpus),
        str(target.crashes),
    ]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "FUZZ_IGNORE": ";".join(ignore)}
        )
        try:
            return process.wait()
        except KeyboardInterrupt:  # it had the signal too, and says how far it came
            return process.wait()


def fuzz(target: Target, seconds: float, ignore: list[str]) -> Result:
    """Fuzzes a target until its time is over, whatever breaks."""
    result = Result()
    ignore = list(ignore)
    end = time.monotonic() + seconds
    log = BUILD / f"{target.name}.log"
    while True:
        left = round(end - time.monotonic())
        if left < 1:
            break
        begun = time.monotonic()
        code = _once(target, left, ignore, log)
        text = log.read_text(errors="replace")
        executions, *state = _numbers(text)
        result.executions += executions
        result.seconds += time.monotonic() - begun
        result.coverage, result.features, result.corpus = state if any(state) else (
            result.coverage, result.features, result.corpus,
        )  # fmt: skip
        if code == 0:
            break
        message = _message(text)
        if executions == 0:
            raise RuntimeError(f"{target.name} does not start: {message}\n{text[-2000:]}")
        result.crashes += 1
        result.messages.append(message)
        units = re.findall(r"Test unit written to (\S+)", text)
        say(f"{target.name}: {message}\n    {units[-1] if units else log}")
        rule = _rule(message)
        if rule and sum(_rule(other) == rule for other in result.messages) >= ENOUGH and rule not in ignore:
            ignore.append(rule)
            say(f"{target.name}: {rule!r} is ignored from here on")
    return result


def load_tally() -> dict[str, Any]:
    tally: dict[str, Any] = json.loads(TALLY.read_text()) if TALLY.exists() else {}
    return tally


def record(target: Target, result: Result) -> None:
    """Adds a run to the tally."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout.strip()
    with _LOCK:
        tally = load_tally()
        entry = tally.setdefault(target.name, {"executions": 0, "seconds": 0.0, "crashes": 0, "runs": []})
        for key in ("executions", "seconds", "crashes"):
            entry[key] += getattr(result, key)
        entry["runs"].append({"date": time.strftime("%Y-%m-%d"), "revision": revision, **asdict(result)})
        TALLY.write_text(json.dumps(tally, indent=1) + "\n")


def sum_up(title: str, counts: dict[str, int], crashes: int) -> str:
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{title}: {each}: {sum(counts.values()):,} executions, {crashes} crashes"


def show_tally() -> None:
    tally = load_tally()
    counts = {name: entry["executions"] for name, entry in tally.items()}
    say(sum_up("fuzz, all runs", counts, sum(entry["crashes"] for entry in tally.values())))


def merge(target: Target) -> None:
    """Replaces the committed corpus by the fewest inputs that reach as much, of it and of what was found."""
    found = BUILD / "corpus" / target.name
    with tempfile.TemporaryDirectory() as folder:
        command = [str(BUILD / target.name), "-set_cover_merge=1", "-use_counters=0", f"-max_len={target.most}", folder]
        log = BUILD / f"{target.name}-merge.log"
        with log.open("w") as out:
            subprocess.run([*command, str(target.corpus), str(found)], check=True, stdout=out, stderr=out)
        inputs = sorted(Path(folder).iterdir())
        if not inputs:
            raise RuntimeError(f"{target.name}: nothing came of the merge; see {log}")
        shutil.rmtree(target.corpus, ignore_errors=True)
        target.corpus.mkdir(parents=True)
        for path in inputs:
            shutil.copyfile(path, target.corpus / path.name[:16])
    octets = sum(path.stat().st_size for path in target.corpus.iterdir())
    say(f"{target.name}: {len(inputs)} inputs, {octets:,} octets")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/fuzz/run", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS") or 120), help="in all")
    parser.add_argument("--jobs", type=int, default=1, help="targets at once")
    parser.add_argument("--ignore", action="append", default=[], metavar="RULE", help="the beginning of a known one")
    parser.add_argument("--merge", action="store_true", help="write the smallest corpus")
    parser.add_argument("--tally", action="store_true", help="say what all runs came to")
    arguments = parser.parse_args()
    if arguments.tally:
        show_tally()
        return 0
    targets = [TARGETS[name] for name in arguments.targets or TARGETS]
    say("fuzz: building the core under sanitizers" if any(target.sanitized for target in targets) else "fuzz: building")
    build_fuzzer(targets)
    build_harness()
    seeds.write(BUILD / "corpus", [target.name for target in targets])
    if arguments.merge:
        for target in targets:
            merge(target)
        return 0
    shares = sum(target.share for target in targets)
    results: dict[str, Result] = {}

    def work(target: Target) -> None:
        seconds = arguments.seconds * target.share / shares
        say(f"{target.name}: {seconds:.0f} s; what it says is in {BUILD.relative_to(ROOT) / target.name}.log")
        results[target.name] = fuzz(target, seconds, arguments.ignore)
        record(target, results[target.name])
        say(f"{target.name}: {results[target.name]}")

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(work, targets))
    show_tally()
    counts = {target.name: results[target.name].executions for target in targets}
    crashes = sum(result.crashes for result in results.values())
    say(sum_up("fuzz", counts, crashes))
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
