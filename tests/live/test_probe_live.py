"""``probe`` through the live gateway: what it learns, and what two places tell. Its answers: ``test_probe_table``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from nfmailguard.lab.postfix import Postfix, installed
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from tests.live.test_mail import is_real_root
from tests.support.mailservers import Other, unpacked

pytestmark = pytest.mark.live
SERVERS = ("aiosmtpd", "postfix", "exim", "opensmtpd")


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"np{os.getpid()}-") as made:
        yield made


def started(topology: Topology, kind: str, directory: Path) -> AbstractContextManager[Any]:
    if kind == "aiosmtpd":
        return MailServer(topology, directory)
    if not is_real_root():
        pytest.skip("needs the machine's root: the server changes users")
    if kind == "postfix":
        if not installed():
            pytest.skip("no Postfix here; apt-get install postfix")
        return Postfix(topology, SERVER, directory, addresses=(topology.address(SERVER),))
    if not unpacked():
        pytest.skip("no Exim and OpenSMTPD under build/servers; deploy/setup test unpacks them")
    return Other(topology, directory, kind)


def probed(topology: Topology, *options: str) -> tuple[int, Any]:
    """The exit code and what it printed, as JSON."""
    command = [sys.executable, "-m", "nfmailguard", "probe", topology.address(SERVER), "--timeout", "10", *options]
    done = topology.run(CLIENT, command, capture_output=True, text=True)
    assert done.returncode in (0, 1, 3), done.stderr
    return done.returncode, json.loads(done.stdout) if "--json" in options else done.stdout


def test_what_a_server_says_is_learned_for_restoring(topology: Topology, tmp_path: Path) -> None:
    with MailServer(topology, tmp_path / "mail"):
        _, block = probed(topology, "--learn")
        config = tmp_path / "restore.toml"
        config.write_text('[gateway]\nmode = "restore"\nprofile = "asa"\n[restore]\nside = "client"\n' + block)
        check = [sys.executable, "-m", "nfmailguard", "check", "-c", str(config)]
        assert topology.run(CLIENT, check, capture_output=True).returncode == 0
        with Gateway(topology, tmp_path / "gateway", "--mode", "enforce", "--profile", "asa"):
            code, _ = probed(topology, "--learn")
    assert "8BITMIME" in block
    assert code == 3, "what is masked is not learned"


@pytest.mark.parametrize(("kind", "changes"), [("aiosmtpd", False), ("postfix", False), ("exim", True)])
def test_a_greeting_that_holds_the_time_is_not_learned(
    topology: Topology, tmp_path: Path, kind: str, changes: bool
) -> None:
    with started(topology, kind, tmp_path / "server"):
        code, block = probed(topology, "--learn")
    assert code == 0
    assert ("banner = " in block) is not changes
    assert ("# left out: banner: it changes from one connection to the next" in block) is changes
    assert "SIZE" in block


def test_another_namespace_tells_where_the_box_is(topology: Topology, tmp_path: Path) -> None:
    gateway = ("--mode", "enforce", "--profile", "asa")
    with MailServer(topology, tmp_path / "mail"), Gateway(topology, tmp_path / "gateway", *gateway):
        code, found = probed(topology, "--from", topology.namespace(SERVER), "--json")
    assert (code, found["sure"], found["tls"]) == (1, "high", "stripped")
    (inside,) = found["vantages"]
    assert (inside["found"], inside["banner"], inside["tls"]) == (False, "clear", "offered")
    assert "the box is on the way from here, and not from there" in found["evidence"][-1]
    code, shown = probed(topology, "--from", "no-such-namespace")
    assert (code, shown) == (3, "")


def test_nobody_there_and_no_smtp_cannot_be_told(topology: Topology, tmp_path: Path) -> None:
    code, shown = probed(topology)
    assert (code, shown) == (3, "")
