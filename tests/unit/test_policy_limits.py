"""The table of limits: whole, and what is derived from it."""

from __future__ import annotations

import typing

import msgspec
import pytest

from nfmailguard.errors import ConfigError
from nfmailguard.policy.findings import FINDING_INDEX
from nfmailguard.policy.limits import LIMITS, MOST, PolicyLimit
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import Policy
from nfmailguard.transcripts.reasons import SETTING_OF
from nfmailguard.verify.difference import differences


def numbers_of(policy: type) -> set[str]:
    """Every setting of a policy that is a number or none."""
    return {
        f"{part.name}.{field.name}"
        for part in msgspec.structs.fields(policy)
        if isinstance(part.type, type) and issubclass(part.type, msgspec.Struct)
        for field in msgspec.structs.fields(part.type)
        if set(typing.get_args(field.type)) == {int, type(None)}
    }


def test_every_number_of_a_policy_that_may_be_none_is_in_the_table() -> None:
    assert {limit.setting for limit in LIMITS} == numbers_of(Policy)
    assert len({limit.name for limit in LIMITS}) == len(LIMITS)
    assert all(limit.finding in FINDING_INDEX for limit in LIMITS)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
@pytest.mark.parametrize("value", [0, -5, MOST + 1])
def test_a_number_that_cannot_be_a_limit_is_refused(limit: PolicyLimit, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{limit.setting}: {value}; a positive number, or none"):
        override(load_profile("asa"), {limit.setting: str(value)})


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
def test_another_number_is_said_in_words(limit: PolicyLimit) -> None:
    one, other = (override(load_profile("rfc821"), {limit.setting: value}) for value in ("none", "1234"))
    assert (limit.of(one), limit.of(other)) == (None, 1234)
    (found,) = differences(one, other)
    assert found.setting == limit.setting
    assert f"{limit.counted} are not limited" in found.meaning
    assert f"{limit.counted} over 1,234" in found.meaning
    assert SETTING_OF[limit.finding] == limit.setting


def test_a_unit_is_one_word() -> None:
    assert {limit.unit for limit in LIMITS} == {"bytes", "recipients", "fields"}
