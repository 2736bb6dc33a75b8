"""`lab compare` live: a slice of the matrix comes out as expected, and a client that lies is found out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nfmailguard.lab.matrix import receivers, senders
from nfmailguard.lab.namespaces import may_change_users

pytestmark = pytest.mark.live


def compare(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "lab", "compare", "--json", *words]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=500, env={**os.environ, **environment}
    )
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def skip_without(clients: tuple[str, ...], servers: tuple[str, ...]) -> None:
    absent = [*filter(None, map(senders.missing, clients)), *filter(None, map(receivers.missing, servers))]
    if absent:
        pytest.skip(f"not here: {', '.join(absent)}; `deploy/setup compare` gets them")
    if not may_change_users():
        pytest.skip("needs the machine's root: its servers change users")


def test_a_slice_comes_out_as_expected(tmp_path: Path) -> None:
    clients, servers = ("postfix", "msmtp", "swaks"), ("exim", "opensmtpd")
    skip_without(clients, servers)
    page = tmp_path / "compare.html"
    named = [f"--client={one}" for one in clients] + [f"--server={one}" for one in servers]
    done = compare(*named, "--profile=asa-tls", "--profile=pix63", f"--html={page}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["met"] == found["cells"] == len(found["matrix"]) == 3 * 2 * 2 * 3
    came = {(one["client"], one["server"], one["profile"], one["mode"]): one for one in found["matrix"]}
    assert came["swaks", "exim", "pix63", "monitor"]["auth"]
    assert came["swaks", "exim", "asa-tls", "enforce"]["tls"]
    assert not came["postfix", "exim", "asa-tls", "enforce"]["ehlo"]
    assert came["swaks", "opensmtpd", "pix63", "restore"]["ehlo"]
    assert "restore.command" in came["swaks", "opensmtpd", "pix63", "restore"]["log"]
    lost = [cell for cell, one in came.items() if not one["delivered"]]
    assert {cell[0] for cell in lost} == {"msmtp"}
    assert page.read_text().count("<caption>") > 6


#: Says that it has sent a mail, and has not, or has sent another one.
LIARS = {
    "nothing": "exit 0",
    "another body": """
import smtplib, sys
words = sys.argv
def after(word):
    return words[words.index(word) + 1]
host = after("--url").removeprefix("smtp://").partition(":")[0]
with smtplib.SMTP(host, 25, source_address=(after("--interface"), 0)) as smtp:
    mail = open(after("--upload-file"), "rb").read().replace(b"250 OK", b"250 ok")
    smtp.sendmail(after("--mail-from"), [after("--mail-rcpt")], mail)
""",
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_client_that_lies_is_found_out(lie: str, tmp_path: Path) -> None:
    program = tmp_path / "curl"
    interpreter = "#!/bin/sh\n" if lie == "nothing" else f"#!{sys.executable}\n"
    program.write_text(interpreter + LIARS[lie])
    program.chmod(0o755)
    named = ("--client=curl", "--server=aiosmtpd", "--profile=rfc821", "--mode=monitor")
    done = compare(*named, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1, done.stdout + done.stderr
    (one,) = json.loads(done.stdout)["matrix"]
    told = "the client was told it was, and it was not" if lie == "nothing" else "its body is another one"
    assert told in one["surprises"]
    assert not one["delivered"]


def test_a_name_that_is_none_is_a_mistake_in_one_line() -> None:
    done = compare("--client=outlook")
    assert done.returncode == 2
    assert re.fullmatch(r"nfmailguard: --client outlook: unknown here; one of swaks, [a-z, ]+\n", done.stderr)
