"""What one profile does otherwise than another, and what a reload would change: a line a key, nothing raw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nfmailguard.policy.differences import policies
from nfmailguard.policy.load import load_profile, override, profile_names
from nfmailguard.policy.model import FINDINGS, Policy


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_differs_from_itself_in_nothing(name: str) -> None:
    assert list(policies(load_profile(name), load_profile(name))) == []


def test_each_key_that_differs_is_a_line() -> None:
    first = load_profile("pix63")
    second = override(
        first,
        {"commands.allow": "HELO,MAIL,RCPT,DATA,RSET,NOOP,VRFY", "banner.rule": "none", "actions.command.nul": "reset"},
    )
    assert sorted(policies(first, second)) == [
        f"actions.command.nul: {first.action('command.nul')} -> reset",
        "banner.rule: b51 -> none",
        "commands.allow: -QUIT +VRFY",
    ]


def test_the_order_of_a_list_is_told() -> None:
    first = load_profile("pix63")
    commands = msgspec.structs.replace(first.commands, allow=tuple(reversed(first.commands.allow)))
    assert list(policies(first, msgspec.structs.replace(first, commands=commands))) == [
        "commands.allow: in another order"
    ]


def test_an_action_that_is_the_default_anyway_is_none() -> None:
    spec = FINDINGS[0]
    assert list(policies(Policy("a"), Policy("b", actions={spec.name: spec.default}))) == []


def test_the_command_tells_and_exits_as_diff_does(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    command = [sys.executable, "-m", "nfmailguard", "profile"]
    own.write_text(subprocess.run([*command, "show", "asa"], capture_output=True, text=True, check=True).stdout)
    for other, code in ((str(own), 0), ("pix63", 1)):
        done = subprocess.run([*command, "diff", "asa", other], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        assert bool(done.stdout) == bool(code)
    assert "banner.rule: basa -> b51\n" in done.stdout
    wrong = subprocess.run([*command, "diff", "asa", "none"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
