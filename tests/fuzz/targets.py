"""The targets, one row each, and the process that runs one of them.

    python -m tests.fuzz.targets NAME [libFuzzer's arguments]

Promises: a target is made ready the same way for fuzzing and for a replay. Does not know
budgets, and builds nothing.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

__all__ = ["TARGETS", "Target"]

HERE = Path(__file__).parent

#: How one input is replayed (None, or what it broke), and how libFuzzer is handed the target: with
#: its command line and the beginnings of rules whose violation is known and no news.
Ready = tuple[Callable[[bytes], str | None], Callable[[list[str], list[str]], None]]


@dataclass(frozen=True)
class Target:
    """What is fuzzed. ``share``: of the budget, in per cent. ``most``: octets of an input.

    ``ready`` is told whether it will be fuzzed. ``sanitized``: under the sanitizers, with a core
    built for that; else with the ordinary build.
    """

    name: str
    share: int
    most: int
    dictionary: str
    sanitized: bool
    ready: Callable[[bool], Ready]

    @property
    def corpus(self) -> Path:
        """Inputs that together reach what is known to be reached."""
        return HERE / "corpus" / self.name

    @property
    def crashes(self) -> Path:
        """Inputs that once broke something."""
        return HERE / "crashes" / self.name


def _compiled(address: int, *, hold_gil: bool = False) -> Ready:
    from tests.fuzz.harness import fuzzer

    return (
        lambda data: fuzzer.replay(address, data),
        lambda arguments, ignore: fuzzer.fuzz(address, arguments, ignore, hold_gil),
    )


def _open_gate() -> None:
    from tests.fuzz.harness import gate, talks
    from tests.fuzz.settings import PROFILES, SETTINGS, denied_verbs

    gate.clear_settings()
    for setting in SETTINGS:
        gate.add_setting(setting.engine(), setting.denies, setting.changes, setting.holds, setting.inspects_all)
    for number, profile in enumerate(PROFILES):
        talks.deny(number, denied_verbs(profile))


def _packets(_fuzzing: bool) -> Ready:
    from tests.fuzz.harness import packets

    _open_gate()
    return _compiled(packets.TARGET)


def _streams(_fuzzing: bool) -> Ready:
    from tests.fuzz.harness import streams

    _open_gate()
    return _compiled(streams.TARGET)


def _ports(_fuzzing: bool) -> Ready:
    from tests.fuzz.harness import gate, ports
    from tests.fuzz.settings import PASSES

    _open_gate()
    gate.add_setting(PASSES.engine(), PASSES.denies, PASSES.changes, PASSES.holds, PASSES.inspects_all)
    return _compiled(ports.TARGET)


def _captures(_fuzzing: bool) -> Ready:
    from tests.fuzz.harness import captures
    from tests.fuzz.settings import SETTINGS

    captures.clear_settings()
    for setting in SETTINGS[:4]:
        captures.add_setting(setting.engine(), setting.changes)
    captures.add_setting(None, False)
    return _compiled(captures.TARGET, hold_gil=True)


def _python(module: str, covered: Sequence[str], fuzzing: bool) -> Ready:
    """A parser in Python: ``parse(data)`` of ``module``; whatever it raises is a crash.

    ``covered``: modules and packages whose branches are coverage.
    """
    if fuzzing:
        import atheris

        with atheris.instrument_imports(include=list(covered), enable_loader_override=False):
            parse = importlib.import_module(module).parse
    else:
        parse = importlib.import_module(module).parse

    def replay(data: bytes) -> str | None:
        try:
            parse(data)
        except Exception as error:  # noqa: BLE001  whatever it is, it is what was looked for
            return f"{type(error).__name__}: {error}"
        return None

    def once(ignore: list[str], data: bytes) -> None:
        try:
            parse(data)
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if not any(words.startswith(rule) for rule in ignore):
                sys.stderr.write(f"VIOLATION: {words}\n")
                raise

    def fuzz(arguments: list[str], ignore: list[str]) -> None:
        import atheris

        atheris.Setup(arguments, partial(once, ignore))
        atheris.Fuzz()

    return replay, fuzz


_CONFIG = ("nfmailguard.config", "nfmailguard.policy.load", "nfmailguard.engine", "tomllib", "ipaddress")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("packets", 26, 640, "smtp.dict", True, _packets),
        Target("streams", 44, 112, "smtp.dict", True, _streams),
        Target("ports", 12, 96, "ports.dict", True, _ports),
        Target("captures", 10, 1536, "capture.dict", True, _captures),
        Target("config", 6, 1024, "config.dict", False, partial(_python, "tests.fuzz.configuration", _CONFIG)),
        Target("cisco", 4, 1024, "cisco.dict", False, partial(_python, "tests.fuzz.cisco", ["nfmailguard.policy"])),
        Target("logs", 2, 2048, "logs.dict", False, partial(_python, "tests.fuzz.logs", ["nfmailguard.probe"])),
    )
}


def main(arguments: list[str]) -> None:
    name, *rest = arguments
    # Ctrl-C is libFuzzer's: it says how far it came. What it starts itself is no subject.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.pop("LD_PRELOAD", None)
    _, fuzz = TARGETS[name].ready(True)
    ignore = [rule for rule in os.environ.get("FUZZ_IGNORE", "").split(";") if rule]
    fuzz([os.environ.get("FUZZ_PROGRAM", sys.argv[0]), *rest], ignore)


if __name__ == "__main__":
    main(sys.argv[1:])
