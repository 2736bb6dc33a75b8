"""Readers of what others wrote take time and memory linear in it: logs, configurations of boxes, and our own.

Inputs are the corpus, mutated, and repeated until they are long. Ratios of the processor's time, never seconds.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfmailguard.policy.cisco.read import read as read_cisco
from tests.fuzz import configuration, logs
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
SMALL, LARGE = 16 << 10, 128 << 10
#: Of eight times the input: what eightfold time may be measured as beside others.
MOST_RATIO = 8 * 4
#: Seconds below which a measurement tells nothing.
FLOOR = 0.02
#: Bytes of memory for a byte of input, and beside it.
MOST_MEMORY, BESIDE = 200, 8 << 20

Parse = Callable[[bytes], None]


def cisco(data: bytes) -> None:
    """Without what ``tests.fuzz.cisco`` writes back, which is as long as the policies are many."""
    read_cisco(data.replace(b"\0", b" ").decode("utf-8", "surrogateescape"))


PARSERS: dict[str, Parse] = {"logs": logs.parse, "cisco": cisco, "config": configuration.parse}


def words(name: str) -> list[bytes]:
    """The target's dictionary: libFuzzer's, a quoted string with escapes a line."""
    lines = (HERE / TARGETS[name].dictionary).read_text().splitlines()
    quoted = [line.partition("=")[2].strip()[1:-1] for line in lines if "=" in line and not line.startswith("#")]
    return [word.encode().decode("unicode_escape").encode("latin-1") for word in quoted]


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(TARGETS[name].corpus.iterdir())]


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """One of the corpus with pieces put in, taken out, doubled and overwritten."""
    data = bytearray(draw(st.sampled_from(corpus(name))))
    pieces = st.sampled_from(words(name)) | st.binary(min_size=1, max_size=4)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 24))
        match draw(st.sampled_from(("put", "take", "double", "over"))):
            case "put":
                data[at:at] = draw(pieces)
            case "take":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size] * draw(st.integers(1, 20))
            case _:
                data[at : at + size] = draw(pieces)
    return bytes(data)


def repeated(data: bytes, size: int, *, one_line: bool) -> bytes:
    piece = (data.replace(b"\n", b" ").replace(b"\r", b" ") if one_line else data + b"\n") or b" "
    return (piece * (size // len(piece) + 1))[:size]


def taken(parse: Parse, data: bytes) -> float:
    begun = time.process_time()
    parse(data)
    return time.process_time() - begun


SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("name", PARSERS)
@SETTINGS
@given(data=st.data())
def test_a_mutated_input_ends_in_a_result_or_one_line(name: str, data: st.DataObject) -> None:
    replay, _ = TARGETS[name].ready(False)
    assert replay(data.draw(mutated(name))) is None


@pytest.mark.parametrize("name", PARSERS)
@settings(SETTINGS, max_examples=20)
@given(data=st.data(), one_line=st.booleans())
def test_time_is_linear_in_what_is_read(name: str, data: st.DataObject, one_line: bool) -> None:
    piece, parse = data.draw(mutated(name)), PARSERS[name]
    small, large = (repeated(piece, size, one_line=one_line) for size in (SMALL, LARGE))
    ratio = 0.0
    for _ in range(3):  # a machine that is busy is measured again
        ratio = taken(parse, large) / max(taken(parse, small), FLOOR)
        if ratio <= MOST_RATIO:
            return
    raise AssertionError(f"{ratio:.0f} times the time for eight times the input")


@pytest.mark.parametrize("name", PARSERS)
@settings(SETTINGS, max_examples=10)
@given(data=st.data(), one_line=st.booleans())
def test_memory_is_linear_in_what_is_read(name: str, data: st.DataObject, one_line: bool) -> None:
    piece = repeated(data.draw(mutated(name)), LARGE, one_line=one_line)
    tracemalloc.start()
    try:
        PARSERS[name](piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= MOST_MEMORY * len(piece) + BESIDE
