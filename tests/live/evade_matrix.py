"""``lab evade`` under every profile that matters, both families, every setting of SYN cookies, and every real server.

``python -m tests.live.evade_matrix`` (``make evade``) takes some forty minutes; ``--profile``, ``--family``,
``--cookies`` and ``--server`` narrow it. Prints one row a run, and each technique that got past, was not tried
or beside which honest mail suffered; exits with 1 when there was one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nfmailguard.lab.readers import SERVERS

PROFILES = ("pix63", "asa", "asa-tls", "fwsm2", "ios-esmtp", "pix70")
OUTCOMES = ("GOT PAST", "reset", "masked", "held", "dropped", "no effect", "not tried")
ROW = "| {:40} |" + " {:>9} |" * (2 + len(OUTCOMES)) + " {:>7} |\n"


class Run(NamedTuple):
    """One run of the command."""

    profile: str
    family: int
    cookies: int
    server: str

    def title(self) -> str:
        beside = "" if self.server == SERVERS[0] else f", {self.server}"
        return f"{self.profile}, IPv{self.family}, cookies {self.cookies}{beside}"

    def command(self) -> list[str]:
        options = ["--profile", self.profile, "--cookies", str(self.cookies), "--server", self.server]
        return ["lab", "evade", "--json", *options, *(["-6"] if self.family == 6 else [])]


def runs(
    profiles: Sequence[str], families: Sequence[int], cookies: Sequence[int], servers: Sequence[str]
) -> Iterator[Run]:
    """The recorder under everything; a real server, which has a kernel like the recorder's, with cookies always."""
    for server in servers:
        for profile, family in itertools.product(profiles, families):
            for one in cookies if server == SERVERS[0] else (cookies[-1],):
                yield Run(profile, family, one, server)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="append")
    parser.add_argument("--family", action="append", type=int, choices=(4, 6))
    parser.add_argument("--cookies", action="append", type=int, choices=(0, 1, 2))
    parser.add_argument("--server", action="append", choices=SERVERS)
    parser.add_argument("--json", type=Path, help="Also every row of every run, into this file.")
    chosen = parser.parse_args(arguments)
    kept: dict[str, Any] = {}
    bad = 0
    sys.stdout.write(ROW.format("enforce", "techniques", *OUTCOMES, "honest", "seconds"))
    for run in runs(
        chosen.profile or PROFILES, chosen.family or (4, 6), chosen.cookies or (0, 1, 2), chosen.server or SERVERS
    ):
        begun = time.monotonic()
        command = [sys.executable, "-m", "nfmailguard", *run.command()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.stdout:
            sys.stdout.write(f"| {run.title()} | {done.stderr.strip().splitlines()[-1]} |\n")
            bad += 1
            continue
        rows = kept[run.title()] = json.loads(done.stdout)
        counts = Counter(row["outcome"] for row in rows)
        control_mail = sum(row["control_mail"] == "ok" for row in rows)
        told = [counts[outcome] for outcome in OUTCOMES]
        sys.stdout.write(ROW.format(run.title(), len(rows), *told, control_mail, f"{time.monotonic() - begun:.0f}"))
        for row in rows:
            if row["outcome"] in ("GOT PAST", "not tried") or row["control_mail"] != "ok":
                bad += 1
                why = row["faults"][0] if row["faults"] else row["control_mail"]
                sys.stdout.write(f"    {row['outcome']}: {row['name']}: {why}\n")
        sys.stdout.flush()
    if chosen.json:
        chosen.json.write_text(json.dumps(kept, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
