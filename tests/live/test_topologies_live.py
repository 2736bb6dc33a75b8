"""Topologies that stand: mail goes the way they say, through the gateways they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab import plans, standing

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces as root")]

NAME = f"p{os.getpid()}"
EHLO = "EHLO me\nQUIT\n"


def nfmailguard(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "lab", words[0], "--name", NAME, *words[1:]]
    return subprocess.run(argv, check=False, input=given, capture_output=True, text=True, timeout=400)


def lab(*words: str, given: str = "") -> str:
    done = nfmailguard(*words, given=given)
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _gone() -> Iterator[None]:
    yield
    standing.down(NAME)


def events(host: str) -> int:
    found: dict[str, dict[str, int]] = json.loads(lab("status", "--json"))["gateways"]
    return found[host]["events"]


def wait_for(host: str, words: str) -> bool:
    """Whether a gateway's log says so, which is written a moment later."""
    deadline = time.monotonic() + 20
    while words not in lab("exec", host, "--", "cat", f"/mnt/{host}/eve.json"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_two_in_a_row_see_one_after_the_other_and_each_is_set_by_its_name() -> None:
    lab("up", "two-in-a-row")
    assert 'S: 500 Error: command "XXXX" not recognized' in lab("talk", given=EHLO)  # the PIX knows no EHLO
    done = nfmailguard("set", "--profile", "asa")
    assert done.returncode == 1
    assert "which gateway? this lab's are near, far" in done.stderr
    assert "far: enforce asa" in lab("set", "far", "--profile", "asa")
    assert "S: 250-XXXXXXXA" in lab("talk", "-6", given=EHLO)
    assert "far: monitor asa" in lab("set", "far", "--mode", "monitor")
    assert wait_for("near", '"upstream.banner_masked"')  # the greeting comes by the far one first
    assert "no gateway 'moon'; this lab's are near, far" in nfmailguard("set", "moon", "--mode", "monitor").stderr


def test_dual_stack_goes_through_a_box_on_one_family_only() -> None:
    lab("up", "dual-stack")
    assert "S: 220 ****2" in lab("talk", given=EHLO)
    assert "S: 250-STARTTLS" in lab("talk", "-6", given=EHLO)
    lab("set", "six", "--profile", "asa")
    assert "S: 250-XXXXXXXA" in lab("talk", "-6", given=EHLO)


def test_the_asymmetric_pair_watches_and_an_enforcing_one_ends_the_connection() -> None:
    lab("up", "asymmetric")
    assert "S: 250-STARTTLS" in lab("talk", given=EHLO)
    assert wait_for("there", '"flow.asymmetric"')  # it sees the client alone
    assert wait_for("back", '"flow.midstream"')  # and this one no beginning
    lab("set", "back", "--mode", "enforce")
    assert nfmailguard("talk", given=EHLO).returncode == 1


def test_the_ecmp_pair_shares_connections_and_breaks_none() -> None:
    lab("up", "ecmp")
    for number in range(60):
        talk = lab("talk", *["-6"] * (number % 2), given="QUIT\n")
        assert "S: 221 Bye" in talk
        if number % 6 == 5 and events("a") and events("b"):
            break
    assert events("a") > 0
    assert events("b") > 0
    both = [lab("exec", host, "--", "cat", f"/mnt/{host}/eve.json") for host in "ab"]
    assert ["flow.asymmetric" in text for text in both] == [False, False]


def test_a_file_of_ones_own_with_networks_a_switch_and_an_mtu(tmp_path: Path) -> None:
    text = plans.text_named("one").replace('hosts = ["client", "gateway"]', 'hosts = ["client", "other", "gateway"]')
    text = text.replace(
        'hosts = ["gateway", "server"]', 'hosts = ["gateway", "server"]\nipv4 = "192.0.2.0/28"\nmtu = 1300'
    )
    tmp_path.joinpath("own.toml").write_text(text + '[host.other]\nrole = "client"\n')
    lab("up", str(tmp_path / "own.toml"))
    assert "S: 250-XXXXXXXA" in lab("talk", "--to", "192.0.2.2", given=EHLO)
    assert " mtu 1300 " in lab("exec", "server", "--", "ip", "link", "show", "net0")
    argv = [sys.executable, "-m", "nfmailguard.lab.talk", "192.0.2.2"]
    assert "S: 221 Bye" in lab("exec", "other", "--", *argv, given="QUIT\n")


def test_delay_is_there_or_its_lack_is_one_line(tmp_path: Path) -> None:
    text = plans.text_named("one").replace(
        'hosts = ["gateway", "server"]', 'hosts = ["gateway", "server"]\ndelay = "150ms"'
    )
    tmp_path.joinpath("slow.toml").write_text(text)
    done = nfmailguard("up", str(tmp_path / "slow.toml"))
    if done.returncode:
        assert done.stderr.splitlines() == [
            (
                "nfmailguard: lab: link 2: delay: this kernel has no netem (CONFIG_NET_SCH_NETEM); load its module with"
                " `modprobe sch_netem`, or leave delay out"
            )
        ]
        assert NAME not in standing.names()
        return
    before = time.monotonic()
    lab("talk", given="QUIT\n")
    assert time.monotonic() - before > 0.9  # three round trips
    assert re.search(r"netem.* delay 150ms", lab("exec", "server", "--", "tc", "qdisc", "show", "dev", "net0"))


def test_all_that_is_wrong_in_a_file_is_told_and_no_lab_is_made(tmp_path: Path) -> None:
    tmp_path.joinpath("bad.toml").write_text('[host.client]\nprofile = "asa"\n[[link]]\nhosts = ["client", "moon"]\n')
    done = nfmailguard("up", str(tmp_path / "bad.toml"))
    assert done.returncode == 2
    keys = [line.split("bad.toml: ")[1].split(": ")[0] for line in done.stderr.splitlines()]
    assert keys == ["host.client.profile", "host", "link 1"]
    assert NAME not in standing.names()
