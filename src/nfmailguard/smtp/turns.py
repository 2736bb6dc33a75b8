"""A dialogue and what comes of it, as values: turns in, turns and findings out.

Promises: data only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nfmailguard.policy.model import Action

__all__ = ["ModelFinding", "Result", "Turn"]


@dataclass(frozen=True)
class Turn:
    """One packet's payload, in the order the gateway saw it."""

    to_server: bool
    data: bytes


@dataclass(frozen=True)
class ModelFinding:
    """A finding; ``offset`` is the octet's place in its direction's stream."""

    name: str
    action: Action
    to_server: bool
    verb: str
    state: str
    offset: int
    hypothetical: bool
    #: How many of its name there have been with it.
    number: int = 1


@dataclass
class Result:
    """What came of a dialogue: the turns as delivered (empty where dropped), and the findings that are told."""

    turns: list[Turn] = field(default_factory=list)
    findings: list[ModelFinding] = field(default_factory=list)
    #: How many there were, told or not, by name.
    counts: Counter[str] = field(default_factory=Counter)
    #: The action that ended the flow, or None.
    ended: Action | None = None
