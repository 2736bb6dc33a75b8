"""Says at the end how much the stream machine has delivered, and how often something differed."""

from __future__ import annotations

import pytest

from tests.stream.flood import FLOOD_TOTALS
from tests.stream.ports import PORT_TOTALS
from tests.stream.setting import TOTALS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
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
