"""`lab evade` through a running gateway: nothing gets past `enforce`, and the judge is not blind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from nfmailguard.lab import evade
from nfmailguard.lab.evasions import TECHNIQUES

pytestmark = pytest.mark.live

#: Of every kind some that get past a gateway that only watches; the last two need gateways of their own.
SOME = (
    *("overlap-front", "conflict-lost", "text-filler-last", "md5-option", "urgent-in-text", "syn-data-cookie"),
    *("rst-lost", "fragments-tiny", "forged-ack", "imagined-dialogue", "bare-lf", "prefix-data-cut"),
    *("smuggling-lf-dot-lf", "banner-repeated", "midstream", "keyword-cut"),
)
SIX = (*(one.name for one in TECHNIQUES if one.families == (6,)), "conflict-lost", "imagined-dialogue", "verb-plain")
_runs: dict[tuple[str, ...], Run] = {}


class Run(NamedTuple):
    code: int
    rows: dict[str, dict[str, Any]]


def ran(*options: str) -> Run:
    """One run of the command, once for all tests; skips where the kernel makes no namespaces."""
    if options not in _runs:
        command = [sys.executable, "-m", "nfmailguard", "lab", "evade", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if "cannot make namespaces" in done.stderr:
            pytest.skip(done.stderr.strip())
        assert done.stdout, done.stderr
        _runs[options] = Run(done.returncode, {row["name"]: row for row in json.loads(done.stdout)})
    return _runs[options]


def only(names: tuple[str, ...]) -> list[str]:
    return [option for name in names for option in ("--only", name)]


def held(row: dict[str, Any]) -> None:
    if row["outcome"] == "not tried" and row["kind"] == "multipath":
        pytest.skip(row["faults"][0])
    assert row["faults"] == []
    assert row["outcome"] not in ("GOT PAST", "not tried")
    assert row["honest"] == "ok"


@pytest.mark.parametrize("name", [one.name for one in evade.chosen(evade.Choice())])
def test_nothing_gets_past(name: str) -> None:
    held(ran().rows[name])


def test_every_technique_was_tried() -> None:
    run = ran()
    assert len(run.rows) == len(evade.chosen(evade.Choice())) >= 45
    assert run.code in (0, 3)
    assert (run.code == 3) == any(row["outcome"] == "not tried" for row in run.rows.values())


@pytest.mark.parametrize("name", SIX)
def test_nothing_gets_past_over_ipv6(name: str) -> None:
    held(ran("-6", *only(SIX)).rows[name])


@pytest.mark.parametrize("name", SOME)
def test_what_a_watching_gateway_lets_through_is_seen(name: str) -> None:
    run = ran("--mode", "monitor", *only(SOME))
    row = run.rows[name]
    assert row["outcome"] == "GOT PAST"
    assert row["faults"]
    assert row["honest"] == "ok"
    assert run.code == 1
