"""A dialogue and its result as values: turns go in, turns and findings come out.

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
    """A finding; ``offset`` is the byte's place in its direction's stream."""

    name: str
    action: Action
    to_server: bool
    verb: str
    state: str
    offset: int
    hypothetical: bool
    #: How many findings of this name there have been so far, this one included.
    number: int = 1


@dataclass
class Result:
    """The result of a dialogue: the turns as delivered (empty where dropped), and the findings that are reported."""

    turns: list[Turn] = field(default_factory=list)
    findings: list[ModelFinding] = field(default_factory=list)
    #: Number of findings by name, whether reported or not.
    counts: Counter[str] = field(default_factory=Counter)
    #: The action that ended the flow (drop or reset); None: the flow was not ended.
    ended: Action | None = None
