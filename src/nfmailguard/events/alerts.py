"""EVE ``alert`` records: findings for consumers that list only alerts.

The signature id is the finding's own (``policy.findings``). Does not know how an event is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, Action

__all__ = ["CATEGORIES", "alert"]

#: Suricata's classification (text and priority) of an alert, by the finding's area or its full name.
_BY_FINDING: Mapping[str, tuple[str, int]] = {
    "data.smuggling_shape": ("Attempted Administrator Privilege Gain", 1),
    "stream.conflicting_retransmission": ("Potentially Bad Traffic", 2),
    "address": ("Potentially Bad Traffic", 2),
    "restore": ("Misc activity", 3),
    "upstream": ("Misc activity", 3),
    "flow": ("Misc activity", 3),
}
_DECODE = ("Generic Protocol Command Decode", 3)
CATEGORIES = (*_BY_FINDING.values(), _DECODE)
_BLOCKS = (Action.DROP, Action.DROP_CONNECTION, Action.RESET)


def alert(finding: str, action: Action, *, applied: bool) -> dict[str, Any]:
    """The body of an alert, as in Suricata."""
    spec = FINDINGS[FINDING_INDEX[finding]]
    category, severity = _BY_FINDING.get(finding, _BY_FINDING.get(finding.partition(".")[0], _DECODE))
    return {
        "action": "blocked" if applied and action in _BLOCKS else "allowed",
        "gid": 1,
        "signature_id": spec.signature,
        "rev": 1,
        "signature": f"NFMAILGUARD {finding}: {spec.meaning}",
        "category": category,
        "severity": severity,
    }
