"""Invariant 2 over connections: whichever of them a segment is of, its bytes are decided for that one.

``STREAM_SEED=<seed> pytest tests/stream -k ports_from_seeds`` runs that one alone.
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
from nfmailguard.policy.model import FlowRule, Mode
from tests.exhaustive.search import CLOCK, COOKIES, FRESH, NEAR, harness
from tests.stream import ports
from tests.stream.invariant_checker import Violation
from tests.stream.packets import AUTHENTICATION, MD5, ODD_OPTIONS, TIMESTAMPS, Track, options_of
from tests.stream.ports import ISN, PORT_TOTALS, PROFILES, SECOND, Ports

DEEP = settings.default.max_examples > 100
DELIVERIES = 1_000_000 if DEEP else 40_000
CHOICES = st.randoms(use_true_random=False)


@settings(max_examples=300 if DEEP else 30)
@given(choices=CHOICES)
def test_2_no_connection_is_taken_for_another(choices: random.Random) -> None:
    Ports(choices.randrange).run()


@settings(max_examples=300 if DEEP else 30)
@given(choices=CHOICES)
def test_2_no_flow_that_is_passed_hides_the_next_connection(choices: random.Random) -> None:
    Ports(choices.randrange, "asa-tls", COOKIES).run()


def play(seed: int) -> None:
    choose = random.Random(seed).random
    Ports(lambda n: int(choose() * n), PROFILES[seed % len(PROFILES)]).run()


def test_nothing_differs_in_many_ports_from_seeds() -> None:
    if "STREAM_SEED" in os.environ:
        play(int(os.environ["STREAM_SEED"]))
        return
    seed = secrets.randbelow(10**12) if DEEP else 0
    until = PORT_TOTALS.deliveries + DELIVERIES
    wrong: list[int] = []
    first: AssertionError | None = None
    while PORT_TOTALS.deliveries < until:
        try:
            play(seed)
        except AssertionError as violation:
            wrong.append(seed)
            first = first or violation
        seed += 1
    if wrong:
        raise AssertionError(f"{len(wrong)} runs differ; STREAM_SEED is one of {wrong[:20]}") from first


def test_it_sees_what_passes_a_gateway_that_only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))], dry_run=True, records=False)
    monkeypatch.setattr(ports, "_engine", lambda _: (engine, [SECOND]))
    with pytest.raises(Violation, match="a client sees"):
        Ports(lambda _: 0, "pix63").run()


def test_options_are_read_as_linux_does() -> None:
    track = Track(4, True)

    def of(options: bytes) -> tuple[int, int | None]:
        return options_of(track.build(1, 1, 16, options=options), track.at)

    stamp = 0x01020304
    assert of(b"") == (0, None)
    assert of(TIMESTAMPS) == (0, stamp)
    assert of(TIMESTAMPS + MD5) == (1, stamp)
    assert of(AUTHENTICATION) == (2, None)
    assert of(ODD_OPTIONS[0] + TIMESTAMPS) == (0, stamp)
    assert of(ODD_OPTIONS[1] + TIMESTAMPS) == (0, None)
    assert of(ODD_OPTIONS[2] + MD5) == (0, None)
    assert of(b"\0\0\0\0" + MD5) == (0, None)


# The server's kernel. Numbers and times are those of Linux 6.


def syn(peer, isn: int = ISN):  # type: ignore[no-untyped-def]
    return peer.receive(isn, 0, 2, 65535, b"", 1000, 0)


def established(model: int):  # type: ignore[no-untyped-def]
    peer = harness().peer.Peer(model, True)
    number = syn(peer)[0][0]
    said = peer.receive(ISN + 1, number + 1, 16, 65535, b"", 1000, 0)
    assert said[0][4].startswith(b"220 ")
    return peer, number


def test_a_cookie_is_good_for_every_number_of_the_clients_for_two_minutes() -> None:
    peer = harness().peer.Peer(COOKIES, True)
    number = syn(peer)[0][0]
    assert peer.listening
    assert syn(peer, ISN + 77)[0][0] == number + 77
    peer.wait(119 * SECOND)
    assert peer.receive(ISN + 1001, number + 1001, 16, 65535, b"", 1000, 0)[0][4].startswith(b"220 ")
    late = harness().peer.Peer(COOKIES, True)
    number = syn(late)[0][0]
    late.wait(120 * SECOND)
    (answer,) = late.receive(ISN + 1, number + 1, 16, 65535, b"", 1000, 0)
    assert answer[2] == 4  # RST


def test_cookies_near_each_other_are_those_of_two_minutes() -> None:
    peer = harness().peer.Peer(NEAR, True)
    first = syn(peer)[0][0]
    peer.wait(60 * SECOND)
    assert syn(peer)[0][0] - first == 5


def test_a_clocks_numbers_come_back_after_275_seconds() -> None:
    numbers = []
    for wait in (0, 51 * SECOND, 2**32 * 64):
        peer = harness().peer.Peer(CLOCK, True)
        peer.wait(wait)
        numbers.append(syn(peer)[0][0])
    assert numbers[0] == numbers[2] != numbers[1]


def test_fresh_numbers_do_not_come_back() -> None:
    peer, number = established(FRESH)
    peer.receive(peer.expects, 0, 4, 0, b"", None, 0)
    assert peer.listening
    assert syn(peer)[0][0] != number


def test_it_refuses_keys_and_old_timestamps_and_challenges_what_misses() -> None:
    peer, number = established(COOKIES)
    at = peer.expects
    assert peer.receive(at, number + 1, 24, 65535, b"NOOP\r\n", 1000, 1) == []
    assert peer.receive(at, number + 1, 24, 65535, b"NOOP\r\n", 1000, 2) == []
    (ack,) = peer.receive(at, number + 1, 24, 65535, b"NOOP\r\n", 10, 0)
    assert (ack[1], ack[2]) == (at, 16)
    assert peer.receive(at + 9, 0, 4, 0, b"", None, 0)[0][2] == 16  # RFC 5961 3.2
    assert peer.receive(at, number + 1, 2, 0, b"", None, 0)[0][2] == 16  # RFC 5961 4
    assert peer.receive(at, 0, 4, 0, b"", 10, 0) == []  # a RST is not asked for its timestamp
    assert peer.listening


def test_a_closed_server_forgets_without_a_word() -> None:
    peer, number = established(COOKIES)
    peer.receive(peer.expects, number + 1, 16, 0, b"", 1000, 0)  # no room for anything
    peer.receive(peer.expects, peer.sends, 16, 0, b"", 1000, 0)
    assert all(not flags & 5 for _, _, flags, *_ in peer.hang_up())
    assert all(not flags & 5 for _, _, flags, *_ in peer.wait(101 * SECOND))
    assert not peer.listening
    peer.wait(SECOND)
    assert peer.listening
    peer, number = established(COOKIES)
    (last,) = peer.hang_up()
    assert last[2] & 1
    peer.receive(peer.expects, peer.sends, 16, 65535, b"", 1000, 0)
    peer.wait(59 * SECOND)
    assert not peer.listening
    peer.wait(SECOND)
    assert peer.listening
