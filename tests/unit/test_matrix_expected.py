"""The table of what `lab compare` expects: each rule has a reason, fits something and changes it, in known words."""

from __future__ import annotations

import msgspec
import pytest

from nfmailguard.errors import ConfigError
from nfmailguard.lab.matrix.cells import CLIENTS, MODES, SERVERS, Cell, Choice, Outcome, cells
from nfmailguard.lab.matrix.expected import Expected, Table, expect, read, surprises, table
from nfmailguard.policy.findings import FINDING_INDEX
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.policy.model import BannerRule, UnknownCommand

ALL = cells(Choice(CLIENTS, SERVERS, profile_names(), MODES))
RULES = table().rule


def test_the_matrix_is_as_large_as_it_is_said_to_be() -> None:
    assert len(ALL) == len(set(ALL)) == 6 * 5 * len(profile_names()) * 3
    assert len(profile_names()) >= 14


@pytest.mark.parametrize("number", range(len(RULES)))
def test_every_rule_fits_a_cell_and_changes_it(number: int) -> None:
    rule, changed = RULES[number], 0
    assert len(rule.why) > 20
    for cell in ALL:
        expected = expect(cell, table_of(number))
        if rule.fits(cell, expected):
            after = rule.applied(expected)
            changed += after != msgspec.structs.replace(expected, why=after.why)
    assert changed


def table_of(rules: int) -> Table:
    """The first so many rules."""
    return msgspec.structs.replace(table(), rule=RULES[:rules])


def test_every_name_in_the_table_is_one() -> None:
    known = {"client": CLIENTS, "server": SERVERS, "profile": profile_names(), "mode": MODES}
    for rule in RULES:
        for axis, names in known.items():
            assert set(getattr(rule.when, axis) or ()) <= set(names), rule.why
        assert set(rule.then.log or ()) <= set(FINDING_INDEX), rule.why


def test_the_groups_of_profiles_are_what_the_profiles_say() -> None:
    policies = {name: load_profile(name) for name in profile_names()}
    groups = {name: set(members) for name, members in table().profiles.items()}
    no_ehlo = {name for name, policy in policies.items() if "EHLO" not in policy.commands.allow}
    assert groups["no-ehlo"] == no_ehlo
    hidden = {name for name, policy in policies.items() if "STARTTLS" not in policy.replies.keywords}
    assert groups["no-starttls"] == hidden - no_ehlo
    rules = {name: policy.banner.rule for name, policy in policies.items()}
    assert groups["stars"] == {name for name, rule in rules.items() if rule not in (BannerRule.NONE, BannerRule.B40)}
    assert groups["cmap"] == {name for name, rule in rules.items() if rule is BannerRule.B40}
    answering = (UnknownCommand.OK, UnknownCommand.NOOP)
    assert groups["answers-ok"] == {name for name, one in policies.items() if one.commands.unknown in answering}


def test_what_is_not_delivered_has_a_word_to_look_for() -> None:
    for cell in ALL:
        expected = expect(cell)
        assert bool(expected.said) is not expected.delivered, cell


def test_under_monitor_everything_is_as_without_a_gateway() -> None:
    for cell in ALL:
        if cell.mode == "monitor":
            expected = expect(cell)
            assert expected.tls is (cell.server != "opensmtpd")
            assert expected.delivered is (expected.tls or cell.client != "msmtp")
            assert expected.ehlo
            account = cell.client not in ("postfix", "msmtp") and cell.server not in ("sendmail", "opensmtpd")
            assert expected.auth is account


def good(**changes: object) -> Outcome:
    return Outcome(**{"delivered": True, "ehlo": True, "tls": True, "auth": True, "accepted": True, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "surprise"),
    [
        (good(), None),
        (good(delivered=False), "not delivered"),
        (good(damage="its body is another one", delivered=False, accepted=True), "its body is another one"),
        (good(ehlo=False), "no EHLO"),
        (good(tls=False), "no TLS"),
        (good(auth=False), "no AUTH"),
        (good(accepted=False), "the client does not know that it was"),
    ],
)
def test_a_surprise_is_named(outcome: Outcome, surprise: str | None) -> None:
    found = list(surprises(Expected(), outcome))
    assert found == [] if surprise is None else surprise in found


def test_a_refusal_for_another_reason_is_a_surprise() -> None:
    expected = Expected(delivered=False, said="503", log=("command.denied",))
    refused = Outcome(False, said="503 5.5.1 send HELO first", log={"command.denied": 1})
    assert list(surprises(expected, refused)) == []
    assert list(surprises(expected, Outcome(False, said="timed out"))) == [
        "not delivered, and nobody said '503'",
        "no command.denied in the log",
    ]
    assert "delivered, which it should not be" in list(surprises(expected, good()))


@pytest.mark.parametrize(
    "text", ["[base]\n", '[base]\ndelivered=true\nehlo=true\ntls=true\nauth=true\nwhy=""\nrule=1\n', "base = "]
)
def test_a_table_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected\.toml"):
        read(text)


def test_the_last_rule_that_fits_wins() -> None:
    assert expect(Cell("curl", "exim", "pix44", "enforce")).said == "503"
    assert expect(Cell("postfix", "exim", "pix44", "enforce")).delivered
    assert expect(Cell("msmtp", "exim", "pix44", "enforce")).said == "STARTTLS"
