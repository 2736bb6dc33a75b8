"""The list of names left behind sees one that comes back, and only as an identifier."""

from __future__ import annotations

import pytest

from tests.names import old_names

pytestmark = pytest.mark.sources


def test_an_old_name_is_found_where_it_is_old_and_only_in_code() -> None:
    text = '"""fate"""\nfate = 1  # fate\nword = "fate"\n'
    assert list(old_names("cext/smtp/command.pyx", text)) == [(2, "fate", "mode")]
    assert list(old_names("src/nfmailguard/lab/evade.py", text)) == []
