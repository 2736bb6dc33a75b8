"""`lab evade` through a running gateway: nothing gets past `enforce`, and the judge is not blind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from nfmailguard.lab import evade
from nfmailguard.lab.evasions import TECHNIQUES
from nfmailguard.lab.postfix import installed
from nfmailguard.lab.readers import SERVERS
from nfmailguard.lab.unpacked import unpacked
from tests.live.test_mail import is_real_root

pytestmark = pytest.mark.live

#: Of every kind some that get past a gateway that only watches; the last two need gateways of their own.
SOME = (
    *("overlap-front", "conflict-lost", "text-filler-last", "md5-option", "urgent-in-text", "syn-data-cookie"),
    *("rst-lost", "fragments-tiny", "forged-ack", "imagined-dialogue", "bare-lf", "prefix-data-cut"),
    *("smuggling-lf-dot-lf", "banner-repeated", "midstream", "keyword-cut", "again-md5", "no-syn-rst", "passed-far"),
    *("long-noop-16385", "bdat-crossed"),
)
#: Under the profiles that have no length of a line and let more verbs through.
ELSEWHERE = (
    "again-md5",
    "again-timestamp",
    "passed-no-syn",
    "long-noop-16385",
    "long-sasl-2048",
    "long-sasl-letters-2048",
    "bdat-crossed",
)
#: Against real servers: a command that is not hidden at all, and one that is.
REAL = ("verb-plain", "again-executed")
SIX = (*(one.name for one in TECHNIQUES if one.families == (6,)), "conflict-lost", "imagined-dialogue", "verb-plain")
_runs: dict[tuple[str, ...], Run] = {}


class Run(NamedTuple):
    code: int
    rows: dict[str, dict[str, Any]]


def ran(*options: str) -> Run:
    """One run of the command, once for all tests; skips where the kernel makes no namespaces."""
    if options not in _runs:
        command = [sys.executable, "-m", "nfmailguard", "lab", "evade", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if "cannot make namespaces" in done.stderr:
            pytest.skip(done.stderr.strip())
        assert done.stdout, done.stderr
        _runs[options] = Run(done.returncode, {row["name"]: row for row in json.loads(done.stdout)})
    return _runs[options]


def only(names: tuple[str, ...]) -> list[str]:
    return [option for name in names for option in ("--only", name)]


def held(row: dict[str, Any]) -> None:
    if row["outcome"] == "not tried" and row["kind"] == "multipath":
        pytest.skip(row["faults"][0])
    assert row["faults"] == []
    assert row["outcome"] not in ("GOT PAST", "not tried")
    assert row["control_mail"] == "ok"


@pytest.mark.parametrize("name", [one.name for one in evade.chosen(evade.Choice())])
def test_nothing_gets_past(name: str) -> None:
    held(ran().rows[name])


def test_every_technique_was_tried() -> None:
    run = ran()
    assert len(run.rows) == len(evade.chosen(evade.Choice())) >= 230
    assert not any(row["outcome"] == "GOT PAST" for row in run.rows.values())
    assert not any(row["outcome"] == "not tried" for row in run.rows.values())


@pytest.mark.parametrize("name", SIX)
def test_nothing_gets_past_over_ipv6(name: str) -> None:
    held(ran("-6", *only(SIX)).rows[name])


@pytest.mark.parametrize("name", SOME)
def test_what_a_watching_gateway_lets_through_is_seen(name: str) -> None:
    run = ran("--mode", "monitor", *only(SOME))
    row = run.rows[name]
    assert row["outcome"] == "GOT PAST"
    assert row["faults"]
    assert row["control_mail"] == "ok"
    assert run.code == 1


@pytest.mark.parametrize("name", ELSEWHERE)
def test_nothing_gets_past_with_cookies_and_another_profile(name: str) -> None:
    held(ran("-6", "--profile", "ios-esmtp", "--cookies", "2", *only(ELSEWHERE)).rows[name])


def test_the_second_connection_was_there_to_be_taken_for_the_first() -> None:
    row = ran("--mode", "monitor", *only(SOME)).rows["again-md5"]
    if row["notes"] == ["the server chose another ISN"]:  # cookies change once a minute
        row = ran("--mode", "monitor", *only(("again-md5",))).rows["again-md5"]
    assert row["notes"] == ["the server's ISN followed the client's"]  # under the flood of ours: cookies
    assert ["TURN root", "502 5.5.2 Error: command not recognized\\r\\n"] in row["dialogues"][-1]


@pytest.mark.parametrize("server", SERVERS[1:])
def test_a_real_server_s_own_log_shows_what_it_read(server: str) -> None:
    if not is_real_root():
        pytest.skip("needs the machine's root: the server changes users")
    if server == "postfix" and not installed():
        pytest.skip("no Postfix here; apt-get install postfix")
    if server != "postfix" and not unpacked(server):
        pytest.skip(f"no {server} under build/servers; deploy/setup test unpacks it")
    rows = ran("--mode", "monitor", "--server", server, *only(REAL)).rows
    for name in REAL:
        assert rows[name]["outcome"] == "GOT PAST"
        assert rows[name]["control_mail"] == "ok"
    assert rows["verb-plain"]["dialogues"][0][-1][0] == "TURN root"
    answers = [answer for dialogue in rows["again-executed"]["dialogues"] for _, answer in dialogue]
    assert any(answer.startswith("250-") for answer in answers), "EHLO was not carried out"


def test_nothing_gets_past_to_a_real_server() -> None:
    if not is_real_root() or not unpacked("exim"):
        pytest.skip("needs the machine's root, and Exim under build/servers")
    rows = ran("--server", "exim", *only(REAL)).rows
    for name in REAL:
        held(rows[name])
