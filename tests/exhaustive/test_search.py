"""The exhaustive search, less deep than ``make exhaustive``; that it sees, and that it looks at all of a state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode
from tests.exhaustive.search import COOKIES, COURSES, Course, explore, world

DEPTH = 4
ROOT = Path(__file__).parents[2]
#: Pointers of a flow, and what the digest makes of them. A new one has to be followed there, too.
POINTERS = {
    "Flow": {"bucket_next", "older", "newer", "policy", "dialogue"},
    "Stream": {"backlog"},
    "Backlog": {"edits", "last_edit", "buffered", "farthest", "held"},
    "PageBuffer": {"memory"},
    "Dialogue": {"older", "newer", "flow"},
    "CommandLine": {"kept"},
    "ReplyLine": {"kept"},
    "Exchange": {"more"},
    **{name: set[str]() for name in ("Argument", "Text", "TextLines", "Parts", "Mime", "Account", "Session", "Line")},
}


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_no_course_of_events_ends_in_a_finding(course: Course) -> None:
    outcome = explore(course, DEPTH + course.less, sampled=20)
    assert not outcome.findings, "\n".join([outcome.findings[0][0], *outcome.stories[0]])
    assert not outcome.unlike
    assert outcome.states > 100


def test_states_that_are_merged_are_the_same_state() -> None:
    outcome = explore(COURSES[0], DEPTH, sampled=1)
    assert outcome.compared > 1000
    assert not outcome.unlike


@pytest.mark.parametrize("opening", ["greeted", "message begun"])
def test_it_sees_what_passes_a_gateway_that_only_looks(opening: str) -> None:
    built = world()
    engine = Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))], dry_run=True, records=False)
    explorer = built.Explorer(engine, COOKIES, True, built.OPENINGS[opening])
    while not explorer.found and explorer.depth < DEPTH:
        explorer.deepen()
    assert explorer.found
    story = explorer.tell(explorer.found[0][1])
    assert story[-1].strip().removeprefix("=> ") in built.FINDINGS[1:]


@pytest.mark.sources
def test_every_pointer_of_a_flow_is_known_to_the_digest() -> None:
    of_flows = [path for path in sorted((ROOT / "cext").rglob("*.pxd")) if path.parent.name != "events"]
    text = "\n".join(path.read_text() for path in of_flows)
    for struct, known in POINTERS.items():
        body = re.search(rf"^cdef struct {struct}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
        assert body, struct
        assert set(re.findall(r"^    \S+ \*+(\w+)", body[1], re.MULTILINE)) == known, struct
