"""``diagnose`` reads what real servers log as it is written: ordinary hours, and such behind the live gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.postfix import installed
from nfmailguard.lab.topology import Topology
from nfmailguard.probe import traces
from tests.live.test_mail import is_real_root
from tests.support.mailservers import unpacked
from tests.support.recording_logs import BEHIND, KINDS, PEERS, recorded

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0 or not is_real_root():
        pytest.skip("needs the machine's root: the servers change users")
    with Topology(f"dl{os.getpid()}-") as made:
        yield made


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", KINDS)
def test_a_live_log_tells_whether_a_box_is_there_and_on_whose_side(
    topology: Topology, tmp_path: Path, kind: str, behind: str
) -> None:
    if not (installed() if kind == "postfix" else unpacked(kind)):
        pytest.skip(f"no {kind} here; deploy/setup test")
    log = tmp_path / "mail.log"
    log.write_text(recorded(topology, tmp_path, kind, behind))
    found = traces.read(log)
    assert found.of_mail
    assert found.exit_code == (0 if behind == "nothing" else 1)
    assert {trace.side for trace in found.traces} == ({behind} if behind != "nothing" else set())
    assert all(PEERS[0] in trace.peers for trace in found.traces)
