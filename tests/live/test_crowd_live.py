"""A few addresses against all others: tricked flows, idle ones and ones that fill memory; an honest client is served.

Here with limits that are reached in seconds; ``python -m tests.memory.crowd`` has the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.topology import Topology
from tests.support.crowd import staged

pytestmark = pytest.mark.live

FLOWS = 1_024
MEMORY = 2 << 20
LIMITS = ("--set", f"limits.flows={FLOWS}", "--set", "limits.startup=0.001")
MAIL = b"Subject: x\r\n\r\n" + b"All in good order.\r\n" * 50_000


@pytest.fixture
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nc{os.getpid()}-") as made:
        yield made


def test_tricked_flows_lock_nobody_out(topology: Topology, tmp_path: Path) -> None:
    with staged(topology, tmp_path, *LIMITS) as crowd:
        seen = []
        for trick, family in (("md5", 4), ("old", 6), ("option", 6), ("plain", 4)):
            answered = crowd.raw(FLOWS, trick=trick, family=family)
            assert seen or answered > FLOWS // 2, "the server was not reached"
            seen.append(crowd.honest(MAIL, family=family, patience=3.0))
    assert all(one.well for one in seen), seen


def test_idle_connections_of_one_address_lock_nobody_out(topology: Topology, tmp_path: Path) -> None:
    with staged(topology, tmp_path, *LIMITS) as crowd, crowd.held(2 * FLOWS):
        seen = crowd.honest(MAIL, family=6, patience=4.0)
    assert seen.well, seen


@pytest.mark.parametrize("sources", [3, 500])
def test_octets_nobody_takes_leave_room_for_mail(topology: Topology, tmp_path: Path, sources: int) -> None:
    with staged(topology, tmp_path, "--set", f"limits.memory={MEMORY}") as crowd:
        assert crowd.raw(500, sources=sources, trick="plain", octets=4_000, rate=2_000) > 250
        seen = crowd.honest(MAIL, patience=10.0)
    assert seen.well, seen
