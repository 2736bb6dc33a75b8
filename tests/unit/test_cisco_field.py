"""Configurations as people keep, paste and send them: each kind of text a public report was about.

The inputs are our own; what each is after is named in words beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.cli import cli
from nfmailguard.config import load as load_config
from nfmailguard.policy.cisco.read import Import, read, read_all
from nfmailguard.policy.cisco.rules import text as rules_text
from nfmailguard.policy.cisco.text import Status
from nfmailguard.policy.dump import render
from nfmailguard.policy.load import load_profile
from tests.support.cisco import ASA, DEFAULT_MAP

SEVERAL = """\
policy-map type inspect esmtp TLSOK
 parameters
  allow-tls
policy-map P
 class inspection_default
  inspect esmtp TLSOK
policy-map Q
 class inspection_default
  inspect smtp
policy-map R
 class inspection_default
  inspect dns
service-policy P interface dmz
service-policy Q interface guest-net_2
service-policy R interface inside
"""
GLOBAL = """\
policy-map global_policy
 class inspection_default
  inspect dns
  inspect esmtp
service-policy global_policy global
"""
MAP = "policy-map type inspect esmtp TLSOK\n parameters\n  allow-tls\n"


def names(found: Import) -> list[str]:
    return [one.policy.name for one in found.maps if one.ports]


def not_honoured(found: Import) -> dict[int, str]:
    return {line.number: line.what for line in found.of(Status.NOT_HONOURED)}


def imported(tmp_path: Path, *texts: str, options: tuple[str, ...] = ()) -> Result:
    paths = []
    for number, text in enumerate(texts):
        path = tmp_path / f"box{number}.cfg"
        path.write_text(text)
        paths.append(str(path))
    return CliRunner().invoke(cli, ["profile", "import", *paths, *options])


# A box takes lines in order, and the last one wins: threads where "no inspect esmtp" is the answer that helped.

TAKEN_BACK = {
    "no inspect": GLOBAL.replace("  inspect esmtp\n", "  inspect esmtp\n  no inspect esmtp\n"),
    "with its map": MAP + GLOBAL.replace("  inspect esmtp\n", "  inspect esmtp TLSOK\n  no inspect esmtp TLSOK\n"),
    "of a map": MAP + GLOBAL.replace("  inspect esmtp\n", "  inspect esmtp TLSOK\n  no inspect esmtp\n"),
    "in a later session": GLOBAL
    + "asa(config)# policy-map global_policy\nasa(config-pmap)# class inspection_default\n"
    + "asa(config-pmap-c)# no inspect esmtp\n",
    "its class": GLOBAL + "policy-map global_policy\n no class inspection_default\n",
    "its policy": GLOBAL + "no policy-map global_policy\n",
    "its service": GLOBAL + "no service-policy global_policy global\n",
    "all services": GLOBAL + "clear configure service-policy\n",
    "smtp": GLOBAL.replace("esmtp", "smtp")
    + "policy-map global_policy\n class inspection_default\n  no inspect smtp\n",
    "fixup": "PIX Version 6.3(5)\nfixup protocol smtp 25\nno fixup protocol smtp 25\n",
    "mailhost": "mailhost 192.0.2.25 10.0.0.25\nno mailhost 192.0.2.25 10.0.0.25\n",
    "ip inspect": "ip inspect name out esmtp\nno ip inspect name out esmtp\n",
    "a set": "ip inspect name out esmtp\nip inspect name out tcp\nno ip inspect name out\n",
}


@pytest.mark.parametrize("name", TAKEN_BACK)
def test_an_inspection_that_is_taken_back_is_off(name: str, tmp_path: Path) -> None:
    text = TAKEN_BACK[name]
    found = read(text)
    assert names(found) == []
    assert not found.inspects
    taken = next(
        line
        for line in found.lines
        if "taken back" in line.what or line.text == "fixup protocol smtp 25" or "off" in line.what
    )
    assert taken.status is Status.HONOURED
    done = imported(tmp_path, text)
    assert (done.exit_code, done.stdout) == (1, "")


def test_what_switched_it_off_is_said(tmp_path: Path) -> None:
    done = imported(tmp_path, TAKEN_BACK["of a map"])
    assert "mail inspection is off: line 8: no inspect esmtp" in str(done.exception)
    chosen = imported(tmp_path, TAKEN_BACK["of a map"], options=("--map", "TLSOK"))
    assert "STARTTLS" in chosen.stdout, "a map can be had all the same"


@pytest.mark.parametrize(
    "again",
    [
        "policy-map global_policy\n class inspection_default\n  no inspect esmtp\n  inspect esmtp TLSOK\n",
        "policy-map global_policy\n class inspection_default\n  inspect esmtp TLSOK\n",
    ],
)
def test_the_repair_the_other_way_round_keeps_the_map(again: str) -> None:
    found = read(MAP + GLOBAL + again)
    assert names(found) == ["TLSOK"]
    assert found.inspects
    assert not found.of(Status.NOT_HONOURED)


# An interface's policy comes before the global one (ASA firewall CLI guide, "Service Policy Guidelines").


@pytest.mark.parametrize("inside", ["no inspect esmtp", "inspect dns", "inspect http\n  inspect ftp"])
def test_an_interface_where_mail_is_not_inspected_is_a_rule(inside: str, tmp_path: Path) -> None:
    branch = f"policy-map BRANCH\n class inspection_default\n  {inside}\nservice-policy BRANCH interface branch-1_dmz\n"
    text = GLOBAL + branch
    found = read(text)
    assert names(found) == ["asa"]
    (rule,) = found.rules
    assert (rule.interface, rule.profile, rule.source, rule.destination) == ("branch-1_dmz", None, (), ())
    service = len(text.splitlines())
    assert "mail is not inspected" in not_honoured(found)[service]
    done = imported(tmp_path, text)
    assert done.exit_code == 1
    assert '# in = "branch-1_dmz"' in done.stdout
    assert '# mode = "monitor"' in done.stdout
    assert "Not honoured: " in done.stdout, "the file itself says what it lacks"


def test_an_interface_policy_without_inspections_changes_nothing() -> None:
    other = "policy-map LIMITS\n class c\n  set connection timeout idle 0:10\nservice-policy LIMITS interface dmz\n"
    found = read(GLOBAL + other)
    assert not found.rules
    assert not found.of(Status.NOT_HONOURED)


def test_an_interface_policy_that_is_not_in_the_text_is_named() -> None:
    found = read(GLOBAL + "service-policy GONE interface dmz\n")
    assert not_honoured(found) == {6: "its policy-map is not in this text: mail may be an exception there"}


def test_an_interface_with_a_map_of_its_own_is_a_rule() -> None:
    text = (
        MAP
        + GLOBAL
        + "policy-map P\n class inspection_default\n  inspect esmtp TLSOK\nservice-policy P interface dmz\n"
    )
    found = read(text)
    assert [(one.policy.name, one.everywhere) for one in found.maps] == [("TLSOK", False), ("asa", True)]
    assert [(rule.interface, rule.profile) for rule in found.rules] == [("dmz", "./TLSOK.toml")]


def test_interfaces_alone_leave_all_others_uninspected() -> None:
    text = "policy-map P\n class inspection_default\n  inspect esmtp\nservice-policy P interface dmz\n"
    found = read(text)
    assert [(rule.interface, rule.profile) for rule in found.rules] == [("dmz", "asa"), (None, None)]


# ACL exemptions: "all but the ESA", the usual advice of Cisco's own forum for ESAs behind an ASA.

ESA = """\
name 10.1.1.9 relay9
object network esa3
 host 10.1.1.3
object-group network ESA
 network-object host 10.1.1.1
 network-object 10.1.2.0 255.255.255.0
 network-object object esa3
 group-object MORE
object-group network MORE
 network-object host relay9
object-group service MAIL tcp
 port-object eq smtp
 port-object range 2525 2526
access-list smtp_insp remark the ESAs speak TLS
access-list smtp_insp extended deny tcp any object-group ESA eq smtp
access-list smtp_insp extended deny tcp object-group ESA any eq smtp
access-list smtp_insp extended permit tcp any any object-group MAIL
class-map smtp_insp
 match access-list smtp_insp
policy-map global_policy
 class smtp_insp
  inspect esmtp
service-policy global_policy global
"""


def test_hosts_that_an_access_list_exempts_are_rules() -> None:
    found = read(ESA)
    hosts = ("10.1.1.1", "10.1.2.0/24", "10.1.1.3", "10.1.1.9")
    assert found.ports == (25, 2525, 2526)
    assert [(rule.source, rule.destination, rule.profile) for rule in found.rules] == [
        ((), hosts, None),
        (hosts, (), None),
    ]
    lines = ESA.splitlines()
    assert {lines[number - 1].split()[2:4][1] for number in not_honoured(found)} == {"deny"}
    assert not found.of(Status.ERROR)


def test_text_without_indentation_keeps_its_groups() -> None:
    flat = "\n".join(line.strip() for line in ESA.splitlines())
    assert read(flat).rules == read(ESA).rules


def test_a_list_that_permits_some_leaves_all_others() -> None:
    text = ESA.replace("permit tcp any any object-group MAIL", "permit tcp any host 192.0.2.7 eq smtp")
    last = read(text).rules[-2:]
    assert [(rule.destination, rule.profile) for rule in last] == [(("192.0.2.7",), "asa"), ((), None)]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("permit tcp any object-group GONE eq smtp", "no object-group GONE in this text; give all of it"),
        ("permit udp any any eq 25", "udp is no mail: only tcp and ip are looked at"),
        ("permit tcp any eq smtp any", "the client's port is not looked at"),
        ("permit tcp host gone any eq smtp", "'gone' is no address, nor a name of one in this text"),
        ("permit tcp any interface outside eq smtp", "an interface's own address is not known here"),
        ("permit tcp any", "the line ends too early; give all of it"),
        ("permit tcp any any eq www", "'www' is no port known here; write its number, 1 to 65535"),
    ],
)
def test_an_entry_that_cannot_be_told_is_named(entry: str, told: str) -> None:
    text = ESA + f"access-list smtp_insp extended {entry}\n"
    assert not_honoured(read(text))[len(text.splitlines())] == told


def test_groups_in_a_circle_come_to_an_end() -> None:
    text = ESA + "object-group network MORE\n group-object ESA\n"
    assert any("more than 16 deep" in what for what in not_honoured(read(text)).values())


def test_a_group_has_a_bound() -> None:
    many = "".join(f" network-object host 10.{n // 256}.{n % 256}.1\n" for n in range(1001))
    text = ESA.replace("object-group network MORE\n", "object-group network MORE\n" + many)
    assert any("more than 1000 networks" in what for what in not_honoured(read(text)).values())


def test_a_class_takes_from_those_behind_it_what_it_matches() -> None:
    both = GLOBAL.replace("service-policy global_policy global\n", "") + ESA
    found = read(both)
    hosts = ("10.1.1.1", "10.1.2.0/24", "10.1.1.3", "10.1.1.9")
    assert [(rule.source, rule.destination, rule.ports, rule.profile) for rule in found.rules] == [
        ((), hosts, (2525, 2526), None),
        (hosts, (), (2525, 2526), None),
        ((), (), (2525, 2526), "asa"),
    ], "port 25 is of class inspection_default, for all hosts"


@pytest.mark.parametrize("service", ["global", "interface out"])
@pytest.mark.parametrize("text", [GLOBAL + ESA, ESA, GLOBAL + SEVERAL, "NGFW Version 6.6.1\n" + GLOBAL + SEVERAL])
def test_drafted_rules_are_a_configuration(text: str, service: str, tmp_path: Path) -> None:
    found = read(text.replace("global_policy global", f"global_policy {service}"))
    drafted = rules_text(found.rules)
    assert drafted
    for one in found.maps:
        (tmp_path / f"{one.policy.name}.toml").write_text(render(one.policy, {}, []))
    config = tmp_path / "box.toml"
    head = '[gateway]\nmode = "enforce"\nprofile = "asa"\n'
    config.write_text(head + drafted.replace('"./', f'"{tmp_path}/'))
    loaded = load_config(config).flow_rules()
    assert len(loaded) == len(found.rules) + 1
    assert [rule.interface for rule in loaded[:-1]] == [rule.interface for rule in found.rules]


# What such texts look like.


def quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.splitlines())


def as_html(text: str) -> str:
    body = "<br>\n".join(line.replace(" ", "&nbsp;").replace(">", "&gt;") for line in text.splitlines())
    return f"<p>here it is:</p>\n<pre><code>{body}</code></pre>\n"


def wrapped(text: str) -> str:
    return text.replace("match cmd line length gt 512", "match cmd line length gt\n512").replace(
        "policy-map type inspect esmtp _default", "policy-map type inspect esmtp\n_default"
    )


FORMS = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "double-spaced": lambda text: text.replace("\n", "\n\n"),
    "blanks between words": lambda text: "\n".join(
        line[: len(line) - len(line.lstrip())] + "  ".join(line.split()) for line in text.splitlines()
    ),
    "without indentation": lambda text: "\n".join(line.strip() for line in text.splitlines()),
    "indented as code": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "quoted": quoted,
    "quoted twice": lambda text: quoted(quoted(text)),
    "fenced": lambda text: f"my box:\n\n```text\n{text}```\n",
    "HTML": as_html,
    "show running-config": lambda text: (
        "asa/pri/act# show running-config\n: Saved\n\n: Serial Number: JAD000\n:\nASA Version 9.8(4) \n!\n"
        f"{text}Cryptochecksum:d41d8cd98f00b204e9800998ecf8427e\n: end\nasa/pri/act# exit\n"
    ),
    "IOS header": lambda text: f"Building configuration...\n\nCurrent configuration : 1234 bytes\n!\n{text}end\n",
    "a pager": lambda text: text.replace("\n", "\n<--- More --->\r              \r", 7),
    "another pager": lambda text: text.replace("\n", "\n --More-- \b\b\b\b\b\b\b\b\b        \b\b\b\b\b\b\b\b\b", 3),
    "comments": lambda text: text.replace("\n", "   ! see below\n"),
    "arrows": lambda text: text.replace("\n", "   <--- this one\n"),
    "wrapped": wrapped,
    "bullets": lambda text: "".join(f"* {line.strip()}\n" for line in text.splitlines()),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "capitals": lambda text: text.replace("match", "MATCH").replace("parameters", "Parameters"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_map_is_read_in_any_form(form: str) -> None:
    found = read(FORMS[form](DEFAULT_MAP + "\n" + GLOBAL))
    mapped = next(one.policy for one in found.maps if one.policy.name == "_default_esmtp_map")
    asa = load_profile("asa")
    assert (mapped.commands, mapped.replies, mapped.address) == (asa.commands, asa.replies, asa.address)
    assert (mapped.banner, mapped.data, mapped.bugs) == (asa.banner, asa.data, asa.bugs)
    assert {**mapped.actions, "tls.started": None} == {**asa.actions, "tls.started": None}
    assert not found.of(Status.NOT_HONOURED)
    assert not found.of(Status.ERROR)


def test_a_terminal_breaks_lines_anywhere() -> None:
    group = "ESA_" + "A" * 20
    whole = ESA.replace("network ESA", f"network {group}").replace("object-group ESA ", f"object-group {group} ")
    line = next(line for line in whole.splitlines() if len(line) > 80)
    cut = whole.replace(line, f"{line[:80]}\n{line[80:]}")
    assert cut != whole
    assert [rule.destination for rule in read(cut).rules] == [rule.destination for rule in read(whole).rules]
    assert read(cut).rules[0].destination


@pytest.mark.parametrize(
    "comment", ["! mail", "!--- off by default", "! ", "!", "<-- here", "<=== remove", "\u2190 that one"]
)
def test_what_stands_behind_a_line_is_a_comment(comment: str) -> None:
    for line in ("inspect esmtp", "inspect esmtp TLSOK"):
        found = read(MAP + GLOBAL.replace("inspect esmtp", f"{line}  {comment}"))
        assert names(found) == [line.split()[2] if "TLSOK" in line else "asa"]
        assert not found.of(Status.ERROR)


def test_free_text_has_no_comments() -> None:
    found = read("policy-map type inspect esmtp m\n description Relays ! strict\n")
    assert found.policies[0].title == "Relays ! strict"


def test_every_line_of_a_quoted_box_is_told_as_of_the_plain_one() -> None:
    plain, marked = read(ASA), read(quoted(ASA))
    assert [(line.number, line.text, line.status) for line in plain.lines] == [
        (line.number, line.text, line.status) for line in marked.lines
    ]


@given(st.text(alphabet=" \n\r\t>`*<&;!-\b.abinspectesmtp0123", max_size=200))
def test_no_form_of_text_is_too_much(text: str) -> None:
    read(text)


# Several files, contexts, Threat Defense.


def test_parts_of_one_configuration_come_in_several_files(tmp_path: Path) -> None:
    done = imported(tmp_path, MAP, GLOBAL.replace("inspect esmtp", "inspect esmtp TLSOK"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "STARTTLS" in done.stdout
    wrong = imported(tmp_path, MAP, GLOBAL.replace("inspect esmtp", "inspect esmtp GONE"))
    assert "box1.cfg: line 4: inspect esmtp GONE: error" in str(wrong.exception)


CONTEXTS = (
    "ASA Version 9.8(4) <context>\nhostname one\n" + GLOBAL,
    "ASA Version 9.8(4) <context>\nhostname two\n" + MAP + GLOBAL.replace("inspect esmtp", "inspect esmtp TLSOK"),
    "ASA Version 9.8(4) <system>\nhostname sys\ncontext one\n config-url disk0:/one.cfg\n",
)


def test_contexts_are_boxes_of_their_own(tmp_path: Path) -> None:
    done = imported(tmp_path, *CONTEXTS)
    assert done.exit_code == 1
    assert "2 contexts inspect mail; choose with --context: one, two" in str(done.exception)
    done = imported(tmp_path, *CONTEXTS, options=("--context", "two"))
    assert "STARTTLS" in done.stdout
    assert "of context one: choose it with --context one" in done.stderr
    assert "no context 'three'" in str(imported(tmp_path, *CONTEXTS, options=("--context", "three")).exception)
    alone = imported(tmp_path, CONTEXTS[0], CONTEXTS[2])
    assert (alone.exit_code, alone.stderr) == (0, "")


@pytest.mark.parametrize(
    "text",
    [
        "asa(config)# changeto context one\n" + GLOBAL + "asa/one# changeto context two\n" + GLOBAL,
        "asa/one# show run\n" + GLOBAL + "asa/two# show run\n" + GLOBAL,
        "".join(CONTEXTS[:1]) + CONTEXTS[1],
    ],
)
def test_contexts_are_told_apart_in_one_text(text: str) -> None:
    assert set(read(text).contexts) == {"one", "two"}
    (chosen,) = [one for one in read_all([(None, text)], "two").maps if one.ports]
    assert chosen.line > len(GLOBAL.splitlines())


def test_failover_units_are_one_box() -> None:
    text = "asa/pri/act(config)# policy-map p\nasa/pri/act(config-pmap)# class inspection_default\n"
    assert names(read(text + "asa/pri/act(config-pmap-c)# inspect esmtp\n")) == ["asa"]


@pytest.mark.parametrize(
    ("version", "profile"),
    [
        ("NGFW Version 6.6.1", "asa"),
        ("Cisco Firepower Threat Defense for VMware Version 7.0.1", "asa"),
        ("Cisco Adaptive Security Appliance Software Version 7.0(8)", "pix70"),
        ("ASA Version 7.1(2)", "pix70"),
    ],
)
def test_the_version_line_names_the_release(version: str, profile: str) -> None:
    found = read(f"{version}\n{GLOBAL}")
    assert names(found) == [profile]
    assert found.lines[0].what == f"the release: profile {profile}"


# IOS.

ZONES = """\
class-map type inspect match-any MAILWEB
 match protocol smtp
 match protocol http
class-map type inspect match-all OUTER
 match class-map MAILWEB
policy-map type inspect OUT-TO-DMZ
 class type inspect OUTER
  inspect
 class class-default
  drop
zone-pair security O2D source outside destination dmz
 service-policy type inspect OUT-TO-DMZ
"""


def test_a_zone_based_firewall_is_named_line_by_line(tmp_path: Path) -> None:
    found = read(ZONES)
    assert set(not_honoured(found)) == {1, 2, 4, 5, 6, 7, 8, 11, 12}
    assert all("ios-esmtp" in what for what in not_honoured(found).values())
    done = imported(tmp_path, ZONES)
    assert done.exit_code == 1
    assert "No profile is this box's; this is the nearest." in done.stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  inspect\n", "  pass\n"),
        ("  inspect\n", "  drop log\n"),
        ("match protocol smtp", "match protocol dns"),
        (" service-policy type inspect OUT-TO-DMZ\n", ""),
    ],
)
def test_zones_that_inspect_no_mail_are_no_inspection(before: str, after: str) -> None:
    assert names(read(ZONES.replace(before, after))) == []


# Layer 7 of the same: "Application Inspection and Control for SMTP" of the IOS guide.

LAYER7 = """\
class-map type inspect smtp match-any C
 {}
policy-map type inspect smtp P7
 class type inspect smtp C
  {}
"""


@pytest.mark.parametrize(
    ("match", "action", "key", "value"),
    [
        ("match recipient count gt 50", "reset", "address.recipients", 50),
        ("match recipient invalid count gt 5", "log", "address.invalid_recipients", 5),
        ("match cmd line length gt 400", "reset", "commands.line_length", 400),
        ("match header length gt 9000", "reset", "data.header_length", 9000),
        ("match data-length gt 5000000", "reset", "data.body_length", 5_000_000),
    ],
)
def test_a_limit_of_a_layer_7_map_is_one_of_the_policy(match: str, action: str, key: str, value: int) -> None:
    found = read(LAYER7.format(match, action))
    (mapped,) = found.policies
    part, _, name = key.partition(".")
    assert getattr(getattr(mapped, part), name) == value
    base = load_profile("ios-esmtp")
    assert (mapped.commands.allow, mapped.replies, mapped.banner) == (base.commands.allow, base.replies, base.banner)
    assert set(not_honoured(found)) == ({2} if "data-length" in match else set())
    assert len(found.lines) == 5


def test_verbs_and_keywords_of_a_layer_7_map_are_taken_from_those_that_pass() -> None:
    verbs = read(LAYER7.format("match cmd verb EXPN VRFY", "mask")).policies[0]
    assert set(load_profile("ios-esmtp").commands.allow) - set(verbs.commands.allow) == {"EXPN", "VRFY"}
    keywords = read(LAYER7.format("match reply ehlo auth", "mask")).policies[0]
    assert set(load_profile("ios-esmtp").replies.keywords) - set(keywords.replies.keywords) == {"AUTH"}


@pytest.mark.parametrize(
    "match",
    [
        "match sender address regex bad",
        "match recipient address regex bad",
        "match header regex bad",
        "match body regex bad",
        "match mime content-type regex bad",
        "match mime encoding base64",
        "match something new",
    ],
)
def test_what_a_layer_7_map_matches_and_a_policy_cannot_is_named(match: str) -> None:
    found = read(LAYER7.format(match, "reset"))
    assert {2, 4, 5} <= set(not_honoured(found))
    assert len(found.lines) == 5


def test_a_layer_7_map_is_applied_where_its_policy_is(tmp_path: Path) -> None:
    below = "  inspect\n  service-policy smtp P7\n"
    text = LAYER7.format("match recipient count gt 50", "reset") + ZONES.replace("  inspect\n", below)
    found = read(text)
    assert names(found) == ["P7"]
    assert found.maps[0].nearest
    assert "recipients = 50" in imported(tmp_path, text).stdout
    assert names(read(text.replace(" service-policy type inspect OUT-TO-DMZ\n", ""))) == []
    gone = imported(tmp_path, ZONES.replace("  inspect\n", below))
    assert "no policy-map type inspect smtp P7 in this text" in str(gone.exception)


def test_a_layer_7_map_that_is_taken_back_or_named_by_none_is_told() -> None:
    text = LAYER7.format("match recipient count gt 50", "reset")
    taken = read(text + "no policy-map type inspect smtp P7\n")
    assert (taken.policies, len(taken.lines)) == ((), 6)
    assert set(not_honoured(taken)) == {1, 2}, "the class is there still"
    again = read(text + text.replace("50", "60"))
    assert len(again.lines) == 10


def test_quality_of_service_is_no_inspection(tmp_path: Path) -> None:
    done = imported(
        tmp_path,
        "class-map match-any BULK\n match protocol smtp\npolicy-map WAN\n class BULK\n  bandwidth percent 10\n",
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no mail inspection is switched on in its 5 lines" in str(done.exception)


SETS = """\
version 12.4
ip inspect name OUTGOING esmtp alert on audit-trail off
ip inspect name AUDIT smtp alert on audit-trail on
interface Dialer1
 ip inspect OUTGOING out
"""


@pytest.mark.parametrize("text", [SETS, SETS.replace("\n ", "\n")])
def test_a_set_counts_where_an_interface_has_it(text: str) -> None:
    found = read(text)
    assert names(found) == ["ios-esmtp"]
    told = not_honoured(found)
    assert set(told) == {3, 5}, "alert and audit-trail are logging"
    assert told[3].startswith("not applied")
    assert "only on Dialer1, out" in told[5]


def test_a_set_without_mail_follows_connections_only(tmp_path: Path) -> None:
    text = "ip inspect name OUT tcp\nip inspect name OUT udp\ninterface e0\n ip inspect OUT out\n"
    assert not_honoured(read(text)) == {1: "follows connections, and reads no SMTP: no mail inspection"}
    assert "ip inspect name OUT tcp" in str(imported(tmp_path, text).exception)


def test_what_a_set_does_besides_is_named() -> None:
    assert "`timeout 30` is not" in not_honoured(read("ip inspect name OUT smtp alert on timeout 30"))[1]


# Other output of the box.


@pytest.mark.parametrize(
    "text",
    [
        "Global policy:\n  Service-policy: global_policy\n      Inspect: esmtp, packet 44, lock fail 0, drop 0\n",
        "Session audit trail is disabled\nInspection Rule Configuration\n Inspection name OUT\n    smtp alert is on\n",
        "Zone-pair: O2D\n  Service-policy inspect : OUT-TO-DMZ\n",
    ],
)
def test_counters_are_no_configuration(text: str, tmp_path: Path) -> None:
    done = imported(tmp_path, text)
    assert done.exit_code == 1
    assert done.exception is not None
    assert "give the output of `show running-config`" in str(done.exception)
    assert getattr(done.exception, "exit_code", 0) == 2


def test_json_has_the_rules(tmp_path: Path) -> None:
    told = json.loads(imported(tmp_path, ESA, options=("--json",)).stdout)
    assert [rule["profile"] for rule in told["rules"]] == [None, None]
