"""``nfmailguard replay``: runs a capture through an engine and sums up the result.

Promises: the same packets give the same bytes and findings as live; what a damaged capture contains before the damage
is replayed, written and summed up. Needs no privilege. Does not know capture files (``queues.capture`` does) or the
wording of events (``events.eve``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from nfmailguard.config import Config
from nfmailguard.engine import ACTIONS, Engine
from nfmailguard.errors import CaptureError
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.records import Record, RecordKind
from nfmailguard.events.sinks import open_sink
from nfmailguard.events.syslog import open_syslog
from nfmailguard.events.transactions import TOLD
from nfmailguard.plain import json_safe, printable
from nfmailguard.policy.model import FINDINGS, FlowRule
from nfmailguard.queues.capture import CaptureFile
from nfmailguard.transcripts.recorded import Findings

__all__ = ["FindingCount", "Summary", "encode", "render", "replay"]

#: Counters of packets that were not inspected and of what the capture lacks, with an explanation for each.
_REMARKS = {
    "not_ip": "frames without an IP packet, or of a link type not understood: written as they came",
    "not_inspected": "packets of other ports: passed",
    "truncated": "packets cut by the capture's snap length: nothing can be decided on them",
    "bad_checksum": "packets with a wrong TCP checksum: no receiver takes them; edited? (--checksums ignore)",
    "checksum_partial": "packets captured before the network card filled in the checksum: taken as right",
    "fragments": "IP fragments",
    "malformed": "malformed packets",
    "clock_back": "packets older than one before them: the clock stood still",
    "flows_midstream": "connections whose beginning is not in the capture",
    "flows_evicted": "connections pushed out of the full table",
    "flows_refused": "connections that found no place in the table",
    "records_lost": "records lost: findings and events are incomplete",
    "events_lost": "events that could not be written",
    "internal_errors": "internal errors: please report them",
}


class FindingCount(msgspec.Struct, frozen=True):
    """How often a finding was made, with the action the policy has for it."""

    finding: str
    action: str
    #: False: the finding was only reported (``monitor``, ``--dry-run``).
    applied: bool
    count: int


class Summary(msgspec.Struct, frozen=True):
    """The result of a replay. Counts are packets unless something else is said."""

    input: str
    #: Name of the output file; None: nothing was written.
    output: str | None
    #: Mode and profile of the flows that no rule names.
    mode: str
    profile: str
    packets: int
    bytes: int
    #: Packets passed on unchanged, passed on changed, and dropped. Frames without an IP packet are not counted here.
    accepted: int
    changed: int
    dropped: int
    #: RST packets that the engine sent itself.
    emitted: int
    #: Connections that were inspected, and how many of them the engine reset.
    flows: int
    flows_reset: int
    #: Mails whose end of data was seen.
    mails: int
    findings: tuple[FindingCount, ...]
    #: Counters that are worth a remark and are not 0.
    remarks: dict[str, int]
    #: Every counter of the core by name, and the queue driver's as ``queue.NAME``.
    counters: dict[str, int]
    #: Number of rules that were ignored because they name an interface, which a capture does not record.
    rules_skipped: int = 0
    #: What stopped the replay before the capture's end; None: it was complete.
    fault: str | None = None


def replay(
    config: Config,
    in_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str] | None = None,
    events: str | None = None,
    *,
    progress: Callable[[int], object] | None = None,
    checksums: bool = True,
    findings: Callable[[Sequence[FlowRule]], Findings] | None = None,
) -> Summary:
    """Replays ``in_path`` under ``config``; writes what would have left the gateway to ``out_path``.

    ``events``: where EVE events go, a file's path or ``-``. ``progress`` is called now and then with the number of
    packets read. ``checksums`` False: wrong ones, as in an edited capture, are corrected. ``findings`` is called with
    the rules, and what it returns gets every record. Raises CaptureError for a file that cannot be opened and
    ConfigError for rules or an events file that cannot be used; later errors are in ``Summary.fault``.
    """
    all_rules = config.flow_rules()
    rules = tuple(rule for rule in all_rules if rule.interface is None)
    told = events is not None or config.syslog.target is not None or findings is not None
    # If nobody reads the records and there is only one rule, the core's counters have everything except the mails, so
    # few records are made.
    counted = not told and len(rules) == 1
    engine = Engine(
        rules,
        ports=config.ports(),
        limits=config.limits,
        on=config.on,
        dry_run=config.gateway.dry_run,
        records=(RecordKind.MESSAGE,) if counted else True,
        told=TOLD,
    )
    tally = _Tally(engine, progress)
    capture = CaptureFile(engine, in_path, out_path, drain=tally.drain, checksums=checksums)
    tally.capture = capture
    fault = sink = writer = None
    with ExitStack() as stack:
        stack.callback(capture.close)
        capture.open()
        if events is not None:
            sink = open_sink(events, patient=True)
            stack.callback(sink.close)
            tally.writers.append(writer := EveWriter(rules, sink, alerts=config.log.alerts))
        if findings is not None:
            tally.writers.append(findings(rules))
        ours = config.syslog
        if ours.target is not None:
            lines = open_syslog(ours.target, facility=ours.facility, host=ours.host, form=ours.format)
            stack.callback(lines.close)
            tally.writers.append(CiscoWriter(rules, lines, interfaces=ours.names(), style=str(ours.style)))
        try:
            capture.run()
        except CaptureError as error:
            fault = str(error)
        counters = engine.counters() | {f"queue.{name}": count for name, count in capture.counters().items()}
        if writer and sink:
            writer.stats(capture.clock, counters)
            sink.close()  # Lines that waited for another attempt to write them are lost now, and counted.
            counters["events_lost"] = sink.lost
    if counted:
        tally.count(counters)
    return _summary(capture, rules[-1], tally, counters, len(all_rules) - len(rules), fault)


class _Tally:
    """Takes the engine's records between batches of packets."""

    def __init__(self, engine: Engine, progress: Callable[[int], object] | None) -> None:
        self.writers: list[EveWriter | CiscoWriter | Findings] = []
        self.capture: CaptureFile | None = None
        self.findings: Counter[tuple[int, int, bool]] = Counter()
        self.mails = 0
        self._told: dict[int, dict[int, int]] = {}  # For each flow, the last count reported for each finding.
        self._engine = engine
        self._progress = progress

    def count(self, counters: dict[str, int]) -> None:
        """Counts findings that were not recorded, from the core's counters."""
        for number, spec in enumerate(FINDINGS):
            if times := counters.get(f"finding.{spec.name}"):
                action, applied = self._engine.action(spec.name)
                self.findings[number, ACTIONS.index(action), applied] = times

    def _add(self, record: Record) -> None:
        # A finding's record carries the count so far: it stands for all findings of its kind since the last record.
        told = self._told.setdefault(record.flow_id, {}) if record.flow_id else {}
        number = record.numbers[1]
        self.findings[record.finding, record.action, record.applied] += number - told.get(record.finding, 0)
        told[record.finding] = number

    def drain(self) -> None:
        while records := self._engine.drain():
            for record in map(Record.of, records):
                if record.kind in (RecordKind.FINDING, RecordKind.REPEATED):
                    self._add(record)
                elif record.kind == RecordKind.FLOW:
                    self._told.pop(record.flow_id, None)
                elif record.kind == RecordKind.MESSAGE:
                    self.mails += 1
            for writer in self.writers:
                writer.write(records)
        if self._progress and self.capture:
            self._progress(self.capture.counters()["packets"])


def _summary(
    capture: CaptureFile, rule: FlowRule, tally: _Tally, counters: dict[str, int], skipped: int, fault: str | None
) -> Summary:
    found = sorted(tally.findings.items(), key=lambda item: (-item[1], item[0]))
    remarks = {name: counters.get(name, 0) + counters.get(f"queue.{name}", 0) for name in _REMARKS}
    # The core and the driver both count truncated packets; only the driver's count is used, as it sees every frame.
    remarks["truncated"] = counters["queue.truncated"]
    return Summary(
        input=printable(capture.in_path),
        output=None if capture.out_path is None else printable(capture.out_path),
        mode=str(rule.mode),
        profile=rule.policy.name,
        packets=counters["queue.packets"],
        bytes=counters["queue.bytes"],
        accepted=counters["queue.accepted"],
        changed=counters["queue.replaced"],
        dropped=counters["queue.dropped"],
        emitted=counters["queue.emitted"],
        flows=counters["flows_opened"],
        flows_reset=counters["flows_reset"],
        mails=tally.mails,
        findings=tuple(
            FindingCount(FINDINGS[finding].name, str(ACTIONS[action]), applied, count)
            for (finding, action, applied), count in found
        ),
        remarks={name: count for name, count in remarks.items() if count},
        counters=counters,
        rules_skipped=skipped,
        fault=fault,
    )


def encode(summary: Summary) -> bytes:
    """One JSON object on a line: the fields of ``Summary``."""
    return json_safe(msgspec.json.encode(summary)) + b"\n"


def render(summary: Summary, console: Console) -> None:
    """Prints the summary; plain lines if there is no terminal. The caller reports ``fault``."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    arrow = f" -> {summary.output}" if summary.output else ""
    line(f"{summary.input}{arrow}: {summary.mode} {summary.profile}")
    line(
        f"{summary.packets} packets: {summary.accepted} accepted, {summary.changed} changed, {summary.dropped} dropped,"
        f" {summary.remarks.get('not_ip', 0)} not IP; {summary.emitted} resets sent"
    )
    line(f"{summary.flows} flows, {summary.flows_reset} reset; {summary.mails} mails")
    if summary.findings:
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        for title in ("finding", "action"):
            table.add_column(title, no_wrap=True)
        table.add_column("count", justify="right", no_wrap=True)
        for found in summary.findings:
            action = found.action if found.applied or found.action == "log" else f"({found.action})"
            table.add_row(found.finding, action, str(found.count))
        console.print(table)
        if any(not found.applied and found.action != "log" for found in summary.findings):
            line("(action): what enforcing would have done; nothing was changed")
    else:
        line("no findings")
    for name, count in summary.remarks.items():
        line(f"{count} {_REMARKS[name]}")
    if summary.rules_skipped:
        line(f"{summary.rules_skipped} rules left out: a capture does not tell which interface a packet came in on")
