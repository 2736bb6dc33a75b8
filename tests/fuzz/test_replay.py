"""What fuzzing has found stays found: corpus and crashes, through the ordinary build.

And the harness sees what it is there to see: told that a setting does what it does not, it
objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.build import build_harness
from tests.fuzz.settings import NOTHING_DENIED, PROFILES, SETTINGS, Setting, denied_verbs
from tests.fuzz.shrink import shrink
from tests.fuzz.targets import TARGETS, Target

Replay = Callable[[bytes], str | None]

HELO, NOOP, EXPN, SPLIT_EHLO = 0, 6, 13, (35, 36)
PIX63 = PROFILES.index("pix63")


@pytest.fixture(scope="module", autouse=True)
def harness() -> None:
    build_harness()


def inputs(target: Target) -> Iterator[Path]:
    yield from sorted([*target.corpus.iterdir(), *target.crashes.glob("*")])


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_known_breaks_a_rule(name: str) -> None:
    target = TARGETS[name]
    replay, _ = target.ready(False)
    faults = {str(path.relative_to(target.corpus.parents[1])): replay(path.read_bytes()) for path in inputs(target)}
    assert len(faults) >= 20
    assert {path: fault for path, fault in faults.items() if fault} == {}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_small(name: str) -> None:
    sizes = [path.stat().st_size for path in TARGETS[name].corpus.iterdir()]
    assert 20 <= len(sizes) <= 400
    assert sum(sizes) < 250_000
    assert max(sizes) <= TARGETS[name].most


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_break_nothing(name: str) -> None:
    replay, _ = TARGETS[name].ready(False)
    assert [fault for data in getattr(seeds, name)() if (fault := replay(data))] == []


def gate(setting: Setting, *, denies: int = 0, changes: bool, holds: bool = True) -> Replay:
    """The streams target with one setting, of which the harness is told what is said here."""
    from tests.fuzz.harness import fuzzer, streams, talks
    from tests.fuzz.harness import gate as harness

    harness.clear_settings()
    harness.add_setting(setting.engine(), denies, changes, holds, setting.inspects_all)
    talks.deny(PIX63, denied_verbs("pix63"))
    talks.deny(PROFILES.index(NOTHING_DENIED), [])
    return lambda data: fuzzer.replay(streams.TARGET, data)


def said(*tokens: int) -> bytes:
    """A server that does not greet, and a client that says so much to it."""
    silent = 64
    return bytes([0, silent, 0]) + b"".join(bytes([seeds.CLIENT_SAYS, token]) for token in tokens)


def greeted(*tokens: int) -> bytes:
    return bytes([0, 0, 0]) + said(*tokens)[3:]


def test_a_denied_verb_that_gets_through_is_seen() -> None:
    blind = gate(Setting("pix63", dry_run=True, inspects_all=False), denies=PIX63, changes=True)
    assert blind(said(EXPN)) == "2 the server read a denied verb: EXPN (11, 0)"
    assert blind(said(*SPLIT_EHLO)) == "2 the server read a denied verb: EHLO (8, 0)"
    assert gate(SETTINGS[0], denies=PIX63, changes=True)(said(EXPN, *SPLIT_EHLO)) is None


def test_a_banner_that_is_not_hidden_is_seen() -> None:
    blind = gate(Setting("pix63", dry_run=True, inspects_all=False), denies=PIX63, changes=True)
    assert blind(greeted(HELO)) == "2 the client read what is hidden: TP ready (26, 0)"
    assert gate(SETTINGS[0], denies=PIX63, changes=True)(greeted(HELO)) is None


def test_a_change_in_monitor_is_seen() -> None:
    broken = gate(SETTINGS[0], changes=False)(greeted(EXPN))
    assert broken is not None
    assert broken.startswith("5 monitor: a packet did not pass as it came")


def test_a_packet_held_where_none_may_be_is_seen() -> None:
    data = bytes([0, 0, 0, seeds.SPLITS, EXPN, 3])
    broken = gate(SETTINGS[0], changes=True, holds=False)(data)
    assert broken is not None
    assert broken.startswith("1 a packet: held where nothing may be held")
    assert gate(SETTINGS[0], changes=True)(data) is None


def test_two_copies_of_an_octet_are_seen() -> None:
    client_places = 4
    # The second one lies where the first one did, and both lie beyond a gap that then closes.
    data = bytes([0, 0, 0, client_places, 0, 8, client_places, 6, 8, seeds.CLIENT_SAYS, 0])
    broken = gate(Setting("pix63", dry_run=True, inspects_all=False), changes=True)(data)
    assert broken is not None
    assert broken.startswith("2 two receivers: put together different octets")
    assert gate(SETTINGS[0], changes=True)(data) is None


def test_a_crash_is_shrunk_to_what_it_needs() -> None:
    monitor = gate(Setting("pix63", dry_run=True, inspects_all=False), denies=PIX63, changes=True)
    long = said(HELO, NOOP, EXPN, NOOP, NOOP)
    assert shrink(long, lambda data: (monitor(data) or "").startswith("2 the server")) == said(seeds.EHLO)
