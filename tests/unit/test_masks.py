"""Masks as plain values: what is recognised as one."""

import pytest

from nfmailguard.policy.load import load_profile
from nfmailguard.smtp.masks import masked_banner
from nfmailguard.smtp.restore import keyword_masked

#: S-HVERA: a Sendmail 8.10.1 greeting (its host is invented), and what a PIX published of it.
SENDMAIL = b"220 mailhost.example.co ESMTP Sendmail 8.10.1/8.10.1; Mon, 20 Oct 2003 09:13:45 -0700"
PUBLISHED = b"220 **************************************0******0*********20 ****200**0*********0*00"


def masked(rule_of: str, greeting: bytes) -> bytes:
    rules = load_profile(rule_of).banner
    return bytes(masked_banner(rules, at, value, (b"\0" + greeting)[at]) for at, value in enumerate(greeting))


@pytest.mark.parametrize("profile", ["pix51", "pix63", "fwsm2"])
def test_the_published_greeting_is_reproduced_byte_for_byte(profile: str) -> None:
    assert masked(profile, SENDMAIL) == PUBLISHED


@pytest.mark.parametrize("profile", ["pix44", "pix70", "asa", "asa-log", "asa-tls", "asa84"])
def test_other_rules_keep_no_space(profile: str) -> None:
    assert masked(profile, SENDMAIL) == b"220 " + b"*" * (len(SENDMAIL) - 4)


@pytest.mark.parametrize(
    ("text", "before", "is_masked"),
    [
        (b"XB", 1, True),  # 250 OK of Exchange, the second of two
        (b"XA", 1, False),
        (b"XC", 1, False),
        (b"X", 0, False),
        (b"XXXA", 0, True),
        (b"XXXB", 0, True),  # one line may be missing
        (b"XXXA", 1, False),
        (b"XXXX", 0, True),
    ],
)
def test_a_keyword_of_two_letters_is_masked_by_the_next_letter(text: bytes, before: int, is_masked: bool) -> None:
    assert keyword_masked(text, before) is is_masked
