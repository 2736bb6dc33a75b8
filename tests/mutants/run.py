"""The mutation check: takes each rule out of the core, one at a time, and wants a test of that rule to fail.

It works on copies under build/mutants, one for each job, so that the ordinary build stays as it is. A copy
is compiled without optimisation, and for each mutation only what has changed. A rule's own tests
run first; only a mutation they do not notice meets the other suites. Results are kept by the
hash of the tree and the mutation: an interrupted run goes on where it was.

    python -m tests.mutants.run [--only RULE]... [--fresh] [--write] [--jobs N]

Exits 1 when a mutation survives, or is noticed by other tests than its rule's only.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.table import ROOT, Mutant, Source, functions_of, mutants, sources, tests_of

WORK = ROOT / "build" / "mutants"
TREE, BASE, RESULTS = WORK / "tree", WORK / "base", WORK / "results.json"
PARTS = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "docs", "cext", "deploy", "src", "tests")
BUILT = (".so", ".c")
STAMP = "built"  # of a harness: what it was built from, there
#: What a rule's own tests depend on, and what all tests do.
OWN = (
    *(
        "pyproject.toml",
        "setup.py",
        "cext",
        "src/nfmailguard/engine.py",
        "src/nfmailguard/ruleset.py",
        "src/nfmailguard/policy",
    ),
    *(
        "src/nfmailguard/statements.py",
        "src/nfmailguard/smtp",
        "tests/rules",
        "tests/handover",
        "tests/support",
        "tests/stream/receiver.py",
    ),
)
ALL = ("pyproject.toml", "setup.py", "cext", "src", "tests")
OTHERS = ("tests/rules", "tests/unit tests/vectors tests/flows", "tests/stream")
TIMEOUT = 600  # seconds of one suite: a mutated core may go on for ever
PAGE = ROOT / "docs" / "testing.md"
#: setup.py, for some of its modules.
BUILD_SOME = """
import setup
chosen = [one for one in setup.extensions(setup.ROOT) if one.name in {modules}]
setup.setup(ext_modules=chosen)
"""
HEADING = "## Mutations"


@dataclass
class Result:
    """What became of one mutation; ``caught`` is "" when nothing failed."""

    caught: str
    own: bool
    seconds: float


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _files(directory: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(directory):
        names[:] = [name for name in names if name not in ("__pycache__", "build") and not name.endswith(".egg-info")]
        yield from (Path(folder) / name for name in files)


def tree_digest(parts: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        paths = [ROOT / part] if (ROOT / part).is_file() else sorted(_files(ROOT / part))
        for path in paths:
            if path.suffix not in BUILT and path.suffix != ".pyc" and "mutants" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _same(path: Path, other: Path) -> bool:
    if not other.exists():
        return False
    here, there = path.stat(), other.stat()
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def put(place: Path, content: bytes) -> None:
    """Writes a file of the tree so that the next build takes it for changed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def dependents(within: list[Source], changed: Path, function: str) -> set[str] | None:
    """The modules to build when ``function`` in this file has changed; None: all.

    A function in a .pxd is compiled into whatever calls it, also by way of others like it.
    """
    if changed.suffix == ".py":
        return set()
    if changed.suffix == ".pyx":
        return {source.module for source in within if source.path == changed}
    if changed.suffix != ".pxd" or not function:
        return None
    bodies = [
        (name, source.text[begin:end])
        for source in within
        if source.path.suffix == ".pxd"
        for name, begin, end in functions_of(source.text, header=False)
    ]
    names, fresh = {function}, {function}
    while fresh:
        called = re.compile(rf"\b(?:{'|'.join(fresh)})\(")
        fresh = {name for name, body in bodies if called.search(body)} - names
        names |= fresh
    called = re.compile(rf"\b(?:{'|'.join(names)})\b")
    return {source.module for source in within if source.path.suffix == ".pyx" and called.search(source.text)}


class Copy:
    """One copy of the tree, which one mutation at a time is tried in; ``base``: what was built of it without any."""

    def __init__(self, tree: Path, base: Path) -> None:
        self.tree, self.base = tree, base
        self._passing: set[str] = set()

    def run(self, *command: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Python, with what it is to run, in the tree and its build. Raises subprocess.TimeoutExpired."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.tree,
            env=os.environ | {"PYTHONPATH": str(self.tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def build(self, modules: Collection[str] | None = None) -> None:
        """Builds what has changed in the tree, of these modules or of all; RuntimeError with the compiler's words.

        Cython takes ten seconds to find out of ninety modules that nothing has changed in them.
        """
        script = ("setup.py",) if modules is None else ("-c", BUILD_SOME.format(modules=sorted(modules)))
        done = self.run("-W", "ignore", *script, "-q", "build_ext", "--inplace")
        if done.returncode:
            raise RuntimeError(f"does not compile:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    def fill(self) -> None:
        """The tree as it is here, built; what has not changed is not built again."""
        wanted = set()
        for part in PARTS:
            for path in [ROOT / part] if (ROOT / part).is_file() else _files(ROOT / part):
                place = self.tree / path.relative_to(ROOT)
                if path.suffix in BUILT or path.suffix == ".pyc" or path.name == STAMP:
                    continue
                wanted.add(place)
                content = path.read_bytes()
                if path.name == "setup.py":
                    content = content.replace(b'"-O3"', b'"-O0"')
                if not place.exists() or place.read_bytes() != content:
                    put(place, content)
        for path in list(_files(self.tree)):
            if path not in wanted and path.suffix not in BUILT and path.name != STAMP:
                path.unlink()
        self.build()
        shutil.rmtree(self.base, ignore_errors=True)
        for part in ("cext", "build", "src/nfmailguard/cext"):
            shutil.copytree(self.tree / part, self.base / part, symlinks=True)

    def restore(self) -> None:
        """Takes the mutation out again, with what was built of it."""
        for path in self.base.rglob("*"):
            place = self.tree / path.relative_to(self.base)
            if path.is_file() and not _same(path, place):
                shutil.copy2(path, place)

    def failing_test(self, tests: list[str], timeout: float = TIMEOUT) -> str:
        """The first test that fails; "" when none does."""
        options = ["-m", "not live and not sources", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=no"]
        try:
            done = self.run("-m", "pytest", *options, *tests, timeout=timeout)
        except subprocess.TimeoutExpired:
            return "(no test ends)"
        if done.returncode == 0:
            return ""
        for line in done.stdout.splitlines():
            if line.startswith(("FAILED ", "ERROR ")):
                return line.split()[1].partition("[")[0]
        if done.returncode < 0:
            return f"(signal {-done.returncode})"
        raise RuntimeError(f"pytest said {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def must_pass(self, suites: str) -> None:
        """What fails without a mutation, notices none."""
        if suites in self._passing:
            return
        failing = self.failing_test(suites.split(), 6 * TIMEOUT)  # it ends, however busy the machine
        if failing:
            raise RuntimeError(f"{failing} fails without any mutation")
        self._passing.add(suites)

    def check(self, mutant: Mutant) -> Result:
        """Applies one mutation, builds and tests."""
        begun = time.monotonic()
        within = sources(self.tree)
        place, text = mutant.changed(within)
        before = place.read_bytes()
        try:
            put(place, text.encode())
            self.build(dependents(within, place, mutant.function))
            caught = self.failing_test(tests_of(mutant.rule, self.tree))
            own = bool(caught)
            for suites in OTHERS:
                caught = caught or self.failing_test(suites.split())
        finally:
            place.write_bytes(before)
            self.restore()
        if not own and caught:
            self.must_pass(suite_of(caught))
        return Result(caught, own, time.monotonic() - begun)


def copies(count: int, *, fresh: bool) -> queue.SimpleQueue[Copy]:
    """So many, built; the further ones are taken from the first."""
    if fresh:
        shutil.rmtree(WORK, ignore_errors=True)
    TREE.mkdir(parents=True, exist_ok=True)
    first = Copy(TREE, BASE)
    first.fill()
    made: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    made.put(first)
    for number in range(2, count + 1):
        tree = WORK / f"tree{number}"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(TREE, tree, symlinks=True)
        made.put(Copy(tree, BASE))
    return made


def suite_of(test: str) -> str:
    """Those of OTHERS that a test is one of."""
    return next((suites for suites in OTHERS if any(test.startswith(suite) for suite in suites.split())), OTHERS[0])


def table(results: list[tuple[Mutant, Result]]) -> str:
    """The section of docs/testing.md."""
    caught = sum(result.own for _, result in results)
    rules = {mutant.rule for mutant, _ in results}
    lines = [
        HEADING,
        "",
        "`make mutants` takes each rule of [streams.md](streams.md) out of the core, one change at a time",
        "(`tests/mutants/mutants.toml`), builds it, and wants a test named after the rule to fail. It writes",
        f"this section. {caught} of {len(results)} changes to {len(rules)} rules were noticed by the rule's own tests.",
        "",
        "| rule | taken out | where | noticed by |",
        "|---|---|---|---|",
    ]
    for mutant, result in results:
        seen = f"`{result.caught.rpartition('::')[2]}`" if result.caught else "**nothing**"
        if result.caught and not result.own:
            seen = f"{seen}, which is another rule's"
        lines.append(f"| `{mutant.rule}` | {mutant.what} | `{mutant.where}` | {seen} |")
    return "\n".join(lines) + "\n"


def write(section: str) -> None:
    """Puts the section in its place in docs/testing.md, or at its end."""
    text = PAGE.read_text() if PAGE.exists() else "# Testing\n"
    before, found, behind = text.partition(f"{HEADING}\n")
    if not found:
        PAGE.write_text(f"{text.rstrip()}\n\n{section}")
        return
    _, following, rest = behind.partition("\n## ")
    PAGE.write_text(f"{before}{section}" + (f"\n## {rest}" if following else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description="Takes each rule out of the core and wants a test to fail.")
    parser.add_argument("--only", action="append", default=[], metavar="RULE", help="this rule or mutation only")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results and builds")
    parser.add_argument("--write", action="store_true", help="write the table into docs/testing.md")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="so many at a time, by default a CPU each"
    )
    arguments = parser.parse_args()
    chosen = mutants(arguments.only)
    here = sources(ROOT)
    for mutant in chosen:
        mutant.changed(here)
    free = copies(arguments.jobs, fresh=arguments.fresh)
    first = free.get()
    first.must_pass(OTHERS[0])
    free.put(first)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    own, wide = tree_digest(OWN), tree_digest(ALL)
    kept = threading.Lock()
    told = itertools.count(1)

    def result_of(mutant: Mutant) -> Result | None:
        keys = [f"{mutant.rule} {mutant.digest} {digest}" for digest in (own, wide)]
        if key := next((key for key in keys if key in known), ""):
            result = Result(**known[key])
        else:
            copy = free.get()
            try:
                result = copy.check(mutant)
            except RuntimeError as error:
                _say(f"[{next(told)}/{len(chosen)}] {mutant.name}: {error}")
                return None
            finally:
                free.put(copy)
            with kept:
                known[keys[0 if result.own else 1]] = asdict(result)
                RESULTS.write_text(json.dumps(known))
        state = "own" if result.own else "OTHER" if result.caught else "SURVIVES"
        _say(f"[{next(told)}/{len(chosen)}] {mutant.name}: {state} {result.caught} ({result.seconds:.0f} s)")
        return result

    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(zip(chosen, pool.map(result_of, chosen), strict=True))
    results = [(mutant, result) for mutant, result in found if result]
    broken = [mutant.name for mutant, result in found if not result]
    _say("\n" + table(results))
    if broken:
        _say(f"No mutations at all: {', '.join(broken)}")
    elif arguments.write:
        write(table(results))
    return 0 if not broken and all(result.own for _, result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
