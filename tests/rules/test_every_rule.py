"""Every rule of docs/streams.md has a test here and a mutation in tests/mutants, and neither names another."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.table import ROOT, Mutant, mutants, rule_of, rules, sources

pytestmark = pytest.mark.sources

HERE = sources(ROOT)
TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


def names_of_tests() -> list[str]:
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    return [name for path in sorted(files) for name in TEST.findall(path.read_text())]


def test_every_rule_has_a_test_named_after_it() -> None:
    proven = {rule_of(test) for test in names_of_tests()}
    assert [rule for rule in rules() if rule not in proven] == []
    assert len(rules()) > 50


def test_every_test_is_named_after_a_rule() -> None:
    assert [test for test in names_of_tests() if rule_of(test) is None] == []


def test_every_rule_is_told_once() -> None:
    assert [rule for rule, count in Counter(rules()).items() if count > 1] == []


def test_every_rule_has_a_mutation() -> None:
    mutated = {mutant.rule for mutant in mutants()}  # ValueError: one of no rule
    assert [rule for rule in rules() if rule not in mutated] == []


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_every_mutation_has_one_place(mutant: Mutant) -> None:
    path, text = mutant.changed(HERE)  # ValueError: no place, or several, or it changes nothing
    assert text != path.read_text()


#: What outlives a packet, of a flow, a stream, a session or a dialogue.
FIELDS = (
    "next_seq|last_ack|facts|fin|fin_seq|end|mode|state|handshake|max_window|window_end|interface"
    "|server_interface|connection|started|offers|scale|input|waiting|offered_chunking|tls_checked"
    "|body_as_commands"
    "|chunk_left|last_chunk|asked"
)
OWNER = r"(?:\bflow|\bstream|\bother|\bsession|\bexchange|\.stream\[[^\]]+\]|\btext(?=\.(?:chunk_left|last_chunk)\b))"
WRITE = re.compile(rf"{OWNER}\.({FIELDS})(?:\[[^\]]+\])? (?:[-+|&]?=) (?!=)")
FUNCTION = re.compile(r"^(?:cdef|def) .*?(\w+)\(")
#: What a structure's own room does to it, and which of these that moves: a place is who asks for it.
MOVES = {
    "outstanding.read_as": {"input"},
    "outstanding.read_no_more": {"input", "tls_checked"},
    "outstanding.take_tls": {"tls_checked"},
    "outstanding.expect_tls": {"tls_checked"},
    "outstanding.read_body_as_commands": {"body_as_commands"},
    "outstanding.wait_for_replies": {"waiting"},
    "outstanding.go_on": {"waiting"},
    "text.begin_chunk": {"chunk_left", "last_chunk"},
    "session.move_session": {"state"},
    "session.note_greeted": {"greeted"},
    "session.offer_chunking": {"offered_chunking"},
    "session.renew_offer": {"offered_chunking"},
    "session.note_unasked": {"asked"},
}
ASKED = re.compile(r"\b(" + "|".join(name.partition(".")[2] for name in MOVES) + r")\(")


def places_in_the_core() -> set[tuple[str, str]]:
    """Each function that writes one of these, and which."""
    found = set()
    for path in (ROOT / "cext").rglob("*.p[yx][xd]"):
        function = ""
        for line in path.read_text().splitlines():
            head = FUNCTION.match(line)
            function = head[1] if head else function
            fields = set(WRITE.findall(line))
            if "session.marks |= GREETED" in line:
                fields.add("greeted")
            if not head:
                fields |= {field for name in ASKED.findall(line) for field in moved_by(name)}
            found |= {(f"{path.stem}.{function}", field) for field in fields}
    return found


def moved_by(function: str) -> set[str]:
    return next(fields for name, fields in MOVES.items() if name.endswith(f".{function}"))


def test_what_a_room_does_for_others_moves_what_is_said_of_it() -> None:
    found: dict[str, set[str]] = {}
    for place, field in places_in_the_core():
        found.setdefault(place, set()).add(field)
    assert {place: found.get(place) for place in MOVES} == MOVES


def test_every_place_where_a_flows_state_moves_is_listed() -> None:
    page = (ROOT / "docs" / "streams.md").read_text()
    listed = set()
    for places, fields in re.findall(r"^\| (`\w+\.\w+`.*?) \| (`.*?) \|", page, re.MULTILINE):
        names = re.findall(r"`([\w.]+)`", places)
        listed |= {(place, field) for place in names for field in re.findall(r"`(\w+)`", fields)}
    found = {(place, field) for place, field in places_in_the_core() if place not in MOVES}
    assert len(found) > 50
    assert sorted(found - listed) == []
    # Of places that stand in one row each has all of its fields, or one of them.
    assert sorted({place for place, _ in listed} - {place for place, _ in found}) == []
    assert sorted({field for _, field in listed} - {field for _, field in found}) == []


def test_each_attack_is_held_by_tests_that_are_there() -> None:
    page = (
        (ROOT / "docs" / "testing.md").read_text().partition("## What each attack is held by")[2].partition("\n## ")[0]
    )
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 14
    for attack, named, without in rows:
        file = ""
        for place, name in re.findall(r"`([\w/]*(?:\.py)?)(?:::(\w+\*?))?`", named):
            file = place or file
            assert file.endswith(".py"), attack
            tests = TEST.findall((ROOT / "tests" / file).read_text())
            assert [test for test in tests if test == name or test.startswith(name.removesuffix("*"))], (
                f"{file}: {name}"
            )
        assert file, attack
        for rule in re.findall(r"`(\w+)`", without.partition("(")[0]):
            assert rule in rules() or rule == "ct", rule
