"""Configurations of PIX and ASA boxes: what of them becomes a policy, and that no line is lost."""

from __future__ import annotations

import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.errors import ConfigError
from nfmailguard.policy.cisco.read import Import, read
from nfmailguard.policy.cisco.text import Status
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import Action, BannerRule, EhloMask, Policy
from tests.support.cisco import ASA, DEFAULT_MAP, PIX, esmtp_map, nonsense
from tests.support.dialogue import Dialogue


def rules(policy: Policy) -> Policy:
    """What a policy does, whatever it is called."""
    return msgspec.structs.replace(policy, name="", title="")


def named(found: Import, status: Status) -> dict[int, str]:
    return {line.number: line.what for line in found.of(status)}


def mapped(*lines: str) -> tuple[Policy, Import]:
    """The policy of one map with these lines."""
    found = read("\n".join(["policy-map type inspect esmtp m", *lines]))
    (policy,) = found.policies
    assert override(policy, {}) == policy, "a policy that the loader would take as well"
    return policy, found


def test_the_manuals_default_map_is_the_asa_profile() -> None:
    found = read(DEFAULT_MAP)
    (policy,) = found.policies
    assert (policy.name, policy.title) == ("_default_esmtp_map", "Default ESMTP policy-map")
    assert rules(policy) == rules(load_profile("asa"))
    assert found.ports == (25,)
    assert named(found, Status.NOT_HONOURED) == {}
    assert len(found.of(Status.HONOURED)) == len(DEFAULT_MAP.splitlines())


def test_the_default_map_with_tls_is_the_asa_tls_profile() -> None:
    (policy,) = read(DEFAULT_MAP.replace("no allow-tls", "allow-tls action log")).policies
    assert rules(policy) == rules(load_profile("asa-tls"))


@pytest.mark.parametrize("prompt", ["", "asa(config-pmap)# ", "asa/ctx-1(config-pmap-c)#"])
def test_text_out_of_a_manual_needs_no_indentation(prompt: str) -> None:
    head, *lines = (line.strip() for line in DEFAULT_MAP.splitlines())
    pasted = "\n".join([head, *(prompt + line for line in lines), "prompt hostname context", "exit"])
    found = read(pasted)
    assert [rules(policy) for policy in found.policies] == [rules(load_profile("asa"))]
    assert found.unrelated == 2


def test_a_running_asa_is_read_line_by_line() -> None:
    found = read(ASA)
    strict, partner, unused = found.policies
    assert [one.ports for one in found.maps] == [("25",), ("2525-2526",), ()]
    assert found.ports == (25, 2525, 2526)
    assert (strict.name, strict.title) == ("mail-map", "Relays: strict towards the world")
    assert strict.banner.rule is BannerRule.BASA
    assert set(strict.commands.allow) == set(load_profile("asa-tls").commands.allow) - {"VRFY"}
    assert strict.replies.keywords == ("8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SIZE", "STARTTLS")
    assert (strict.commands.line_length, strict.address.recipients) == (512, 200)
    assert strict.action("recipients.too_many") is Action.RESET
    assert partner.banner.rule is BannerRule.NONE
    assert partner.address.characters == "|`"
    assert partner.action("address.illegal_character") is Action.DROP_CONNECTION
    assert (partner.commands.line_length, partner.data.header_line_length) == (1024, 4096)
    assert unused.replies.ehlo is EhloMask.NONE


def test_no_line_of_a_running_asa_is_lost() -> None:
    found = read(ASA)
    lines = ASA.splitlines()
    told = {line.number for line in found.lines}
    assert all(lines[line.number - 1].strip() == line.text for line in found.lines)
    assert not found.of(Status.ERROR)
    said = sum(1 for line in lines if line.strip() and line.strip()[0] not in "!:")
    assert said == len(found.lines) + found.unrelated
    ours = re.compile(r"esmtp|ehlo|rcpt|sender-address|mime|allow-tls|mail-relay|special-char|spam-domain|10800\d")
    free_text = ("banner", "description", "name ", "hostname")
    expected = {
        number
        for number, line in enumerate(lines, start=1)
        if ours.search(line.lower()) and not line.strip().startswith(free_text)
    }
    assert expected - told == set()
    inside = range(lines.index("policy-map type inspect esmtp mail-map"), lines.index("policy-map global_policy"))
    assert {number + 1 for number in inside} <= told


def test_what_is_not_honoured_says_why() -> None:
    found = read(ASA)
    why = {line.text: line.what for line in found.of(Status.NOT_HONOURED)}
    assert why["match mime filetype regex class attachments"] == "MIME parts are not read"
    assert why["match sender-address regex spam-domain"] == "addresses are not compared with patterns"
    assert why['regex spam-domain "@bulk\\.example\\.net"'].startswith("needed by line ")
    assert why["match cmd line length gt 400"].startswith("a policy has one limit of this kind, that of line ")
    assert why["drop-connection send-protocol-error log"] == "no protocol error is sent: read as drop-connection"
    assert why["inspect esmtp"] == "no service-policy applies policy-map lab_policy"
    assert why["access-list partner_mail extended deny tcp host 203.0.113.66 any eq 2525"] == (
        "not inspected: a [[rule]] says so (from, to)"
    )
    assert why["logging message 108007 level notifications"].startswith("what is logged")
    line = next(line for line in found.lines if line.text == "match mime encoding binary")
    assert str(line) == f"line {line.number}: match mime encoding binary: not honoured: MIME parts are not read"


def test_a_running_pix_is_its_release_on_its_ports() -> None:
    found = read(PIX)
    assert found.policies == (load_profile("pix63"),)
    assert found.ports == (25, 2525, 2527)
    assert named(found, Status.NOT_HONOURED) == named(found, Status.ERROR) == {}
    assert [line.text for line in found.lines] == [
        "PIX Version 6.3(5)",
        "fixup protocol smtp 25",
        "fixup protocol smtp 2525-2527",
        "no fixup protocol smtp 2526",
    ]


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("PIX Version 4.2(2)\nfixup protocol smtp 25", "pix42"),
        ("PIX Version 4.4(8)\nfixup protocol smtp 25", "pix44"),
        ("PIX Version 5.0(3)\nfixup protocol smtp 25", "pix44"),
        ("PIX Version 5.1(2)\nfixup protocol smtp 25", "pix51"),
        ("Cisco PIX Firewall Version 6.2(2)\nfixup protocol smtp", "pix63"),
        ("fixup protocol smtp 25", "pix63"),
        ("mailhost 192.0.2.25 10.0.0.25", "pix40"),
        ("FWSM Version 2.3(4)\nfixup protocol smtp 25", "fwsm2"),
        ("policy-map p\n class inspection_default\n  inspect smtp", "pix63"),
        ("policy-map p\n class inspection_default\n  inspect esmtp", "asa"),
        ("PIX Version 7.0(8)\npolicy-map p\n class inspection_default\n  inspect esmtp", "pix70"),
        ("PIX Version 7.2(4)\npolicy-map p\n class inspection_default\n  inspect esmtp", "asa"),
        ("ASA Version 8.4(1)\npolicy-map p\n class inspection_default\n  inspect esmtp", "asa84"),
        ("ASA Version 8.4(2)\npolicy-map p\n class inspection_default\n  inspect esmtp", "asa"),
        ("ASA Version 9.8(4)\npolicy-map p\n class inspection_default\n  inspect esmtp", "asa"),
        ("ip inspect name fw smtp", "ios-smtp"),
        ("ip inspect name fw esmtp", "ios-esmtp"),
    ],
)
def test_a_box_without_maps_is_its_release(text: str, profile: str) -> None:
    found = read(text)
    assert found.policies == (load_profile(profile),)
    assert found.ports == (25,)
    assert found.unrelated == 0
    assert not found.of(Status.NOT_HONOURED)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("no fixup protocol smtp 25", ()),
        ("fixup protocol smtp 2525\nno fixup protocol smtp", (25,)),
        ("fixup protocol smtp 25 587 2500-2502", (25, 587, 2500, 2501, 2502)),
        ("fixup protocol smtp smtp", (25,)),
        ("hostname pix", ()),
    ],
)
def test_ports_are_those_the_lines_leave(text: str, ports: tuple[int, ...]) -> None:
    found = read(text)
    assert found.ports == ports
    assert bool(found.maps) is bool(ports)


def test_verbs_that_do_not_pass_share_one_action() -> None:
    policy, _ = mapped("match not cmd verb helo mail rcpt data rset noop quit", "reset log")
    assert sorted(policy.commands.allow) == sorted(load_profile("pix63").commands.allow)
    assert policy.action("command.denied") is Action.RESET
    policy, found = mapped("match cmd verb vrfy help", "drop-connection log")
    assert {"VRFY", "HELP"}.isdisjoint(policy.commands.allow)
    assert policy.action("command.denied") is Action.MASK
    assert "share one action, here mask, not drop-connection" in named(found, Status.NOT_HONOURED)[2]
    policy, found = mapped("match cmd verb vrfy", "log", "match cmd verb unknown", "log")
    assert "VRFY" in policy.commands.allow
    assert set(named(found, Status.NOT_HONOURED)) == {2, 3}


def test_keywords_pass_by_a_list_or_not_at_all() -> None:
    policy, found = mapped("match ehlo-reply-parameter auth", "mask")
    assert policy.replies.ehlo is EhloMask.NONE
    assert "only together with `others`" in named(found, Status.NOT_HONOURED)[2]
    policy, found = mapped("match ehlo-reply-parameter others auth", "mask", "match ehlo-reply-parameter size", "log")
    assert "AUTH" not in policy.replies.keywords
    assert "SIZE" in policy.replies.keywords
    assert "here mask, not log" in named(found, Status.NOT_HONOURED)[4]


def test_of_several_limits_the_strongest_stands() -> None:
    policy, found = mapped(
        *("match cmd line length gt 300", "log", "match cmd line length gt 700", "reset"),
        *("match cmd line length gt 600", "drop-connection log", "match cmd line length gt 900", "log"),
    )
    assert (policy.commands.line_length, policy.action("command.too_long")) == (600, Action.DROP_CONNECTION)
    assert set(named(found, Status.NOT_HONOURED)) == {2, 3}
    assert "never reached: line 6" in named(found, Status.HONOURED)[8]


def test_a_class_stands_for_its_conditions() -> None:
    inside = "\n match cmd line length gt 512\n match sender-address length gt 99\n"
    text = "class-map type inspect esmtp {} c" + inside + "policy-map type inspect esmtp m\n class c\n  reset log\n"
    (policy,) = read(text.format("match-any")).policies
    assert (policy.commands.line_length, policy.address.sender_length) == (512, 99)
    assert policy.action("address.too_long") is Action.RESET
    found = read(text.format("match-all"))
    assert found.policies[0].commands.line_length is None
    assert set(named(found, Status.NOT_HONOURED)) == {2, 3, 5, 6}
    assert set(named(read(text.format("match-any").split("policy-map")[0]), Status.NOT_HONOURED)) == {1, 2, 3}


@pytest.mark.parametrize(
    ("lines", "number", "told"),
    [
        (["match cmd line length gt many"], 2, "'many' is no number of bytes; write one from 1 to 2147483647"),
        (["match cmd line length gt 0"], 2, "'0' is no number"),
        (["match cmd line length gt " + "9" * 5000], 2, "is no number"),
        (["match cmd RCPT count 100"], 2, "write match cmd rcpt count gt NUMBER"),
        (["match cmd verb"], 2, "write match cmd verb NAME"),
        (["match mime filetype regex"], 2, "write match mime filetype regex NAME"),
        (["match mime filetype regex gone", "log"], 2, "no regex gone in this text; give all of it"),
        (["match cmd line length gt 5", "log log"], 3, "'log' does not belong here; write log"),
        (["log"], 2, "an action without a match before it"),
        (["class gone", "log"], 2, "no class-map type inspect esmtp gone in this text"),
        (["parameters", "special-character"], 3, "write special-character action drop-connection or log"),
        (["parameters", "allow-tls log"], 3, "write allow-tls, or allow-tls action log"),
        (["!", "fixup protocol smtp 70000"], 3, "'70000' is no port known here; write its number, 1 to 65535"),
        (["!", "fixup protocol smtp 30-25"], 3, "the first port is above the last; write 25-30"),
        (["!", "mailhost 192.0.2.1"], 3, "write mailhost OUTSIDE-ADDRESS INSIDE-ADDRESS"),
        (["policy-map p", " class c", "  inspect esmtp gone"], 4, "no policy-map type inspect esmtp gone"),
        (["policy-map p", " class gone", "  inspect esmtp m"], 3, "no class-map gone in this text"),
        (["policy-map p", " inspect esmtp m"], 3, "stands in no class"),
        (["policy-map type inspect esmtp"], 2, "write policy-map type inspect esmtp NAME"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_write(lines: list[str], number: int, told: str) -> None:
    found = read("\n".join(["policy-map type inspect esmtp m", *lines]))
    assert told in named(found, Status.ERROR)[number]


@pytest.mark.parametrize(
    "line",
    [
        "match cmd colour blue\n log",
        "mtach cmd line length gt 512\n drop-connection log",
        "match cmd line length gt 512\n dorp-connection log",
        "parameters\nsome-day yes",
        "no match cmd line length gt 5",
        "match cmd line length gt 512\n mask",
        "match not cmd line length gt 512\n log",
        "match cmd line length gt 512",
        "match cmd verb wiz\n mask",
    ],
)
def test_what_is_not_known_is_not_taken_for_wrong(line: str) -> None:
    _, found = mapped(*line.splitlines())
    assert set(named(found, Status.NOT_HONOURED)) >= {len(line.splitlines()) + 1}
    assert not found.of(Status.ERROR)


@pytest.mark.parametrize(
    "line",
    [
        "mask-banner",
        "inspect esmtp m",
        "no policy-map type inspect esmtp m",
        "service-policy smtp mail",
        "match ehlo-reply-parameter others",
        "no ip inspect name fw smtp\nip inspect name fw smtp timeout 30\ninterface e0\n ip inspect fw in",
        "policy-map type inspect smtp z\n class type inspect smtp y\n  reset",
    ],
)
def test_a_stray_line_of_mail_inspection_is_named(line: str) -> None:
    assert read(f"hostname fw\n{line}").of(Status.NOT_HONOURED)


def test_maps_of_other_inspections_are_not_ours() -> None:
    text = (
        "policy-map type inspect ftp f\n parameters\n  mask-banner\n match mime x\ninterface e0\n description mailhost"
    )
    assert read(text).lines == ()


def test_an_inspection_on_an_interface_is_named() -> None:
    text = "policy-map p\n class inspection_default\n  inspect esmtp\nservice-policy p interface outside"
    assert "only on interface outside" in named(read(text), Status.NOT_HONOURED)[4]
    text = "policy-map p\n class inspection_default\n  no inspect esmtp\nservice-policy p global"
    assert read(text).maps == ()


@pytest.mark.parametrize("text", ["a\nb\0c", "\0", "fixup protocol smtp 25\r\n\0"])
def test_what_is_no_text_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^line \d: a NUL: .*show running-config`$"):
        read(text)


def test_line_ends_of_any_system_count_alike() -> None:
    for end in ("\r\n", "\r"):
        assert read(ASA.replace("\n", end)) == read(ASA)


@given(nonsense() | st.text())
def test_reading_raises_nothing_but_a_configuration_error(text: str) -> None:
    if "\0" in text:
        with pytest.raises(ConfigError, match="a NUL"):
            read(text)
        return
    found = read(text)
    for policy in found.policies:
        assert override(policy, {}) == policy
    assert len({line.number for line in found.lines}) == len(found.lines)


@given(esmtp_map())
def test_every_line_of_a_map_is_told_of(text: str) -> None:
    found = read(text)
    assert [line.number for line in found.lines] == list(range(1, len(text.splitlines()) + 1))
    assert not found.of(Status.ERROR)


def test_time_grows_with_the_text_and_no_faster() -> None:
    unit = (
        "class-map type inspect esmtp match-any c\n match cmd line length gt 5\n"
        "policy-map type inspect esmtp m\n class c\n  log\n match not cmd verb auth\n  mask\n"
        "fixup protocol smtp 1-65535\nservice-policy p global\npolicy-map p\n class d\n  inspect esmtp m\n"
        "class-map d\n match port tcp range 1 65535\n"
    )
    taken = []
    for size in (250, 2000):
        begun = time.process_time()
        read(unit * size)
        taken.append(time.process_time() - begun)
    assert taken[1] < 8 * 4 * taken[0]


def test_special_characters_are_told_or_end_the_connection() -> None:
    policy, _ = mapped("parameters", "special-character action log")
    dialogue = Dialogue.under(policy)
    dialogue.server(b"220 x\r\n")
    dialogue.client(b"RCPT TO:<a|b@example.com>\r\n")
    assert [(finding.name, finding.action) for finding in dialogue.findings] == [("address.illegal_character", "log")]
    assert dialogue.received_by_server == b"RCPT TO:<a|b@example.com>\r\n"
    policy, _ = mapped("parameters", "special-character action drop-connection log")
    for octet in (b"|", b"`", b"\0"):
        dialogue = Dialogue.under(policy)
        dialogue.server(b"220 x\r\n")
        dialogue.client(b"RCPT TO:<a" + octet + b"@example.com>\r\n")
        assert [finding.action for finding in dialogue.findings][-1:] == ["drop-connection"], octet
        assert not dialogue.received_by_server
