"""``probe`` against servers of every kind: the answer, how sure it is, and whether there is a letter."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nfmailguard.cli import cli
from nfmailguard.probe import verdict
from nfmailguard.probe.compare import Glance, Vantage, of_result
from nfmailguard.probe.letter import letter
from nfmailguard.probe.talk import NONSENSE, ProbeError
from tests.support.listening import serving

Replies = Mapping[str, str]


@contextmanager
def server(replies: Replies, family: socket.AddressFamily = socket.AF_INET, port: int = 0) -> Iterator[int]:
    """Answers each verb; "" is the greeting, "*" what it does not know, ``{}`` the verb."""
    where = "127.0.0.1" if family == socket.AF_INET else "::1"

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(said(replies[""]))
            for line in lines:
                verb = line.split()[0].decode().upper() if line.split() else ""
                connection.sendall(said(replies.get(verb, replies["*"]).replace("{}", verb.lower())))
                if verb == "QUIT":
                    break

    with serving(socket.create_server((where, port), family=family), talk) as at:
        yield at


def said(text: str) -> bytes:
    return b"".join(line.encode() + b"\r\n" for line in text.split("|"))


#: A server as most are, and what a box makes of it. Lines are separated by "|".
PLAIN: Replies = {
    "": "220 mx.example.com ESMTP",
    "EHLO": "250-mx.example.com|250-SIZE 1000|250-STARTTLS|250-CHUNKING|250 8BITMIME",
    "HELO": "250 mx.example.com",
    "NOOP": "250 2.0.0 Ok",
    "VRFY": "252 2.0.0 perhaps",
    "HELP": "214 2.0.0 help yourself",
    "STARTTLS": "454 4.7.0 TLS not available",
    "DATA": "503 5.5.1 Error: need RCPT command",
    "QUIT": "221 2.0.0 Bye",
    "*": '500 5.5.1 Command unrecognized: "{}"',
}
STARS = "220 ****************************"
NO_TLS = {"EHLO": "250-mx.example.com|250-SIZE 1000|250 8BITMIME", "STARTTLS": "502 5.5.2 not recognized"}
X11 = {NONSENSE.upper(): f'500 5.5.1 Command unrecognized: "{"X" * len(NONSENSE)}"'}
ASA = {
    "": STARS,
    "EHLO": "250-mx.example.com|250-SIZE 1000|250-XXXXXXXA|250-XXXXXXXB|250 8BITMIME",
    "STARTTLS": '500 5.5.1 Command unrecognized: "XXXXXXXX"',
    **X11,
}
SEVEN = {
    "": "220 ********2***0 **20**",
    "EHLO": '500 5.5.1 Command unrecognized: "XXXX probe.invalid"',
    "HELP": '500 5.5.1 Command unrecognized: "XXXX"',
    "VRFY": '500 5.5.1 Command unrecognized: "XXXX"',
    **X11,
}
CLEAR_MASKED = "250-mx.example.com|250-SIZE 1000|250-XXXXXXXA|250 8BITMIME"


@dataclass(frozen=True)
class Expected:
    found: bool | None
    sure: str
    family: str = ""
    tls: str | None = None
    has_letter: bool = False


CASES: dict[str, tuple[Replies, Expected]] = {
    "ordinary": ({}, Expected(False, "high", tls="offered")),
    "says the same to everything (smtp-sink)": (
        {"VRFY": "250 2.0.0 Ok", "HELP": "250 2.0.0 Ok", "*": "250 2.0.0 Ok", "STARTTLS": "502 no", "DATA": "503 no"},
        Expected(False, "high", tls="offered"),
    ),
    "no STARTTLS, or a proxy that deletes lines": (NO_TLS, Expected(False, "medium", tls="absent")),
    "the same, its first line no domain": (
        {**NO_TLS, "EHLO": "250-Hello [192.0.2.1], pleased to meet you|250 SIZE 1000"},
        Expected(False, "medium", tls="absent"),
    ),
    "STARTTLS works and is not offered": (
        {**NO_TLS, "STARTTLS": "220 2.0.0 go ahead"},
        Expected(True, "medium", "a Mailguard-like box of an unknown kind", "stripped", True),
    ),
    "stars of its own, all else passes": ({"": STARS}, Expected(None, "low", tls="offered")),
    "stars, and nothing a box would mask": (
        {"": STARS, "EHLO": "250-mx.example.com|250-SIZE 1|250-STARTTLS|250 8BITMIME"},
        Expected(True, "low", "Cisco ASA `inspect esmtp` with a map of its own", "offered"),
    ),
    "decoration": ({"": "220 ** 2 ***** 0 ****"}, Expected(False, "high", tls="offered")),
    "decoration of several lines": (
        {"": "220-********************|220-** WARNING **|220 ****** Unauthorised"},
        Expected(False, "high", tls="offered"),
    ),
    "an ASA": (ASA, Expected(True, "high", "Cisco PIX or ASA ESMTP inspection", "stripped", True)),
    "an ASA, a server that answers VRFY as NOOP": (
        {**ASA, "VRFY": "250 2.0.0 Ok", "*": "502 5.5.2 Error: command not recognized"},
        Expected(True, "high", "Cisco PIX or ASA ESMTP inspection", "stripped", True),
    ),
    "an ASA, a server without HELP and VRFY": (
        {**ASA, "VRFY": '502 5.5.1 "vrfy" not implemented: XXXX', "HELP": '502 5.5.1 "XXXX" not implemented'},
        Expected(True, "medium", "Cisco PIX or ASA ESMTP inspection", "stripped", True),
    ),
    "an ASA with no mask-banner, or IOS": (
        {"EHLO": CLEAR_MASKED, "STARTTLS": "500 no", "*": "500 no"},
        Expected(True, "medium", "one of: Cisco IOS firewall; Cisco PIX or ASA ESMTP inspection", "stripped", True),
    ),
    "IOS": (
        {
            "EHLO": CLEAR_MASKED,
            "STARTTLS": '500 5.5.1 unrecognized: "xxxxxxxx"',
            NONSENSE.upper(): f'500 5.5.1 unrecognized: "{"x" * len(NONSENSE)}"',
        },
        Expected(True, "high", "Cisco IOS firewall", "stripped", True),
    ),
    "a list that ends in OK": (
        {**ASA, "EHLO": "250-mx.example.com|250-SIZE 1000|250-XXXXXXXA|250 XB"},
        Expected(True, "high", "Cisco PIX or ASA ESMTP inspection", "stripped", True),
    ),
    "a PIX": (SEVEN, Expected(True, "high", "Cisco PIX Mailguard", None, True)),
    "a PIX, a server that repeats nothing": (
        {
            "": STARS,
            "EHLO": "502 5.5.2 Error: command not recognized",
            "HELP": "502 5.5.2 Error: command not recognized",
            "VRFY": "502 5.5.2 Error: command not recognized",
            "*": "502 5.5.2 Error: command not recognized",
        },
        Expected(True, "medium", "Cisco PIX Mailguard", None, True),
    ),
    "a server that is busy": ({"": "421 4.3.2 come back later"}, Expected(None, "low")),
    "a server that takes no mail": ({"": "554 5.7.1 no SMTP here"}, Expected(None, "low")),
    "EHLO refused": (
        {"EHLO": "502 no", "*": "502 no", "HELP": "502 no", "VRFY": "502 no"},
        Expected(None, "low"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_no_surer_than_the_evidence(name: str) -> None:
    changes, expected = CASES[name]
    with server({**PLAIN, **changes}) as port:
        found = verdict.examine("127.0.0.1", port, 3)
    assert (found.found, found.sure, found.tls) == (expected.found, expected.sure, expected.tls), found
    assert found.family == expected.family or (name.startswith("a PIX") and expected.family in found.family)
    assert bool(letter(found)) is expected.has_letter
    assert found.exit_code == {True: 1, False: 0, None: 3}[expected.found]
    assert found.evidence or found.sure == "high"


def test_another_protocol_is_named_by_its_first_line() -> None:
    with (
        serving(socket.create_server(("127.0.0.1", 0)), lambda at: at.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port,
        pytest.raises(ProbeError, match=r"that is no SMTP: 'SSH-2\.0-OpenSSH_9\.2'"),
    ):
        verdict.examine("127.0.0.1", port, 3)


def asked(changes: Replies = ASA, **more: Any) -> verdict.Verdict:
    with server({**PLAIN, **changes}) as port:
        return verdict.examine("127.0.0.1", port, 3, **more)


def test_the_letter_says_when_from_where_and_what_to_do() -> None:
    found = asked()
    text = letter(found)
    assert text.startswith("Subject: A firewall changes SMTP to 127.0.0.1 (port ")
    assert f"It was seen at {found.time} from 127.0.0.1." in text
    assert found.time.endswith(" UTC")
    assert "Through it there is no TLS, no CHUNKING." in text
    assert text.count("  no inspect esmtp") == 2
    assert "  allow-tls" in text
    assert "fixup" not in text, "the remedy of one product"
    assert '    S: 500 5.5.1 Command unrecognized: "XXXXXXXX"' in text


def test_of_several_products_each_has_its_own_lines() -> None:
    found = asked({"EHLO": CLEAR_MASKED, "STARTTLS": "500 no", "*": "500 no"})
    text = letter(found)
    assert "on ASA, this turns the inspection off:" in text
    assert "On IOS, this turns the inspection off:" in text
    assert found.remedy == ()


def test_whose_it_is_is_asked_and_where_from() -> None:
    assert "ask again from the server's own network" in asked().where
    shown = CliRunner().invoke(cli, ["probe", "--help"]).output
    assert "from outside your network" in " ".join(shown.split())


# Other ports, other places, other addresses.


def seen_of(changes: Replies) -> tuple[verdict.Verdict, Any]:
    from nfmailguard.probe.features import observe
    from nfmailguard.probe.talk import converse

    with server({**PLAIN, **changes}) as port:
        return verdict.examine("127.0.0.1", port, 3), observe(converse("127.0.0.1", port, 3), None)


OWN = {"": STARS, "EHLO": "250-mx.example.com|250-SIZE 1|250 8BITMIME", "STARTTLS": "502 no"}


def test_stars_behind_tls_are_the_servers_own() -> None:
    found, seen = seen_of(OWN)
    assert (found.found, found.sure) == (True, "low")
    after = verdict._beside_ports(found, seen, [Glance(587, "Connection refused"), Glance(465, banner="stars")])
    assert (after.found, after.exit_code) == (False, 0)
    assert "port 465, where nobody on the way can write, has the same stars" in after.evidence[0]


def test_a_clear_port_beside_a_masked_one_is_evidence() -> None:
    found, seen = seen_of(ASA)
    after = verdict._beside_ports(found, seen, [Glance(587, banner="clear", keywords=("STARTTLS",))])
    assert after.found
    assert "the greeting of port 587 is clear" in after.evidence


def test_tls_on_another_port_says_that_the_server_can() -> None:
    found, seen = seen_of(NO_TLS)
    after = verdict._beside_ports(found, seen, [Glance(587, banner="clear", keywords=("STARTTLS",))])
    assert any("port 587 has TLS, so the server can" in line for line in after.evidence)
    assert after.found is False


def test_ports_that_cannot_be_asked_are_no_evidence() -> None:
    found, seen = seen_of(NO_TLS)
    after = verdict._beside_ports(found, seen, [Glance(587, "Connection refused"), Glance(465, "timed out")])
    assert after.evidence == found.evidence


def test_another_place_that_sees_starttls_tells_that_it_is_stripped_here(tmp_path: Path) -> None:
    with server(PLAIN) as port:
        there = CliRunner().invoke(cli, ["probe", f"127.0.0.1:{port}", "--json"])
    path = tmp_path / "there.json"
    path.write_text(there.output)
    with server({**PLAIN, **NO_TLS}) as port:
        done = CliRunner().invoke(cli, ["probe", f"127.0.0.1:{port}", "--with", str(path), "--json"])
    told = json.loads(done.output)
    assert (done.exit_code, told["found"], told["sure"], told["tls"]) == (1, True, "high", "stripped")
    assert "STARTTLS is offered there and not here" in told["evidence"][-1]
    assert told["breaks"] == ["TLS"]


def test_another_place_that_sees_none_either_is_named() -> None:
    found = asked(NO_TLS, vantages=(Vantage("elsewhere", "192.0.2.1", False, "clear", "absent"),))
    assert (found.found, found.tls) == (False, "absent")
    assert "STARTTLS is not offered there either" in found.evidence[-1]


def test_a_greeting_that_is_clear_elsewhere_is_masked_on_the_way() -> None:
    found = asked({"": STARS}, vantages=(Vantage("elsewhere", "192.0.2.1", False, "clear", "offered"),))
    assert (found.found, found.sure) == (True, "high")


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"source": 1, "found": 2}'])
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "there.json"
    path.write_text(text)
    with pytest.raises(Exception, match=r"no (?:result of `probe --json`|JSON)"):
        of_result(path)


def ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ipv6(), reason="no IPv6 on this machine's loopback")
def test_every_address_of_a_host_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(PLAIN, socket.AF_INET6) as port, server({**PLAIN, **ASA}, port=port):
        monkeypatch.setattr(verdict, "addresses_of", lambda host, port: ["::1", "127.0.0.1", "127.0.0.77"])
        found = verdict.examine_all("mx.example.com", port, 3)
    assert (found.address, found.found) == ("::1", False)
    assert [(other.address, other.found) for other in found.others] == [("127.0.0.1", True), ("127.0.0.77", None)]
    assert found.exit_code == 1
    assert found.others[1].evidence == ("cannot be asked: Connection refused",)


@pytest.mark.skipif(not ipv6(), reason="no IPv6 on this machine's loopback")
def test_an_address_of_ipv6_is_asked() -> None:
    with server(PLAIN, socket.AF_INET6) as port:
        done = CliRunner().invoke(cli, ["probe", f"[::1]:{port}", "--json"])
    told = json.loads(done.output)
    assert (done.exit_code, told["address"], told["source"]) == (0, "::1", "::1")


def test_json_is_stable() -> None:
    told = verdict.as_json(asked())
    assert set(told) >= {
        *(
            "host",
            "port",
            "found",
            "family",
            "candidates",
            "sure",
            "evidence",
            "breaks",
            "restore",
            "remedy",
            "dialogue",
        ),
        *("exit_code", "message", "address", "source", "time", "banner", "keywords", "tls", "conflicts", "where"),
        *("ports", "vantages", "others", "families"),
    }


def test_a_message_that_is_not_sure_is_none() -> None:
    with server({**PLAIN, **OWN}) as port:
        done = CliRunner().invoke(cli, ["probe", f"127.0.0.1:{port}", "--message"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "nothing is sure enough for a message" in done.stderr


def test_a_profile_of_the_operators_own_does_not_end_it() -> None:
    from nfmailguard.policy.load import load_profile, profile_names

    found, seen = seen_of(ASA)
    start = replace(found, found=None, candidates=())
    policies = {name: load_profile(name) for name in profile_names()} | {"acme": load_profile("asa")}
    assert "acme" in verdict.judge(seen, policies, start).candidates
