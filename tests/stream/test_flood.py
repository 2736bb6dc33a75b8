"""Invariant 6 under floods: whoever has done nothing gets through, and his mail arrives.

``STREAM_SEED=<seed> pytest tests/stream -k floods_from_seeds`` runs that one alone.
"""

from __future__ import annotations

import os
import random
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.stream import flood
from tests.stream.flood import FLOWS, MEMORY, Flood
from tests.stream.invariant_checker import Violation

DEEP = settings.default.max_examples > 100
RUNS = 2_000 if DEEP else 60
CHOICES = st.randoms(use_true_random=False)


@settings(max_examples=100 if DEEP else 10)
@given(choices=CHOICES)
def test_6_a_flood_from_few_takes_nothing_from_others(choices: random.Random) -> None:
    Flood(choices.randrange, few=True).run()


@settings(max_examples=100 if DEEP else 10)
@given(choices=CHOICES)
def test_6_a_flood_from_many_takes_nothing_from_others(choices: random.Random) -> None:
    Flood(choices.randrange, few=False).run()


def test_honest_mail_arrives_in_many_floods_from_seeds() -> None:
    first = int(os.environ.get("STREAM_SEED", secrets.randbelow(10**12) if DEEP else 0))
    runs = 1 if "STREAM_SEED" in os.environ else RUNS
    wrong = [(seed, violation) for seed, violation in flood.seeds(first, runs) if violation]
    if wrong:
        raise AssertionError(f"{len(wrong)} runs; STREAM_SEED is one of {[seed for seed, _ in wrong[:20]]}") from wrong[
            0
        ][1]


def test_it_sees_who_is_locked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives way where few may have all there is, and it takes nothing to keep it."""

    def engine(*_: object, **__: object) -> Engine:
        limits = Limits(flows=FLOWS, memory=MEMORY, startup=0.0, flows_per_source=FLOWS)
        return Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))], limits=limits, records=False)

    monkeypatch.setattr(flood, "Engine", engine)
    monkeypatch.setattr(flood, "KINDS", (Flood.busy,))
    with pytest.raises(Violation, match="an honest mail does not arrive"):
        Flood(random.Random(1).randrange, few=True).run()
