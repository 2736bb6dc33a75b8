"""What is expected of each cell: reads the rules of ``expected.toml``, applies them, and compares them with outcomes.

Promises: no expectation depends on a run; each names the reasons that led to it. Raises ConfigError for an invalid
table.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.lab.matrix.cells import Cell, Outcome
from nfmailguard.reading import toml

__all__ = ["Expected", "Rule", "Table", "expect", "surprises", "table"]

_FACTS = ("delivered", "ehlo", "tls", "auth", "encoded")


class Expected(msgspec.Struct, frozen=True):
    """The expected outcome of a cell, and why: the reasons of the rules that fitted, in their order."""

    delivered: bool = True
    ehlo: bool = True
    tls: bool = True
    auth: bool = True
    encoded: bool = False
    log: tuple[str, ...] = ()
    said: str = ""
    why: tuple[str, ...] = ()


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cells a rule is for; None fits all. ``profile`` contains groups or names."""

    client: tuple[str, ...] | None = None
    server: tuple[str, ...] | None = None
    profile: tuple[str, ...] | None = None
    mode: tuple[str, ...] | None = None
    delivered: bool | None = None
    ehlo: bool | None = None
    tls: bool | None = None
    auth: bool | None = None
    encoded: bool | None = None


class Then(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rule changes; ``log`` replaces what an earlier rule expected there."""

    delivered: bool | None = None
    ehlo: bool | None = None
    tls: bool | None = None
    auth: bool | None = None
    encoded: bool | None = None
    log: tuple[str, ...] | None = None
    said: str | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exception, with its reason."""

    when: When
    then: Then
    why: str

    def fits(self, cell: Cell, expected: Expected) -> bool:
        """Whether the rule is for ``cell``, for which the rules before have made ``expected``."""
        named = all(
            wanted is None or getattr(cell, axis) in wanted
            for axis in Cell._fields
            if (wanted := getattr(self.when, axis)) is not None
        )
        return named and all(getattr(self.when, fact) in (None, getattr(expected, fact)) for fact in _FACTS)

    def applied(self, expected: Expected) -> Expected:
        """``expected`` as this rule changes it."""
        changes = {name: value for name, value in msgspec.structs.asdict(self.then).items() if value is not None}
        return msgspec.structs.replace(expected, **changes, why=(*expected.why, self.why))


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is expected if no rule fits."""

    delivered: bool
    ehlo: bool
    tls: bool
    auth: bool
    why: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``expected.toml``, with the groups of profiles replaced by their members."""

    base: Base
    profiles: dict[str, tuple[str, ...]]
    rule: tuple[Rule, ...]


def _spelled(when: When, groups: dict[str, tuple[str, ...]]) -> When:
    if when.profile is None:
        return when
    names = tuple(name for word in when.profile for name in groups.get(word, (word,)))
    return msgspec.structs.replace(when, profile=names)


def read(text: str) -> Table:
    """Reads a table from its text."""
    try:
        found: Table = msgspec.convert(toml(text, "expected.toml"), Table)
    except msgspec.ValidationError as error:
        raise ConfigError(f"expected.toml: {error}") from error
    rules = tuple(msgspec.structs.replace(rule, when=_spelled(rule.when, found.profiles)) for rule in found.rule)
    return msgspec.structs.replace(found, rule=rules)


@cache
def table() -> Table:
    """The table that comes with the package."""
    text: str = resources.files("nfmailguard.lab.matrix").joinpath("expected.toml").read_text("utf-8")
    return read(text)


def expect(cell: Cell, rules: Table | None = None) -> Expected:
    """The expected outcome of ``cell``."""
    rules = rules or table()
    base = rules.base
    expected = Expected(base.delivered, base.ehlo, base.tls, base.auth, why=(base.why,))
    for rule in rules.rule:
        if rule.fits(cell, expected):
            expected = rule.applied(expected)
    return expected


def surprises(expected: Expected, outcome: Outcome) -> Iterator[str]:
    """What is not as expected, one line each."""
    if outcome.damage:
        yield outcome.damage
    if outcome.delivered != expected.delivered:
        yield "not delivered" if expected.delivered else "delivered, which it should not be"
    elif outcome.delivered:
        yield from _facts(expected, outcome)
    elif expected.said not in outcome.said:
        yield f"not delivered, and nobody said {expected.said!r}"
    if outcome.accepted != outcome.delivered and not outcome.damage:
        yield (
            "the client was told it was, and it was not" if outcome.accepted else "the client does not know that it was"
        )
    for finding in expected.log:
        if finding not in outcome.log:
            yield f"no {finding} in the log"


def _facts(expected: Expected, outcome: Outcome) -> Iterator[str]:
    for name, shown in (("ehlo", "EHLO"), ("tls", "TLS"), ("auth", "AUTH"), ("encoded", "re-encoding")):
        found, wanted = getattr(outcome, name), getattr(expected, name)
        if found is not wanted:
            yield f"{'no ' if wanted else ''}{shown}{'' if wanted else ', which it should not have'}"


def as_json(expected: Expected) -> dict[str, Any]:
    """The expectation as values for ``--json``."""
    return msgspec.structs.asdict(expected)
