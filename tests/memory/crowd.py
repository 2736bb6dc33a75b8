"""The crowds of ``tests/support/crowd.py`` at the defaults: does an honest client get through?

``python -m tests.memory.crowd`` runs each in namespaces of its own, as root, some ten minutes: 140,000 tricked flows
from three addresses (a signed ACK, an old timestamp, an IPv6 option a host must refuse), 20,000 real idle
connections from one, 31,000 small flows with 4,000 octets each that the server never takes. Prints a table and
exits with 1 when an honest client was not greeted within a second, or its mail did not arrive. ``--only NAME``,
``--scale 0.1``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from nfmailguard.lab.topology import Topology
from tests.support.crowd import Crowd, Honest, staged

#: 70 seconds after the start the gateway knows no flows that are older than itself (limits.startup).
AGE = 70
MAIL = b"Subject: x\r\n\r\n" + b"All in good order.\r\n" * 250
LARGE = b"Subject: x\r\n\r\n" + b"All in good order.\r\n" * (10 * 1024 * 1024 // 20)


class Case(NamedTuple):
    """One crowd. ``raw``: as for ``Crowd.raw``; ``held``: real connections."""

    name: str
    what: str
    raw: dict[str, Any]
    held: int = 0
    mail: bytes = MAIL
    age: int = AGE
    #: An old timestamp is refused where the SYN's is remembered: not in a cookie.
    backlog: int = 4096


CASES = (
    Case("md5", "140,000 flows from 3 addresses, their ACKs signed", {"flows": 140_000, "trick": "md5"}),
    Case(
        "old",
        "140,000 flows from 3 addresses, their ACKs' timestamps old",
        {"flows": 140_000, "trick": "old"},
        backlog=1 << 18,
    ),
    Case(
        "option",
        "140,000 flows from 3 addresses, their ACKs with an IPv6 option to be refused",
        {"flows": 140_000, "trick": "option", "family": 6},
    ),
    Case("idle", "20,000 real idle connections from one address", {}, 20_000),
    Case(
        "small",
        "31,000 flows from 3 addresses with 4,000 octets each that are never taken",
        {"flows": 31_000, "trick": "plain", "octets": 4_000, "rate": 3_000},
        mail=LARGE,
        age=0,
    ),
    Case(
        "small-many",
        "31,000 flows from 10,000 addresses with 4,000 octets each that are never taken",
        {"flows": 31_000, "sources": 10_000, "trick": "plain", "octets": 4_000, "rate": 3_000},
        mail=LARGE,
        age=0,
    ),
)


def play(case: Case, crowd: Crowd, scale: float, started: float) -> tuple[int, float, Honest]:
    """The crowd comes, the honest client after it; how many were answered, in what time, and what the client saw."""
    begun = time.monotonic()
    with ExitStack() as stack:
        if case.held:
            made = stack.enter_context(crowd.held(int(case.held * scale)))
        else:
            made = crowd.raw(**{**case.raw, "flows": int(case.raw["flows"] * scale)})
        took = time.monotonic() - begun
        time.sleep(max(0.0, case.age - (time.monotonic() - started)))
        return made, took, crowd.honest(case.mail, patience=60.0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--scale", type=float, default=1.0)
    chosen = parser.parse_args(arguments)
    if os.geteuid() != 0:
        sys.stderr.write("crowd: needs root\n")
        return 2
    well = True
    row = "{:72} {:>9} {:>8} {:>9} {:>8}  {}\n"
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.stdout.write(row.format("crowd", "answered", "seconds", "greeted", "mail", "flows now, refused, evicted"))
    for case in CASES:
        if chosen.only and case.name not in chosen.only:
            continue
        with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, Topology(f"nc{os.getpid()}-") as topology:
            directory = Path(scratch)
            with staged(topology, directory, backlog=case.backlog) as crowd:
                made, took, seen = play(case, crowd, chosen.scale, time.monotonic())
            counters = crowd.counters()
        well &= seen.well
        greeted = f"{seen.greeted:.3f} s" if seen.greeted < 1e6 else "never"
        kept = ", ".join(f"{counters.get(name, -1):,}" for name in ("flows_now", "flows_refused", "flows_evicted"))
        mail = f"{seen.taken:.1f} s" if seen.arrived else "lost"
        sys.stdout.write(row.format(case.what, f"{made:,}", f"{took:.1f}", greeted, mail, kept))
        if not seen.well:
            sys.stdout.write(f"  NOT WELL: {seen.error or 'greeted too late'}\n")
        sys.stdout.flush()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
