"""What a run counts is what libFuzzer said."""

from __future__ import annotations

from tests.fuzz import run

DONE = """INFO: seed corpus: files: 60 min: 11b max: 31b total: 1380b rss: 68Mb
#61	INITED cov: 411 ft: 1200 corp: 58/1291b exec/s: 0 rss: 70Mb
#262134	DONE   cov: 999 ft: 6087 corp: 1542/60Kb lim: 166 exec/s: 8455 rss: 94Mb
stat::number_of_executed_units: 262134
"""
BROKEN = """#61	INITED cov: 411 ft: 1200 corp: 58/1291b exec/s: 0 rss: 70Mb
VIOLATION: 2 two receivers: put together different octets (179, 1)
==32154== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
stat::number_of_executed_units: 150459
"""
KILLED = """#61	INITED cov: 411 ft: 1200 corp: 58/1291b exec/s: 0 rss: 70Mb
#4096	pulse  cov: 420 ft: 1300 corp: 60/1300b lim: 4 exec/s: 2048 rss: 80Mb
"""
UNDEFINED = "src/x.c:3492:34: runtime error: negation of -2147483648 cannot be represented in type 'int32_t'\n"


def test_executions_and_coverage_are_read_off() -> None:
    assert run._numbers(DONE) == (262134, 999, 6087, 1542)
    assert run._numbers(BROKEN) == (150459, 411, 1200, 58)
    assert run._numbers(KILLED) == (4096, 420, 1300, 60)
    assert run._numbers("") == (0, 0, 0, 0)


def test_what_broke_is_told_in_a_line() -> None:
    assert run._message(BROKEN) == "2 two receivers: put together different octets (179, 1)"
    assert run._message(UNDEFINED).startswith("runtime error: negation of")
    assert run._message("==1==ERROR: AddressSanitizer: SEGV\nSUMMARY: AddressSanitizer: SEGV x.c\n").endswith(
        "SEGV x.c"
    )
    assert run._message(KILLED).startswith("ended without a word")


def test_only_a_violation_can_be_ignored() -> None:
    assert run._rule(run._message(BROKEN)) == "2 two receivers"
    assert run._rule(run._message(UNDEFINED)) == ""


def test_the_last_line_sums_up() -> None:
    told = run.sum_up("fuzz", {"packets": 12_345_678, "streams": 1000}, 0)
    assert told == "fuzz: packets 12,345,678, streams 1,000: 12,346,678 executions, 0 crashes"
