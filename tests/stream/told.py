"""Says at the end how much the stream machine has delivered, and how often something differed, in all workers."""

from __future__ import annotations

import sys
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest

MODULES = ("setting", "ports", "flood")
TOTALS_OF_WORKER = "stream totals"


def _totals() -> dict[str, dict[str, int]]:
    """Of the modules that tests have used."""
    used = [module for name in MODULES if (module := sys.modules.get(f"tests.stream.{name}"))]
    return {
        f"{module.__name__} {name}": asdict(value)
        for module in used
        for name, value in vars(module).items()
        if name.endswith("TOTALS") and is_dataclass(value) and not isinstance(value, type)
    }


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[TOTALS_OF_WORKER] = _totals()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from tests.stream import flood, ports, setting

    known = {
        f"{module.__name__} {name}": value for module in (setting, ports, flood) for name, value in vars(module).items()
    }
    for name, counts in getattr(node, "workeroutput", {}).get(TOTALS_OF_WORKER, {}).items():
        for key, count in counts.items():
            setattr(known[name], key, getattr(known[name], key) + count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _totals():
        return
    from tests.stream.flood import FLOOD_TOTALS
    from tests.stream.ports import PORT_TOTALS
    from tests.stream.setting import TOTALS

    if PORT_TOTALS.runs:
        terminalreporter.write_line(
            f"connections over the same ports: {PORT_TOTALS.deliveries:,} deliveries"
            f" ({PORT_TOTALS.runs:,} runs, {PORT_TOTALS.connections:,} connections)"
        )
    if FLOOD_TOTALS.runs:
        terminalreporter.write_line(
            f"floods: {FLOOD_TOTALS.deliveries:,} deliveries of {FLOOD_TOTALS.flows:,} connections"
            f" ({FLOOD_TOTALS.runs:,} runs, {FLOOD_TOTALS.mails:,} honest mails arrived,"
            f" {FLOOD_TOTALS.again:,} not at the first try)"
        )
    if not TOTALS.runs:
        return
    terminalreporter.write_line(
        f"stream machine: {TOTALS.deliveries:,} adversarial deliveries, "
        f"{TOTALS.delivered_differs} differences between delivered and decided, "
        f"{TOTALS.reference_differs} differences from the reference model "
        f"({TOTALS.runs:,} connections, {TOTALS.ended:,} of them ended by us; {TOTALS.messages:,} messages received)"
    )
