"""A lab that stands says who is where in it and how to go on; what takes long says how far it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from nfmailguard.lab import standing

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="a standing lab needs root")]


def nfmailguard(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)


def test_a_lab_says_who_is_where_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "PREFIX", f"nl{os.getpid()}-")  # a lab that somebody works in is left alone
    try:
        assert standing.up()
    except standing.LabError as error:
        pytest.skip(str(error))
    try:
        assert not standing.up()
        lines = list(standing.described())
        for host in standing.HOSTS:
            (line,) = [one for one in lines if one.startswith(host)]
            topology = standing._topology()
            shown = topology.run(host, ["ip", "-brief", "address"], capture_output=True, text=True).stdout
            for address in re.findall(r"(10\.25\.[\d.]+|fd25:[0-9a-f:]+)", line):
                assert f" {address}/" in shown
        assert all("nfmailguard lab " in one for one in lines[len(standing.HOSTS) :])
        assert lines[-1] == "end it:  nfmailguard lab down"
    finally:
        assert standing.down()


def test_a_comparison_says_how_far_it_is_where_no_terminal_is() -> None:
    done = nfmailguard("lab", "compare", "--profile", "pix63", "--profile", "rfc821")
    if "no permission" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == ["1 of 2: pix63", "2 of 2: rfc821"]
