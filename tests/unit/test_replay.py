"""``replay``: a capture, a configuration, and what is told of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from nfmailguard.cli import cli
from nfmailguard.config import Config, Rule, load
from nfmailguard.errors import CaptureError, ConfigError
from nfmailguard.policy.model import Limits, Mode
from nfmailguard.replay import FindingCount, Summary, encode, render, replay
from tests.support.captures import RAW, Frame, framed, mail, pcap


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(framed(mail()), RAW))
    return path


def shown(summary: Summary, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, no_color=True, width=100)
    render(summary, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def exactly(config: Config) -> Config:
    """In streams as short as these an ACK's numbers often are a SYN cookie's by chance, and are changed."""
    return msgspec.structs.replace(config, limits=Limits(cookies=0))


def test_enforce_is_summed_up(capture: Path, tmp_path: Path) -> None:
    summary = replay(exactly(load(mode="enforce", profile="pix63")), capture, tmp_path / "out.pcap")
    packets = len(mail().packets)
    assert (summary.packets, summary.accepted, summary.changed, summary.dropped) == (packets, packets - 2, 2, 0)
    assert (summary.flows, summary.flows_reset, summary.mails, summary.fault) == (1, 0, 1, None)
    assert (summary.mode, summary.profile) == ("enforce", "pix63")
    assert summary.findings == (
        FindingCount("command.denied", "mask", True, 1),
        FindingCount("banner.masked", "mask", True, 1),
    )
    assert summary.remarks == {}
    assert shown(summary).splitlines() == [
        f"{capture} -> {tmp_path}/out.pcap: enforce pix63",
        f"{packets} packets: {packets - 2} accepted, 2 changed, 0 dropped, 0 not IP; 0 resets sent",
        "1 flows, 0 reset; 1 mails",
        "finding         action  count",
        "command.denied  mask        1",
        "banner.masked   mask        1",
    ]
    assert "command.denied" in shown(summary, terminal=True)


@pytest.mark.parametrize("flags", [{"mode": "monitor"}, {"mode": "enforce", "dry_run": True}])
def test_what_only_watches_changes_nothing_and_says_what_it_would_do(
    capture: Path, tmp_path: Path, flags: dict[str, object]
) -> None:
    summary = replay(load(profile="pix63", **flags), capture, tmp_path / "out.pcap")  # type: ignore[arg-type]
    assert (tmp_path / "out.pcap").read_bytes() == capture.read_bytes()
    assert {(found.action, found.applied) for found in summary.findings} == {("mask", False)}
    assert "command.denied  (mask)      1" in shown(summary)
    assert "nothing was changed" in shown(summary)


def test_the_summary_is_one_json_object(capture: Path) -> None:
    summary = replay(load(mode="enforce"), capture)
    line = encode(summary)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Summary) == summary
    assert json.loads(line)["output"] is None
    assert json.loads(line)["counters"]["queue.packets"] == summary.packets


def test_events_have_the_times_of_the_capture(capture: Path, tmp_path: Path) -> None:
    replay(load(mode="enforce"), capture, events=str(tmp_path / "eve.json"))
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    assert [event["event_type"] for event in events] == ["mailguard", "mailguard", "smtp", "flow", "stats"]
    assert {event["timestamp"][:10] for event in events} == {"2023-11-14"}
    assert events[2]["smtp"]["reply"] == "250 queued as 1234"
    assert events[-1]["stats"]["queue.packets"] == len(mail().packets)


def test_the_policy_of_the_configuration_decides(capture: Path, tmp_path: Path) -> None:
    replay(load(overrides=["banner.separator=no"], mode="enforce"), capture, tmp_path / "out.pcap")
    assert b"220" + b"*" * 17 + b"\r\n" in (tmp_path / "out.pcap").read_bytes()


def test_a_rule_for_an_interface_is_left_out_and_told(capture: Path) -> None:
    rule = Rule(interface="no-such-interface0", mode=Mode.MONITOR)
    summary = replay(exactly(msgspec.structs.replace(load(mode="enforce"), rule=(rule,))), capture)
    assert summary.rules_skipped == 1
    assert summary.changed == 2
    assert "1 rules left out" in shown(summary)


def test_a_capture_that_ends_badly_is_summed_up_as_far_as_it_goes(capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-5])
    summary = replay(Config(), capture)
    assert summary.packets == len(mail().packets) - 1
    assert summary.fault is not None
    assert summary.fault.startswith(f"{capture}: ends badly behind packet {summary.packets}")


def test_what_is_no_capture_raises(capture: Path) -> None:
    capture.write_bytes(b"text")
    with pytest.raises(CaptureError, match="no capture that can be read"):
        replay(Config(), capture)


def test_events_that_cannot_be_written_raise_before_a_packet_is_read(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        replay(Config(), capture, events=str(tmp_path / "nowhere" / "eve.json"))


def test_a_full_disk_loses_events_and_says_so(capture: Path) -> None:
    summary = replay(load(mode="enforce"), capture, events="/dev/full")
    assert summary.remarks["events_lost"] == 5
    assert "5 events that could not be written" in shown(summary)


def test_what_is_not_inspected_is_told(capture: Path) -> None:
    other = [Frame(frame.now, frame.data.replace(b"\0\x19", b"\0\x50")) for frame in framed(mail())]
    capture.write_bytes(pcap([*other, Frame(0, b"\0junk")], RAW))
    summary = replay(load(mode="enforce"), capture)
    assert summary.remarks == {"not_ip": 1, "not_inspected": len(other), "clock_back": 1}
    assert "no findings" in shown(summary)


def test_progress_is_told(capture: Path) -> None:
    told: list[int] = []
    replay(Config(), capture, progress=told.append)
    assert told[-1] == len(mail().packets)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def test_the_command_shows_the_summary(capture: Path, tmp_path: Path) -> None:
    done = command(capture, tmp_path / "out.pcap", "--mode", "enforce", "--set", "banner.separator=no")
    assert done.exit_code == 0
    assert "command.denied" in done.stdout
    assert b"220" + b"*" * 17 in (tmp_path / "out.pcap").read_bytes()


def test_events_on_standard_output_stand_there_alone(capture: Path) -> None:
    for more in ([], ["--json"]):
        done = command(capture, "--events", "-", *more)
        assert [json.loads(line)["event_type"] for line in done.stdout.splitlines()][-1] == "stats"
        assert "monitor" in done.stderr


def test_the_command_prints_one_json_object(capture: Path) -> None:
    assert json.loads(command(capture, "--json").stdout)["mails"] == 1


def test_a_capture_that_ends_badly_is_shown_and_is_an_error(capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-5])
    done = command(capture)
    assert isinstance(done.exception, CaptureError)
    assert done.exception.exit_code == 2
    assert "packets: " in done.stdout
