"""docs/matrix.md says what the table of expectations says, and its recorded run what that expects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfmailguard.lab.matrix.cells import CLIENTS, MODES, SERVERS, Cell, Outcome
from nfmailguard.lab.matrix.expected import expect
from nfmailguard.lab.matrix.report import REASONS, Seen
from nfmailguard.policy.load import profile_names

pytestmark = pytest.mark.sources

PAGE = (Path(__file__).parents[2] / "docs" / "matrix.md").read_text()
_TITLE = re.compile(r"^(enforce|monitor|restore): ([a-z0-9-]+(?:, [a-z0-9-]+)*)$")


def test_every_reason_stands_on_the_page_under_its_number() -> None:
    found = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE))
    assert found == {str(number): why for number, why in enumerate(REASONS, 1)}


def recorded() -> dict[tuple[str, str], dict[str, list[str]]]:
    """Of each mode and profile of the recorded run the words of each client, server by server."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in PAGE.partition("## The last whole run")[2].splitlines():
        if title := _TITLE.match(line.strip()):
            current = {}
            found |= {(title[1], profile): current for profile in title[2].split(", ")}
        elif line.split()[:1] and line.split()[0] in CLIENTS:
            name, *words = re.split(r" {2,}", line.strip())
            current[name] = words[: len(SERVERS)]
    return found


def expected_word(cell: Cell) -> str:
    one = expect(cell)
    facts = (one.ehlo, one.tls, one.auth) if one.delivered else (None, None, None)
    return Seen(cell, one, Outcome(one.delivered, "", one.encoded, *facts, said=one.said), ()).word


def test_the_recorded_run_has_every_mode_and_profile() -> None:
    assert set(recorded()) == {(mode, profile) for mode in MODES for profile in profile_names()}


@pytest.mark.parametrize("mode", MODES)
def test_the_recorded_run_is_what_is_expected(mode: str) -> None:
    for profile in profile_names():
        for client, words in recorded()[mode, profile].items():
            wanted = [expected_word(Cell(client, server, profile, mode)) for server in SERVERS]
            # The reply that ends it is the server's to choose, but where the table names it.
            both = zip(words, wanted, strict=True)
            shown = [word[:2] if word.startswith("NO") and want == "NO" else word for word, want in both]
            assert shown == wanted, f"{mode} {profile} {client}"
        assert set(recorded()[mode, profile]) == set(CLIENTS)
