"""Benchmarks: what is measured is what is said, and what is said follows from what was measured."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from nfmailguard.bench import dialogues, engine, flows
from nfmailguard.bench.load import packed, source, trips
from nfmailguard.bench.machine import facts, pinned, usage
from nfmailguard.bench.report import closing, met, page, plot, write_plots
from nfmailguard.bench.results import Answer, Benchmark, Report, compare, interval, load, save, spread
from nfmailguard.bench.targets import TARGETS, answers
from nfmailguard.cext.bench.core_bench import Drill
from nfmailguard.cext.bench.load_generator import serve
from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.cli import cli
from nfmailguard.engine import Engine
from nfmailguard.errors import BenchError
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.support.listening import serving
from tests.support.wire import FIN, SYN, parse

without_asan = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="matplotlib's C++ throws, which AddressSanitizer without libstdc++ beside it ends",
)


def found(*rates: float, name: str = "queue") -> Benchmark:
    bench = Benchmark(name, "Title", {"rate": "mails/s", "CPU": "us"}, "accept-all")
    for number, rate in enumerate(rates):
        bench.add("1 KiB", "accept-all", rate=100.0 + number, CPU=1.0)
        bench.add("1 KiB", "enforce pix63", rate=rate, CPU=2.0)
    return bench


def report(*benchmarks: Benchmark) -> Report:
    return Report("0", "today", {"kernel": "6"}, list(benchmarks))


def test_a_ratio_pairs_the_values_of_a_round_and_is_told_as_median_and_range() -> None:
    bench = found(100.0, 202.0, 51.0)
    assert bench.ratios("1 KiB", "enforce pix63") == [1.0, 2.0, 0.5]
    assert spread([1.0, 2.0, 0.5]).text(2) == "1.00 (0.50-2.00)"
    assert spread([1234.5]).text(0) == "1,234"
    assert bench.ratios("1 KiB", "Suricata") == bench.ratios("1 MiB", "enforce pix63") == []


def test_a_report_comes_back_as_it_was_kept_and_anything_else_is_refused_in_a_line(tmp_path: Path) -> None:
    kept = report(found(90.0, 91.0))
    kept.answers = [Answer("1", "x", "y", True)]
    save(kept, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == kept
    (tmp_path / "b.json").write_text('{"version": 1}')
    for path, words in (("b.json", "not a report"), ("none.json", "cannot read")):
        with pytest.raises(BenchError, match=words) as caught:
            load(tmp_path / path)
        assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match="cannot write"):
        save(kept, tmp_path / "no" / "a.json")


def test_worse_ratios_are_told_and_wandering_within_the_rounds_is_not() -> None:
    before = report(found(100.0, 101.0, 102.0))
    assert compare(before, report(found(99.0, 100.0, 101.0)), 0.1) == []
    (line,) = compare(before, report(found(80.0, 80.0, 80.0)), 0.1)
    assert line == "queue, 1 KiB, enforce pix63: x 1.00 of accept-all before, x 0.79 now"
    assert compare(report(found(100.0, 60.0, 102.0)), report(found(80.0, 80.0, 80.0)), 0.1) == []
    slower = found(150.0, 150.0, 150.0)
    slower.more = False
    assert len(compare(before, report(slower), 0.1)) == 1
    assert compare(report(), before, 0.1) == []


def test_every_target_is_answered_yes_no_or_not_measured() -> None:
    told = answers(report(found(99.0, 100.0, 101.0)))
    assert len(told) == len(TARGETS)
    by = {answer.target: answer for answer in told}
    assert by["1 KiB: mails, of accept-all: at least x 0.97"].met is True
    assert by["1 KiB: mails, of a bare C loop: at least x 0.95"].met is None
    assert answers(report(found(90.0, 90.0, 90.0)))[0] == Answer(
        "1", "1 KiB: mails, of accept-all: at least x 0.97", "x 0.89 (0.88-0.90)", False
    )


def test_rounds_that_differ_too_much_answer_neither_yes_nor_no() -> None:
    wide = [60.0, 70.0, 80.0, 100.0, 101.0, 110.0, 120.0, 150.0, 160.0]
    told = answers(report(found(*wide)))[0]
    assert (told.met, told.noisy) == (None, True)
    assert met(told) == "too noisy to say"
    assert "1 cannot be told" in closing([told])
    assert interval(wide) == (70.0, 150.0)
    assert interval([1.0, 2.0, 3.0]) == (1.0, 3.0)
    assert interval([float(one) for one in range(20)]) == (5.0, 14.0)


def test_one_round_is_no_ground_for_worse() -> None:
    assert compare(report(found(100.0)), report(found(50.0)), 0.1) == []
    assert len(compare(report(found(100.0, 101.0)), report(found(50.0, 51.0)), 0.1)) == 1
    assert compare(report(found(100.0, 70.0)), report(found(80.0, 81.0)), 0.1) == []


def test_targets_between_groups_and_values_by_themselves() -> None:
    bench = Benchmark("flows", "t", {"time": "ns", "memory": "octets"}, "enforce pix63", more=False)
    for one in (100.0, 110.0):
        bench.add("1,000 flows", "enforce pix63", time=one, memory=312.0)
        bench.add("1,000,000 flows", "enforce pix63", time=one * 1.5, memory=312.0)
    by = {answer.target: answer for answer in answers(report(bench))}
    assert by["octets an idle flow: at most 320"].found == "312"
    assert by["time a packet at 1,000,000 flows, of that at 1,000: at most x 2"].found == "x 1.50"


@without_asan
def test_pictures_and_the_page_hold_what_was_found(tmp_path: Path) -> None:
    kept = report(found(90.0, 91.0), found(5.0, name="latency"))
    kept.answers = [Answer("1", "a < b", "no & yes", False)]
    written = write_plots(kept, tmp_path / "plots")
    assert [path.name for path in written] == ["queue.png", "queue.svg", "latency.png", "latency.svg"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring(written[1].read_bytes())
    text = page(kept)
    for words in ("enforce pix63", "a &lt; b", "no &amp; yes", "x 0.90", "data:image/svg+xml;base64,", "6"):
        assert words in text
    assert "http" not in text.replace("data:image", "")
    labels = [label.get_text() for label in plot(kept.benchmarks[0]).axes[0].get_yticklabels()]
    assert labels == ["accept-all", "enforce pix63"]


@pytest.mark.parametrize("name", ["commands", "allowed in every packet", "denied in every packet", "octet by octet"])
def test_made_up_connections_are_whole_and_their_checksums_right(name: str) -> None:
    packets = dialogues.captures()[name]
    segments = [parse(packet) for packet, _ in packets[:2000]]  # raises where a length or checksum is wrong
    assert [segment.destination.port == 25 for segment in segments] == [to_server for _, to_server in packets[:2000]]
    flags = [packet[33] for packet, _ in packets]
    assert sum(one & SYN for one in flags) == sum((one & FIN) * SYN for one in flags) > 0


def test_what_is_refused_is_refused_and_what_is_allowed_is_not() -> None:
    captures = dialogues.captures()
    for name, masked in (("allowed in every packet", 0), ("denied in every packet", 40)):
        one = Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))], limits=Limits(cookies=0))
        drill = Drill(one, captures[name])
        assert engine.timed(drill, one, len(captures[name])) > 0
        sessions = sum(packet[33] == SYN for packet, _ in captures[name])
        assert drill.counts["replaced"] == sessions * (masked + 1)  # the greeting, too
        assert (drill.counts["dropped"], drill.counts["packets"]) == (0, len(captures[name]))
        assert one.counters()["finding.command.denied"] == sessions * masked


@pytest.mark.parametrize("flow_count", [100, 9000])
def test_a_drill_decides_as_packets_do_one_by_one_few_flows_or_so_many_that_they_are_foreseen(flow_count: int) -> None:
    opening, turns = dialogues.rounds(1)
    rules = [FlowRule(Mode.ENFORCE, load_profile("pix63"))]
    engine_of_drill = Engine(rules, limits=Limits(flows=20_000), records=False)
    drill = Drill(engine_of_drill, opening + turns[0])
    drill.spread(flow_count, 512)
    counters = engine_of_drill.counters()
    assert counters["flows_opened"] == counters["flows_now"] == counters["finding.banner.masked"] == flow_count
    assert counters["packets"] == flow_count * len(opening + turns[0]) == counters["accepted"] + counters["replaced"]
    assert counters["bad_checksum"] == 0
    single = Engine(rules, records=False)
    for number, (packet, to_server) in enumerate(opening + turns[0]):
        ways = {"in_interface": 1, "out_interface": 2} if to_server else {"in_interface": 2, "out_interface": 1}
        single.process(packet, 1_000_000_000 + number, id=number, **ways)
    assert {name: value * flow_count for name, value in single.counters().items() if name.startswith("finding.")} == {
        name: value for name, value in counters.items() if name.startswith("finding.")
    }


def test_flows_are_counted_as_large_as_the_core_says() -> None:
    bench = flows.flows(1, lambda _: None, counts=(1000,))
    (memory,) = bench.values("1,000 flows", "enforce pix63", "memory")
    assert FLOW_BYTES <= memory <= FLOW_BYTES + 16


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, lambda connection: serve(connection.fileno())):
        yield listener.getsockname()


def test_mail_of_our_own_load_arrives_and_round_trips_are_counted(server: tuple[str, int]) -> None:
    assert source(*server, 1, 3, 100_000)["messages"] == 3
    assert len(trips(*server, 20)["trips"]) == 20
    with pytest.raises(OSError, match="refused"):
        source("127.0.0.1", 1, 1, 1, 10)


@pytest.mark.parametrize("size", [10, 1024, 10_000])
def test_text_is_as_long_as_asked_for_and_ends_no_message(size: int) -> None:
    text = dialogues.prose(size)
    assert text.endswith(b"\r\n")
    assert b"\r\n." not in text
    assert abs(len(text) - size) < 60 or size < 100


def test_addresses_are_packed_as_the_kernel_takes_them() -> None:
    assert len(packed("192.0.2.1", 25)) == 16
    assert len(packed("2001:db8::1", 25)) == 28


def test_the_machine_is_told_and_this_process_uses_it() -> None:
    assert {"kernel", "CPUs", "processor"} <= facts().keys()
    before = usage(os.getpid())
    with pinned(min(os.sched_getaffinity(0))):
        assert len(os.sched_getaffinity(0)) == 1
        sum(range(2_000_000))
    assert usage(os.getpid()).since(before).cpu > 1_000_000


@without_asan
def test_the_command_keeps_shows_draws_and_compares(tmp_path: Path) -> None:
    kept, drawn, html = tmp_path / "a.json", tmp_path / "a.svg", tmp_path / "a.html"
    save(report(found(100.0, 101.0)), kept)
    run = CliRunner().invoke(
        cli, ["bench", "report", str(kept), "--plot", str(drawn), "--html", str(html), "--compare", str(kept)]
    )
    assert run.exit_code == 0, run.output
    assert "enforce pix63" in run.output
    assert "no ratio is worse" in run.output
    assert drawn.exists()
    assert "<h2>queue</h2>" in html.read_text()
    better = tmp_path / "b.json"
    save(report(found(200.0, 202.0)), better)
    run = CliRunner().invoke(cli, ["bench", "report", str(kept), "--compare", str(better)])
    assert run.exit_code == 1
    assert "worse: queue, 1 KiB" in run.output
    again = tmp_path / "c.json"
    CliRunner().invoke(cli, ["bench", "report", str(kept), "--json", str(again)])
    assert json.loads(again.read_text()) == json.loads(kept.read_text())


@without_asan
def test_panels_have_one_scale_and_what_does_no_work_does_not_set_it() -> None:
    bench = Benchmark("flows", "t", {"time": "ns"}, "enforce pix63", more=False)
    for group, time in (("1,000 flows", 338.0), ("1,000,000 flows", 656.0)):
        bench.add(group, "copy", time=90_000.0)
        bench.add(group, "enforce pix63", time=time)
    axes = plot(bench).axes
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[0].get_xlim()[1] < 1000
    assert any(text.get_text().startswith("» 90,000") for text in axes[0].texts)
    assert [one.get_xlabel() for one in axes] == ["ns", "ns, less is better"]
    bench.add("a thousand times", "enforce pix63", time=500_000.0)
    assert len({one.get_xlim() for one in plot(bench).axes}) == 3
