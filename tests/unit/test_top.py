"""``top`` and ``status`` as they are shown: what was answered, and rates that are differences."""

from __future__ import annotations

import io

from nfmailguard.reports.console import Console
from nfmailguard.reports.standing import render as standing
from nfmailguard.reports.standing import span
from nfmailguard.reports.top import Sample, render

QUEUE = {
    "number": 3, "waiting": 7, "length": 4096, "packets": 900, "held": 2, "flows": 12, "most_flows": 131072,
    "memory": 3 << 20, "most_memory": 256 << 20, "dropped_by_kernel": 5, "socket_overruns": 0, "records_lost": 117,
}  # fmt: skip
STATUS = {
    "state": "degraded",
    "reasons": [{"reason": "records_lost", "text": "events lost: written too slowly", "since": 0.0, "count": 117}],
    "summary": "enforce pix63, queue 3",
    "version": "0.1.0",
    "pid": 4711,
    "uptime": 3725,
    "rules": "in place",
    "configuration": {"generation": 1, "since": 0, "older": 0, "flows_under_older": 0},
    "queues": [QUEUE],
    "uninspected": 0,
    "events_lost": 0,
    "open_before": 0,
    "confinement": {
        "confined": False,
        "user": "root",
        "capabilities": ["CAP_NET_ADMIN"],
        "bounding": ["CAP_NET_ADMIN"],
        "no_new_privileges": True,
        "system_calls": None,
        "landlock": 7,
        "missing": ["confinement: no library"],
    },
}


def shown(now: Sample, before: Sample | None) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(now, before))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_rates_are_differences() -> None:
    before = Sample(10.0, STATUS, {"packets": 1000, "queue.bytes": 0, "flows_now": 12, "finding.command.denied": 3})
    now = Sample(
        12.0,
        STATUS,
        {
            "packets": 1900,
            "queue.bytes": 5_000_000,
            "flows_now": 12,
            "finding.command.denied": 23,
            "finding.data.nul": 40,
            "records_lost": 117,
        },
    )
    text = shown(now, before)
    assert "degraded: enforce pix63, queue 3, up 1 h 2 min, rules in place" in text
    assert "records_lost: 117 events lost: written too slowly" in text
    assert "a second: 450 packets, 2.5 M bytes; 12 flows open" in text
    assert ["3", "7", "4096", "2", "12", "131072", "3.0", "256", "5"] in [line.split() for line in text.splitlines()]
    findings = [line.split() for line in text.splitlines() if line.startswith(("command.", "data."))]
    assert findings == [["data.nul", "40", "20"], ["command.denied", "23", "10"]]
    assert "losses: 117 events lost: written too slowly" in text


def test_without_an_earlier_answer_there_are_no_rates() -> None:
    text = shown(Sample(1.0, {**STATUS, "state": "healthy", "reasons": []}, {"packets": 5}), None)
    assert "a second: - packets; 0 flows open" in text
    assert "no findings" in text
    assert "losses: none" in text


def test_status_in_lines() -> None:
    first, reason, process, rules, confined, missing, queue = standing(STATUS)
    assert confined == "confined in part: user root, CAP_NET_ADMIN, every system call, files by Landlock 7"
    assert missing == "  confinement: no library"
    assert first == "degraded: enforce pix63, queue 3"
    assert reason.startswith("  records_lost: 117 events lost: written too slowly (since ")
    assert process == "nfmailguard 0.1.0, process 4711, up 1 h 2 min"
    assert rules == "rules: in place; 0 packets passed uninspected"
    assert queue.startswith("queue 3: 7 of 4096 packets waiting, 2 held; 12 of 131072 flows; 3.0 of 256 MiB")
    later = {**STATUS, "configuration": {"generation": 3, "since": 0, "older": 2, "flows_under_older": 9}}
    line = next(line for line in standing(later) if line.startswith("configuration: "))
    assert line.startswith("configuration: generation 3 since 1970-01-01 ")
    assert line.endswith("; 9 flows are under 2 older ones")
    [rules] = [line for line in standing({**STATUS, "open_before": 3}) if line.startswith("rules: ")]
    assert rules.endswith("; 3 open since before, uninspected (on.midstream_at_start)")
    assert [span(59), span(86400 * 2 + 3600)] == ["0 min 59 s", "2 d 1 h"]
