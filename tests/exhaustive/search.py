"""The exhaustive search: every course of events up to a depth, between an adversary and a server's kernel.

Promises: no finding means that none of the courses it went through ends in one. Equal states are merged, and
of the merged ones a sample is compared by what every event makes of them. Does not know what a state is.

    python -m tests.exhaustive.search [--depth 8] [--only WORD]... [--sample 2000] [--first]

Exits 1 with a finding, told as the shortest course of events that leads to it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.fuzz.build import build_harness

__all__ = ["COURSES", "Course", "Outcome", "explore", "harness", "world"]

SERVERS = ("fresh numbers", "numbers from a clock", "SYN cookies", "SYN cookies near each other")
FRESH, CLOCK, COOKIES, NEAR = range(4)


@dataclass(frozen=True)
class Course:
    """What a search begins with; ``less``: how much less deep it goes than the deepest."""

    profile: str
    opening: str
    server: int
    less: int = 0

    @property
    def name(self) -> str:
        return f"{self.profile}, {self.opening}, {SERVERS[self.server]}"


#: The deepest ones are those in which a new connection can be taken for the old one; the others look about.
COURSES = (
    Course("pix63", "message begun", COOKIES),
    Course("asa-tls", "behind STARTTLS", COOKIES),
    Course("pix63", "greeted", COOKIES),
    Course("pix63", "nothing yet", NEAR),
    Course("pix63", "message begun", CLOCK, less=1),
    Course("asa-tls", "behind STARTTLS", CLOCK, less=1),
    Course("pix63", "message, server gone", COOKIES),
    Course("asa-tls", "behind STARTTLS, server gone", COOKIES),
    Course("pix63", "message, a line of it lost", COOKIES, less=1),
    Course("pix63", "asked twice, message begun", COOKIES, less=1),
    Course("pix63", "nothing yet", CLOCK, less=1),
    Course("pix63", "message begun", FRESH, less=1),
    Course("asa-tls", "behind STARTTLS", FRESH, less=1),
    Course("asa-tls", "message begun", COOKIES, less=1),
)


@dataclass
class Outcome:
    """What a course has come to."""

    course: Course
    depth: int = 0
    states: int = 0
    transitions: int = 0
    compared: int = 0
    seconds: float = 0.0
    findings: list[tuple[str, list[int]]] = field(default_factory=list)
    unlike: list[tuple[list[int], list[int]]] = field(default_factory=list)
    stories: list[list[str]] = field(default_factory=list)


class Harness(NamedTuple):
    """Its extensions."""

    peer: Any
    world: Any


@cache
def harness() -> Harness:
    """The harness, built."""
    build_harness(environment={"CFLAGS": "-O2 -g1"}, folder="tests/exhaustive")
    return Harness(*(importlib.import_module(f"tests.exhaustive.{name}") for name in Harness._fields))


def world() -> Any:
    """The part that searches."""
    return harness().world


def engine_for(profile: str) -> Engine:
    rule = FlowRule(Mode.ENFORCE, load_profile(profile))
    return Engine([rule], limits=Limits(flows=4, memory=1 << 20, startup=0.0), records=False)


def explore(course: Course, depth: int, *, sampled: int = 0, first: bool = False) -> Outcome:
    """One course, to the depth; ``first``: only as far as the first finding."""
    built = world()
    denies_ehlo = "EHLO" not in load_profile(course.profile).commands.allow
    opening = built.OPENINGS[course.opening]
    explorer = built.Explorer(engine_for(course.profile), course.server, denies_ehlo, opening, sampled=sampled)
    began = time.monotonic()
    while explorer.depth < depth - course.less and explorer.deepen() and not (first and explorer.found):
        pass
    outcome = Outcome(course, explorer.depth, explorer.states, explorer.transitions, explorer.compared)
    outcome.seconds = time.monotonic() - began
    outcome.unlike = explorer.unlike
    told: set[int] = set()
    for what, events in explorer.found:
        outcome.findings.append((built.FINDINGS[what], events))
        if what not in told:  # the first of a kind is the shortest
            told.add(what)
            outcome.stories.append(explorer.tell(events))
    return outcome


def outcomes(depth: int, words: list[str], sampled: int, *, first: bool = False) -> Iterator[Outcome]:
    """Of all courses with these words in their names; ``first``: until there is a finding."""
    for course in COURSES:
        if all(word in course.name for word in words):
            outcome = explore(course, depth, sampled=sampled, first=first)
            yield outcome
            if first and outcome.findings:
                return


def _say(text: str = "") -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=8, help="events behind the opening (default: %(default)s)")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="courses with this in their name")
    parser.add_argument("--sample", type=int, default=2000, help="of so many merged states one is compared")
    parser.add_argument("--first", action="store_true", help="until there is a finding")
    options = parser.parse_args()
    bad = states = transitions = compared = 0
    began = time.monotonic()
    _say(f"{'depth':>5} {'states':>10} {'transitions':>12} {'compared':>8} {'seconds':>8} {'findings':>8}  course")
    for outcome in outcomes(options.depth, options.only, options.sample, first=options.first):
        _say(
            f"{outcome.depth:5} {outcome.states:10,} {outcome.transitions:12,} {outcome.compared:8,}"
            f" {outcome.seconds:8.1f} {len(outcome.findings):8}  {outcome.course.name}"
        )
        for (what, events), story in zip(outcome.findings, outcome.stories, strict=False):
            _say(f"\n{what}, after {len(events)} events:")
            _say("\n".join(story) + "\n")
        for one, other in outcome.unlike:
            _say(f"\nnot one state: {one} and {other}\n")
        bad += len(outcome.findings) + len(outcome.unlike)
        states, transitions = states + outcome.states, transitions + outcome.transitions
        compared += outcome.compared
    _say(
        f"{states:,} states, {transitions:,} transitions in {time.monotonic() - began:.0f} s;"
        f" {compared:,} merged states compared; {bad} findings"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
