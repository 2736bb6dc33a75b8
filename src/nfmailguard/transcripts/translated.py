"""A written dialogue run through the reference model, with the findings beside the lines they are about.

Promises: each finding is beside the line that contains its offset. Does not decide anything: ``smtp.reference`` did.
"""

from __future__ import annotations

from collections.abc import Sequence

from nfmailguard.plain import octets
from nfmailguard.policy.model import Policy
from nfmailguard.smtp.transcript import rows
from nfmailguard.smtp.turns import ModelFinding, Result, Turn
from nfmailguard.transcripts.model import Dialogue, Line, hidden
from nfmailguard.transcripts.reasons import note

__all__ = ["about", "beside", "translated"]


def about(finding: str, verb: str, line: bytes) -> str:
    """What a finding is about: the keyword of an EHLO reply's line, else the verb, as printable text."""
    if finding == "reply.keyword_masked":
        return octets(line[4:].split(b" ")[0].split(b"=")[0].rstrip(b"\r\n"))[:60]
    return verb or (octets(line.split(b" ")[0].rstrip(b"\r\n"))[:60] if finding == "command.denied" else "")


def translated(policy: Policy, turns: Sequence[Turn], result: Result, *, apply: bool, profile: str = "") -> Dialogue:
    """The dialogue with its findings. ``apply``: findings were carried out. ``profile``: the file with the profile's
    text, if it is not found under the policy's name.
    """
    lines, at = list[Line](), {True: 0, False: 0}
    for row in rows(turns, result):
        lines.append(Line(row.to_server, row.sent, row.seen, offset=at[row.to_server], notes=[]))
        at[row.to_server] += len(row.sent)
    for finding in result.findings:
        line = beside(lines, finding)
        if line is not None:
            what = about(finding.name, finding.verb, line.sent)
            line.notes.append(
                note(
                    *(finding.name, str(finding.action), profile or policy.name),
                    what=what,
                    applied=apply,
                    doubt=finding.hypothetical,
                )
            )
    ended = "" if result.ended is None else f"the connection ends: {result.ended}"
    return Dialogue(policy.title or policy.name, "client", "server", list(hidden(lines)), ended)


def beside(lines: Sequence[Line], finding: ModelFinding) -> Line | None:
    """The line with the byte the finding is about; if there is none, the last line before it."""
    found = None
    for line in lines:
        if line.to_server is finding.to_server and line.offset <= finding.offset:
            found = line
    return found
