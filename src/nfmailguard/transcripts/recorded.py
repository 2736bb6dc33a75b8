"""Adds an engine's findings to the lines of a capture's dialogues (``streams``).

Promises: a finding is beside the line that contains its byte, in the connection it was made in. Does not decide
anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from nfmailguard.engine import ACTIONS
from nfmailguard.events.records import Record, RecordKind
from nfmailguard.policy.findings import FINDINGS
from nfmailguard.policy.model import FlowRule
from nfmailguard.smtp.turns import ModelFinding
from nfmailguard.smtp.verbs import VERBS
from nfmailguard.transcripts.model import Dialogue, Note
from nfmailguard.transcripts.reasons import note
from nfmailguard.transcripts.streams import Capture, Connection, Key, dialogue, paired
from nfmailguard.transcripts.translated import about, beside

__all__ = ["MOST_FINDINGS", "Findings", "dialogues"]

MOST_FINDINGS = 500_000


class Findings:
    """Takes an engine's drained records, as ``EveWriter`` does; keeps ``MOST_FINDINGS`` and counts the rest."""

    def __init__(self, rules: Sequence[FlowRule]) -> None:
        self._rules = rules
        self._of: dict[Key, list[Record]] = {}
        self._kept = 0
        self.left_out = 0

    def write(self, records: Sequence[tuple[Any, ...]]) -> None:
        for record in map(Record.of, records):
            if record.kind != RecordKind.FINDING:
                continue
            if self._kept >= MOST_FINDINGS:
                self.left_out += 1
                continue
            self._kept += 1
            key = Key(record.client, record.client_port, record.server, record.server_port)
            self._of.setdefault(key, []).append(record)

    def put_beside(self, made: Dialogue, connection: Connection, until: float) -> None:
        """Puts the findings of ``connection`` into the lines of its dialogue; ``until``: when the next one with its key
        began.
        """
        rule = self._rules[-1]
        for record in self._of.get(connection.key, ()):
            if not connection.start <= record.now < until:
                continue
            rule = self._rules[record.rule] if record.rule < len(self._rules) else rule
            spec = FINDINGS[record.finding]
            found = ModelFinding(
                name=spec.name,
                action=ACTIONS[record.action],
                to_server=record.to_server,
                verb=VERBS[record.verb].name,
                state="",
                offset=record.numbers[0],
                hypothetical=record.hypothetical,
            )
            line = beside(made.lines, found)
            verb = about(spec.name, found.verb, record.before)
            told = self._note(found, rule, verb, applied=record.applied)
            if line is None and made.lines:
                line = made.lines[0]
            if line is not None:
                line.notes.append(told)

    def _note(self, found: ModelFinding, rule: FlowRule, what: str, *, applied: bool) -> Note:
        return note(
            found.name,
            str(found.action),
            rule.policy.name,
            what=what,
            applied=applied,
            doubt=found.hypothetical,
        )


def dialogues(
    before: str | os.PathLike[str],
    behind: str | os.PathLike[str] | None,
    findings: Findings | None = None,
    *,
    title: str = "",
    ports: Sequence[int] = (25,),
    sides: bool = False,
) -> tuple[list[Dialogue], int]:
    """Dialogues from captures before and after a firewall; ``sides``: the captures are of its client's and its server's
    side.

    Also: how many packets and findings were left out for lack of memory. Raises CaptureError for a file that is no
    capture.
    """
    came = Capture(before, ports)
    left = None if behind is None else Capture(behind, ports)
    made = []
    pairs = [(one, None) for one in came.connections] if left is None else paired(came.connections, left.connections)
    starts: dict[Key, list[int]] = {}
    for one in came.connections:
        starts.setdefault(one.key, []).append(one.start)
    for one, other in pairs:
        # Stands for a connection of which nothing came out of the firewall.
        nothing = Connection(one.key, one.start, one.number) if left is not None else None
        shown = dialogue(one, other or nothing, title=title, sides=sides)
        if findings is not None:
            later = [start for start in starts[one.key] if start > one.start]
            findings.put_beside(shown, one, min(later, default=float("inf")))
        made.append(shown)
    lost = came.left_out + (left.left_out if left else 0) + (findings.left_out if findings else 0)
    return made, lost
