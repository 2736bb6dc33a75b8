"""The reason for a finding, and the source of its rule: the comment of the profile's own line.

Promises: every finding has an understandable reason, and a source where there is one. A source is an id of
docs/sources.md, an RFC, "inferred" or "ours", as the profile says it. Does not decide anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from nfmailguard.errors import ConfigError
from nfmailguard.policy.findings import FINDING_INDEX, FINDINGS
from nfmailguard.policy.limits import LIMITS
from nfmailguard.policy.load import profile_text
from nfmailguard.transcripts.model import Note

__all__ = ["SETTING_OF", "note", "reason", "source"]

#: The setting that each finding depends on.
SETTING_OF: Mapping[str, str] = {
    **{limit.finding: limit.setting for limit in LIMITS},
    "banner.masked": "banner.rule",
    "command.denied": "commands.allow",
    "reply.keyword_masked": "replies.keywords",
    "reply.turned_ok": "commands.unknown",
    "address.illegal_character": "address.characters",
    "bug.dot_crlf": "bugs.dot_crlf",
    "bug.data_bypass": "bugs.data_bypass",
    "bug.noop_body": "bugs.noop_body",
}
#: Findings that follow the gateway's own rules and no profile setting: the document that describes them, by the
#: finding's area.
_OURS = {
    "stream": "docs/streams.md", "flow": "docs/streams.md", "packet": "docs/streams.md", "tls": "RFC 3207 4",
    "restore": "docs/restore.md", "upstream": "docs/restore.md", "command": "docs/streams.md",
    "reply": "docs/streams.md", "data": "docs/streams.md",
}  # fmt: skip
_TABLE = re.compile(r"\s*\[([\w.]+)\]")
_KEY = re.compile(r'\s*("[\w.]+"|\w+)\s*=')
_COMMENT = re.compile(r"#\s*(.+)$")


@lru_cache(64)
def _comments(profile: str) -> Mapping[str, str]:
    """The comment of each setting of a profile; empty for a profile that cannot be read any more."""
    try:
        text = profile_text(profile)
    except ConfigError:
        return {}
    found, table = dict[str, str](), ""
    for line in text.split("\n"):
        begun, comment = _TABLE.match(line), _COMMENT.search(line)
        key = _KEY.match(line)
        if begun:
            table = begun[1]
        elif key and comment:
            found[f"{table}.{key[1].strip(chr(34))}"] = comment[1].strip()
    return found


def source(finding: str, profile: str) -> str:
    """The source of the rule of ``finding`` under ``profile`` (a name, or the path of a file); empty: not given."""
    comments = _comments(profile)
    for key in (f"actions.{finding}", SETTING_OF.get(finding, "")):
        if key in comments:
            return comments[key]
    return "" if finding in SETTING_OF else _OURS.get(finding.partition(".")[0], "")


def reason(finding: str, what: str = "") -> str:
    """The reason in words; ``what``: the keyword or verb it is about, as printable text."""
    if finding == "command.denied":
        return f"the verb {what or 'here'} is not let through by this profile"
    if finding == "reply.keyword_masked":
        return f"the EHLO keyword {what or 'here'} is hidden by this profile"
    meaning = FINDINGS[FINDING_INDEX[finding]].meaning if finding in FINDING_INDEX else ""
    return f"{meaning} ({what})" if what and meaning else meaning


def note(finding: str, action: str, profile: str, *, what: str = "", applied: bool = True, doubt: bool = False) -> Note:
    """The note for the margin; ``doubt``: hypothetical, an earlier change would have altered the dialogue."""
    return Note(finding, action, reason(finding, what), source(finding, profile), applied, doubt)
