"""What systemd is sent to keep, what it hands on, and whether it restarts a service."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.service.notify import Systemd
from nfmailguard.service.restarting import is_restarted


class Listener:
    """Reads what is sent to a manager, one message after the other, and closes what comes along, or keeps it."""

    def __init__(self, path: Path, *, reads: bool = True) -> None:
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.link.bind(str(path))
        self.link.settimeout(20)
        self.messages: list[tuple[str, list[int]]] = []
        self.thread = threading.Thread(target=self._read)
        if reads:
            self.thread.start()

    def _read(self) -> None:
        while not (self.messages and self.messages[-1][0] == "BARRIER=1"):
            message, files, _, _ = socket.recv_fds(self.link, 4096, 8)
            self.messages.append((message.decode(), list(files)))
        for file in self.messages[-1][1]:
            os.close(file)

    def close(self) -> None:
        if self.thread.ident:
            self.thread.join(20)
        self.link.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "notify")
    yield made
    made.close()


def test_files_are_kept_under_their_names_and_only_then_is_it_said(listener: Listener, tmp_path: Path) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert systemd.manages
    first, second = os.pipe()
    assert systemd.keep([("a-state", first), ("a-queue-7", second)])
    listener.close()
    said = [message for message, _ in listener.messages]
    assert said == ["FDSTORE=1\nFDNAME=a-state", "FDSTORE=1\nFDNAME=a-queue-7", "BARRIER=1"]
    for (_, files), file in zip(listener.messages, (first, second), strict=False):
        assert os.path.sameopenfile(files[0], file)
        os.close(files[0])
        os.close(file)


def test_a_manager_that_reads_nothing_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfmailguard.service.notify._BARRIER", 0.2)
    deaf = Listener(tmp_path / "notify", reads=False)
    assert not Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")}).keep([("a", 0)])
    deaf.close()
    assert not Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")}).keep([("a", 0)]), "nobody is there"
    assert not Systemd({}).keep([("a", 0)])
    assert not Systemd({}).manages


@pytest.mark.parametrize(
    ("process", "count", "names"),
    [("1", "1", "a"), ("", "1", "a"), ("{me}", "x", "a"), ("{me}", "-1", "a"), ("{me}", "0", ""), ("{me}", "", "")],
)
def test_what_is_kept_for_another_or_makes_no_sense_is_left_alone(process: str, count: str, names: str) -> None:
    environment = {"LISTEN_PID": process.format(me=os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
    systemd = Systemd(environment)
    assert (systemd.keeps, systemd.take_kept(), environment) == (False, {}, {})
    systemd.forget_kept()


SYSTEMCTL = """#!/bin/sh
[ "$*" = "list-jobs --no-legend --no-pager --plain --full" ] || exit 1
cat <<JOBS
{jobs}
JOBS
"""
WELL = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}


@pytest.mark.parametrize(
    ("jobs", "environment", "wanted"),
    [
        ("12 mail.service restart running", WELL, True),
        ("11 ssh.service start waiting\n12 mail.service restart running", WELL, True),
        ("12 mail.service stop running", WELL, False),
        ("12 other.service restart running", WELL, False),
        ("No jobs running.", WELL, False),
        ("", WELL, False),
        ("12 mail.service restart running", WELL | {"SERVICE_RESULT": "watchdog", "EXIT_STATUS": "KILL"}, False),
        ("12 mail.service restart running", {}, False),
    ],
)
def test_only_a_restart_of_a_service_that_ended_well_is_one(
    jobs: str, environment: dict[str, str], wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL.format(jobs=jobs))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert is_restarted("mail.service", environment) is wanted


def test_without_systemctl_nothing_is_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_restarted("mail.service", WELL)
