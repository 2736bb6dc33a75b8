"""Labs that stand: what is in them, how they are spoken to, and that nothing is left of one however it ends."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nfmailguard.lab import standing
from nfmailguard.lab.postfix import installed
from nfmailguard.lab.unpacked import unpacked

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="its servers change users, as root")]

NAME = f"t{os.getpid()}"
#: How often a lab is taken up and down, and killed: `make test-lab` says 100.
TIMES = int(os.environ.get("LAB_TIMES", "5"))


def nfmailguard(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", *words]
    return subprocess.run(argv, check=False, input=given, capture_output=True, text=True, timeout=60)


def lab(*words: str, given: str = "", name: str = NAME) -> str:
    done = nfmailguard("lab", words[0], "--name", name, *words[1:], given=given)
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def gone() -> Iterator[None]:
    """Whatever a test leaves standing is taken down."""
    yield
    for name in standing.names():
        if name.startswith(NAME):
            standing.down(name)


class Traces:
    """What a lab could leave on this machine, where other tests come and go meanwhile."""

    def __init__(self) -> None:
        self.before = self._here()
        #: Namespaces of the labs there were. Held open, or their numbers would be given to others'.
        self.held: dict[str, int] = {}

    @staticmethod
    def _here() -> dict[str, set[str]]:
        tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return {
            "links": {path.name for path in Path("/sys/class/net").iterdir()} & {"net0", "inside", "outside"},
            "rules": {table for table in tables.splitlines() if table.endswith(" nfmailguard")},
            "files": {str(path) for place in ("/mnt", "/run/netns") for path in Path(place).glob("*")}
            & {"/mnt/server", "/mnt/gateway", "/mnt/gateway.toml", "/mnt/control"}
            | {name for name in ("client", "gateway", "server") if Path("/run/netns", name).exists()},
            "mounts": {line for line in mounts if " /mnt " in line},
        }

    def note(self) -> int:
        """Remembers what the lab that stands has; its first process."""
        pid = keeper()
        world = _link(f"/proc/{pid}/ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            if world and _link(f"{process}/ns/pid") == world:
                for kind in ("net", "pid"):
                    with suppress(OSError):
                        handle = os.open(process / "ns" / kind, os.O_RDONLY | os.O_CLOEXEC)
                        before = self.held.setdefault(_link(f"/proc/self/fd/{handle}"), handle)
                        if before != handle:
                            os.close(handle)
        assert len(self.held) >= 4
        return pid

    def left(self) -> dict[str, object]:
        now = self._here()
        alive = {_link(f"{path}/ns/{kind}") for path in Path("/proc").glob("[0-9]*") for kind in ("net", "pid")}
        return {
            "labs": [name for name in standing.names() if name.startswith(NAME)],
            "namespaces": self.held.keys() & alive,
            "processes": [
                path.parent.name
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if "nfmailguard.lab.keeper" in _text(path) and NAME in _text(path)
            ],
            **{what: found - self.before[what] for what, found in now.items()},
        }


def _link(path: str) -> str:
    with suppress(OSError):
        return str(Path(path).readlink())
    return ""


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_bytes().decode(errors="replace")
    return ""


def nothing_left(before: Traces) -> None:
    deadline = time.monotonic() + 20
    while left := {what: found for what, found in before.left().items() if found}:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    for handle in before.held.values():
        os.close(handle)


def keeper() -> int:
    link = standing._connect(NAME)
    if link is None:
        return 0
    with link:
        return standing._peer(link)[0]


def test_a_lab_has_a_server_and_a_gateway_and_says_how_to_go_on(gone: None) -> None:
    said = lab("up", "--gateway", "asa")
    assert said.startswith("lab ready\n")
    hosts = dict(re.findall(r"^(client|gateway|server) +(.*)$", said, re.MULTILINE))
    assert "nfmailguard enforce asa, " in hosts["gateway"]
    assert "aiosmtpd on port 25, 0 mails" in hosts["server"]
    for host, line in hosts.items():
        shown = lab("exec", host, "--", "ip", "-brief", "address")
        addresses = re.findall(r"(10\.25\.[\d.]+|fd25:[0-9a-f:]+)", line)
        assert len(addresses) in (2, 4)
        assert all(f" {address}/" in shown for address in addresses)
    talk = lab("talk", given="EHLO me.example\nXFOO\nQUIT\n")
    assert "S: 220 *****" in talk
    assert "S: 250-XXXXXXXA\n" in talk
    assert lab("up").startswith("this lab runs already")
    found = json.loads(lab("status", "--json"))
    assert found["gateway"] == {"mode": "enforce", "profile": "asa", "running": True, "said": ""}
    assert found["events"] >= 3


def test_the_next_steps_it_names_work(gone: None) -> None:
    said = lab("up", "--gateway", "asa")
    steps = re.findall(r"^  nfmailguard (lab \S+.*?)(?:    .*)?$", said, re.MULTILINE)
    assert len(steps) == 6
    for step in steps:
        program = [sys.executable, "-m", "nfmailguard"]
        words = [
            part for word in f"nfmailguard {step}".split() for part in (program if word == "nfmailguard" else [word])
        ]
        done = subprocess.run(words, check=False, input="QUIT\n", capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (step, done.stderr)
        if "nmap" in step:
            assert "25/tcp open" in done.stdout


def test_another_profile_takes_effect_between_two_connections_and_leaves_the_open_one(gone: None) -> None:
    lab("up", "--gateway", "asa")
    argv = ["lab", "talk", "--name", NAME]
    with subprocess.Popen(
        [sys.executable, "-m", "nfmailguard", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as telnet:
        assert telnet.stdin is not None
        assert telnet.stdout is not None
        assert telnet.stdout.readline().startswith(b"S: 220 ***")
        assert "gateway: enforce pix63" in lab("set", "--profile", "pix63")
        telnet.stdin.write(b"EHLO me.example\nQUIT\n")
        telnet.stdin.close()
        assert b"250-XXXXXXXA" in telnet.stdout.read()
    assert "S: 500 " in lab("talk", given="EHLO me.example\nQUIT\n")
    assert "gateway: monitor pix63" in lab("set", "--mode", "monitor")
    assert "S: 250-STARTTLS" in lab("talk", given="EHLO me.example\nQUIT\n")


def test_a_free_path_gets_a_gateway_later_and_a_wrong_profile_changes_nothing(gone: None) -> None:
    lab("up")
    assert "S: 250-STARTTLS" in lab("talk", given="EHLO me\nQUIT\n")
    lab("set", "--profile", "asa")
    assert "S: 250-XXXXXXXA" in lab("talk", given="EHLO me\nQUIT\n")
    done = nfmailguard("lab", "set", "--name", NAME, "--profile", "nosuch")
    assert done.returncode == 2
    assert "profile 'nosuch': unknown" in done.stderr
    assert json.loads(lab("status", "--json"))["gateway"]["profile"] == "asa"


def test_a_host_that_is_none_is_told_with_those_there_are(gone: None) -> None:
    lab("up")
    done = nfmailguard("lab", "exec", "--name", NAME, "moon", "--", "true")
    assert done.returncode == 1
    assert "no host 'moon'; the hosts are client, gateway, server" in done.stderr


def test_a_profile_of_ones_own_is_found_from_where_one_is(gone: None, tmp_path: Path) -> None:
    tmp_path.joinpath("mine.toml").write_text('[commands]\nallow = ["HELO", "QUIT"]\n')
    argv = [sys.executable, "-m", "nfmailguard", "lab", "up", "--name", NAME, "--gateway", "./mine.toml"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "S: 500 " in lab("talk", given="NOOP\nQUIT\n")


@pytest.mark.parametrize("kind", ["postfix", "exim", "opensmtpd", "sendmail"])
def test_real_servers_serve_in_it(gone: None, kind: str) -> None:
    if not (installed() if kind == "postfix" else unpacked(kind)):
        pytest.skip(f"no {kind} here")
    assert f"{kind} on port 25" in lab("up", "--server", kind, "--gateway", "asa")
    mail = "HELO me.example\nMAIL FROM:<a@example.net>\nRCPT TO:<b@example.com>\nDATA\nSubject: x\n\nhello\n.\nQUIT\n"
    said = lab("talk", given=mail)
    assert re.search(r"C: \.\nS: 250 ", said), said
    assert "S: 220 *****" in said


def test_labs_stand_side_by_side(gone: None) -> None:
    names = f"{NAME}-a", f"{NAME}-b"
    lab("up", "--gateway", "asa", name=names[0])
    lab("up", "--gateway", "pix63", name=names[1])
    talks = [lab("talk", given="EHLO me\nQUIT\n", name=name) for name in names]
    assert ["XXXXXXXA" in talk for talk in talks] == [True, False]
    assert re.search(
        rf"^other labs: .*{names[1]}", lab("status", name=names[0]), re.MULTILINE
    )  # and whoever works here
    lab("down", name=names[0])
    assert lab("talk", given="QUIT\n", name=names[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "--server", "nosuch"], "--server nosuch: unknown; one of aiosmtpd, "),
        (["up", "--name", "A/b"], "'A/b' is no name for a lab"),
        (["talk", "--name", "t-nobody"], "; start one with `nfmailguard lab up --name t-nobody`"),
        (["exec", "--name", "t-nobody", "client", "--", "true"], "no lab 't-nobody' is running"),
        (["up", "--gateway", "asa", "--mode", "bogus"], "gateway.mode"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(words: list[str], said: str) -> None:
    done = nfmailguard("lab", *words)
    assert done.returncode == 2 or done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_start_takes_the_lab_with_it(gone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Traces()
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin")
    wanted = standing.Wanted("none", "/nonexistent/profile.toml")
    with pytest.raises(standing.LabError, match="nonexistent"):
        standing.up(NAME, wanted)
    nothing_left(before)


def test_up_and_down_leaves_nothing(gone: None) -> None:
    before = Traces()
    for number in range(TIMES):
        assert standing.up(NAME, standing.Wanted("aiosmtpd", ("asa", "pix63")[number % 2]))
        before.note()
        assert standing.down(NAME)
    nothing_left(before)
    assert not standing.down(NAME)


def test_a_kill_at_any_moment_leaves_nothing(gone: None) -> None:
    before = Traces()
    dice = random.Random(16)
    workers: list[subprocess.Popen[bytes]] = []
    for _ in range(TIMES):
        words = [sys.executable, "-m", "nfmailguard", "lab", "up", "--name", NAME, "--gateway", "asa"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        victim = dice.choice(["up", "keeper", "world"])
        if victim == "up":
            time.sleep(dice.uniform(0, 2.5))
            process.kill()
            process.wait()
            if keeper():  # it stood already: that is what `lab up` is for
                standing.down(NAME)
        else:
            process.wait(120)
            pid = before.note()
            if dice.random() < 0.5:  # while somebody works in it
                workers.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            "-m",
                            "nfmailguard",
                            "lab",
                            "exec",
                            "--name",
                            NAME,
                            "server",
                            "--",
                            "sleep",
                            "60",
                        ]
                    )
                )
                time.sleep(dice.uniform(0, 0.5))
            if victim == "world":
                status = Path(f"/proc/{pid}/status").read_text()
                found = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
                assert found is not None
                pid = int(found[1])
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while NAME in standing.names():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    for worker in workers:
        assert worker.wait(20) != 0  # it ended with its lab
    nothing_left(before)


def test_it_needs_no_root_where_the_kernel_lets_anybody_make_namespaces(gone: None) -> None:
    program = f"{sys.executable} -m nfmailguard lab"
    script = (
        f"set -e; {program} up --name {NAME} --gateway asa; printf 'EHLO a\\nQUIT\\n' | {program} talk --name {NAME};"
        f" {program} down --name {NAME}"
    )
    argv = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "sh", "-c", script]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert "S: 250-XXXXXXXA" in done.stdout


def test_another_users_lab_is_not_spoken_to() -> None:
    """Anybody may take a name: what answers to it is asked whose it is first."""
    name = f"{NAME}-x"
    script = (
        "import os, socket, sys, time; os.setuid(65534); link = socket.socket(socket.AF_UNIX);"
        f" link.bind('\\0nfmailguard-lab/{name}'); link.listen(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        done = nfmailguard("lab", "status", "--name", name)
        stranger.kill()
    assert "is another user's (uid 65534)" in done.stderr


def test_a_comparison_says_how_far_it_is_where_no_terminal_is() -> None:
    argv = ["lab", "restore", "--profile", "pix63", "--profile", "rfc821"]
    done = subprocess.run(
        [sys.executable, "-m", "nfmailguard", *argv], check=False, capture_output=True, text=True, timeout=300
    )
    if "no permission" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == ["1 of 2: pix63", "2 of 2: rfc821"]


def test_talk_says_what_is_not_printable_escaped_and_when_it_is_over() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        argv = [sys.executable, "-c", ("import sys; from nfmailguard.lab.talk import main; sys.exit(main('127.0.0.1', "
                f"{listener.getsockname()[1]}))")]  # fmt: skip
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as talk:
            link, _ = listener.accept()
            with link:
                link.sendall(b"220 \x1b[2J\xe2\x80\xae\r\n")
                assert talk.stdin is not None
                talk.stdin.write("EHLO \x1b\n")
                talk.stdin.flush()
                assert link.recv(100) == b"EHLO \x1b\r\n"
            out = talk.communicate(timeout=20)[0]
    assert out == "S: 220 \\x1b[2J\\xe2\\x80\\xae\nC: EHLO \\x1b\n# the connection has ended\n"
    assert talk.returncode == 1
