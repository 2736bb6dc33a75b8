"""What a gateway gives up, in the process that runs; and that it needs what it keeps: each entry is taken away once."""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from queue_router import SERVER, Router, router_or_skip
from test_gateway import Gateway, dialogue

from nfmailguard.confinement.systemcalls import CALLS
from nfmailguard.errors import NfmailguardError
from nfmailguard.service.asking import Asking

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the table of calls is this machine's"),
]

PROGRAM = Path(__file__).with_name("confined_gateway.py")
NOBODY = 65534
PATIENCE = 5.0
OURS = (path for path in sys.path if path and not Path(path).is_relative_to(sys.base_prefix))
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(OURS)}
#: What ends an operation whose gateway lacks something.
FAILED = (AssertionError, OSError, NfmailguardError, subprocess.TimeoutExpired, ValueError)


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


class Impatient(Gateway):
    """Of which some hang for want of what they lack."""

    def read_line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], 2 * PATIENCE)[0]:
            self.process.kill()
        return super().read_line()


class Confined:
    """Gateways in a folder, with a configuration that may be changed, systemd and a journal."""

    def __init__(self, router: Router, folder: Path, what: str, stack: ExitStack) -> None:
        self.router, self.folder, self.what, self.stack = router, folder, what, stack
        self.eve, self.control = folder / "eve.json", folder / "control.sock"
        self.systemd, self.journal = (self._listening(folder / name) for name in ("notify", "journal"))
        self.options: dict[str, dict[str, object]] = {
            "gateway": {"mode": "enforce", "profile": "pix63"},
            "log": {"eve": str(self.eve), "stats": 0.3},
            "service": {"control": str(self.control), "confine": "require"},
            "syslog": {},
            "queue": {},
        }
        self.python = sys.executable
        self.started_by: list[str] = []
        self.more: list[str] = []
        self.gateway: Gateway

    def _listening(self, path: Path) -> socket.socket:
        link = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        link.bind(str(path))
        path.chmod(0o666)
        link.settimeout(PATIENCE)
        return link

    def set(self, **sections: object) -> None:
        """Keys as ``SECTION_KEY``."""
        for name, value in sections.items():
            section, _, key = name.partition("_")
            self.options[section][key] = value
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for section, keys in self.options.items()
        )
        (self.folder / "nfmailguard.toml").write_text(text)

    def start(self, **sections: object) -> None:
        self.set(**sections)
        self.run()

    def run(self) -> None:
        program = [*self.started_by, self.python, str(PROGRAM), self.what, str(self.folder / "journal"), "run"]
        program += ["-c", str(self.folder / "nfmailguard.toml"), *self.more]
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("NOTIFY_SOCKET", str(self.folder / "notify"))
            patched.setenv("WATCHDOG_USEC", "800000")
            patched.setenv("PYTHONPATH", PATHS["PYTHONPATH"])
            self.gateway = self.stack.enter_context(Impatient(self.router, program=program))
        assert self.gateway.first_line.startswith("nfmailguard: ready")

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it told of errors."""
        self.gateway.process.send_signal(signal.SIGTERM)
        try:
            _, err = self.gateway.process.communicate(timeout=2 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.gateway.process.kill()
            raise
        return self.gateway.process.returncode, err

    def ask(self, command: str, **arguments: object) -> dict[str, object]:
        with Asking(str(self.control), timeout=PATIENCE) as asking:
            found = asking.ask(command, **arguments)
            assert isinstance(found, dict)
            return found

    def mail(self) -> None:
        address = (SERVER[4], 25)
        with self.router.run(self.router.server, lambda: socket.create_server(address)) as server:
            server.settimeout(PATIENCE)
            with self.router.run(
                self.router.client, lambda: socket.create_connection(address, timeout=PATIENCE)
            ) as client:
                link, _ = server.accept()
                with link:
                    link.settimeout(PATIENCE)
                    link.sendall(b"220 mail.example.com ESMTP\r\n")
                    assert client.recv(100).startswith(b"220 **")
                    client.sendall(b"EHLO me\r\n")
                    assert link.recv(100) == b"XXXX me\r\n"

    def wait(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not met():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def status(self, thread: int | None = None) -> dict[str, str]:
        where = Path(f"/proc/{self.gateway.process.pid}")
        text = (where / f"task/{thread}/status" if thread else where / "status").read_text()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def answers(one: Confined) -> None:
    one.start()
    assert one.ask("status")["pid"] == one.gateway.process.pid
    one.mail()
    assert one.ask("flows")["of"]
    assert "queue.kernel_queue_total" in one.ask("stats")
    while one.systemd.recv(4096) != b"WATCHDOG=1":
        pass
    # The main one, the queue's, the control socket's and the watchdog's: that of `flows` has ended.
    one.wait(lambda: one.status()["Threads"] == "4")


def sleeps_while_nothing_comes(one: Confined) -> None:
    one.start()

    def sleeps() -> int:
        counted = one.ask("stats")["queue.sleeps"]
        assert isinstance(counted, int)
        return counted

    before = sleeps()
    time.sleep(1)
    assert sleeps() - before < 1000, "it goes round and round"


def ends(one: Confined) -> None:
    one.start()
    assert one.end() == (0, "")
    assert not one.control.exists()


def reloads(one: Confined) -> None:
    one.start()
    one.set(gateway_profile="asa", log_eve=os.path.relpath(one.eve), queue_numbers="0")
    assert one.ask("reload")["changed"]
    one.eve.rename(one.eve.with_suffix(".1"))
    one.gateway.process.send_signal(signal.SIGHUP)
    one.wait(one.eve.exists)
    one.wait(lambda: "stats" in one.eve.read_text())


def reloads_what_is_a_link(one: Confined) -> None:
    """A configuration and a log that lie elsewhere, and are replaced there."""
    elsewhere = one.folder / "elsewhere"
    elsewhere.mkdir()
    one.eve.symlink_to(elsewhere / "eve.json")
    one.start()
    settings = one.folder / "nfmailguard.toml"
    settings.rename(elsewhere / "new.toml")
    settings.symlink_to(elsewhere / "new.toml")
    one.end()
    one.run()
    (elsewhere / "newer.toml").write_text((elsewhere / "new.toml").read_text().replace("pix63", "asa"))
    (elsewhere / "newer.toml").rename(elsewhere / "new.toml")
    (elsewhere / "eve.json").rename(elsewhere / "eve.1")
    assert one.ask("reload")["changed"] == ["gateway.profile: pix63 -> asa"]
    one.wait((elsewhere / "eve.json").exists)


def goes_on_after_a_stop(one: Confined) -> None:
    one.start()
    for _ in range(3):
        one.gateway.process.send_signal(signal.SIGSTOP)
        one.wait(lambda: one.status()["State"].startswith("T"))
        one.gateway.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
    assert one.gateway.process.poll() is None
    one.mail()


def feeds_the_watchdog(one: Confined) -> None:
    one.start()
    heard = [one.systemd.recv(4096).partition(b"\n")[0] for _ in range(3)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def leaves_and_comes_back(one: Confined) -> None:
    one.start()
    assert one.ask("bypass", on=True)["rules"] == "away: bypass is on"
    assert one.ask("bypass", on=False)["rules"] == "in place"


def serves_the_other_driver(one: Confined) -> None:
    one.start(queue_driver="netfilterqueue")
    one.mail()


def pins_its_threads(one: Confined) -> None:
    one.start(queue_cpus=[0])
    one.mail()


def python_for_nobody() -> str:
    """An interpreter with our packages, not below a folder that is root's alone."""
    for path in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            command = [path, "-c", "import nfmailguard.cli, nfmailguard.service.gateway, pyroute2"]
            if (
                subprocess.run(
                    command, user=NOBODY, group=NOBODY, capture_output=True, env=PATHS, check=False
                ).returncode
                == 0
            ):
                return path
    pytest.skip("no interpreter with our packages that `nobody` may run")


def is_asked_by_its_own_user(one: Confined) -> None:
    one.folder.chmod(0o777)
    one.python = python_for_nobody()
    one.start(service_user="nobody")
    assert one.status()["Uid"].split() == [str(NOBODY)] * 4
    command = [one.python, "-m", "nfmailguard", "status", "--socket", str(one.control)]
    done = subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, env=PATHS, text=True, check=False)
    assert "confined: user nobody, CAP_NET_ADMIN, " in done.stdout, done.stderr


def hands_over(one: Confined) -> None:
    """To another of its kind, of what a process has that has given everything else up."""
    one.start()
    before = one.gateway
    one.more = ["--hand-over"]
    one.run()
    assert before.process.wait(PATIENCE) == 0
    assert f"'process': {before.process.pid}" in str(one.ask("status")["taken_over"])
    one.mail()


def finding(one: Confined) -> None:
    """One that an ASA logs."""
    dialogue(one.router, b"EHLO me\r\n", b"NOOP " + b"x" * 30 + b"\r\n")


def with_findings(one: Confined, target: str) -> None:
    one.options["policy.commands"] = {"line_length": 20}
    one.options["policy.actions"] = {"command.too_long": "log"}
    one.start(gateway_profile="asa", syslog_target=target)
    finding(one)


def logs_over(one: Confined, family: int, host: str, shown: str) -> None:
    kinds = ((socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "tcp"))
    for kind, word in kinds:
        with one.router.run(one.router.gateway, lambda kind=kind: socket.socket(family, kind)) as server:
            server.bind((host, 0))
            server.settimeout(PATIENCE)
            if kind == socket.SOCK_STREAM:
                server.listen()
            with_findings(one, f"{word}://{shown}:{server.getsockname()[1]}")
            link = server.accept()[0] if kind == socket.SOCK_STREAM else server
            with link:
                link.settimeout(PATIENCE)
                assert b"%ASA-6-108005" in link.recv(4096)
        one.end()


def logs_to_a_server(one: Confined) -> None:
    logs_over(one, socket.AF_INET, "127.0.0.1", "127.0.0.1")


def logs_over_ipv6(one: Confined) -> None:
    logs_over(one, socket.AF_INET6, "::1", "[::1]")


def logs_to_a_name(one: Confined) -> None:
    """Whose address its servers of names are asked for: both kinds of it at once, as glibc does."""
    servers = [line.split()[1] for line in Path("/etc/resolv.conf").read_text().splitlines() if "nameserver" in line]
    if not servers or ":" in servers[0]:
        pytest.skip("no server of names here, or one that only IPv6 reaches")
    add = ["ip", "address", "replace", f"{servers[0]}/32", "dev", "lo"]
    one.router.run(one.router.gateway, lambda: subprocess.run(add, check=True))
    with one.router.run(one.router.gateway, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as names:
        names.bind((servers[0], 53))
        names.settimeout(PATIENCE)
        one.start(syslog_target="udp://logs.nfmailguard.example:514")
        asked = {names.recv(512)[-4:-2] for _ in range(2)}
        assert asked == {b"\0\x01", b"\0\x1c"}  # A and AAAA
        # Nobody answers, and the thread that asked does not keep the gateway from ending.
        began = time.monotonic()
        assert one.end() == (0, "")
        assert time.monotonic() - began < PATIENCE


def logs_to_a_socket(one: Confined) -> None:
    with_findings(one, f"unix://{one.folder}/journal")
    assert b"%ASA-6-108005" in one.journal.recv(4096)


def tells_the_journal(one: Confined) -> None:
    one.start(log_eve="journald")
    one.mail()
    seen = b""
    while b"NFMAILGUARD_MAILGUARD_FINDING=command.denied\n" not in seen:
        seen = one.journal.recv(1 << 20)
    assert b"MESSAGE_ID=6a1c0d3c5c9f4f0e9a52d6a4a4c5f101\n" in seen


def tells_the_journal_much(one: Confined) -> None:
    """More than a datagram holds: a memory file comes in its place."""
    one.start(log_eve="journald")
    long = [f"idle = {number}" for number in range(9000)]
    text = "\n".join(f"[limits{number}]\n{line}" for number, line in enumerate(long))
    (one.folder / "nfmailguard.toml").write_text(text)
    with suppress(NfmailguardError):
        one.ask("reload")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        _, descriptors, _, _ = socket.recv_fds(one.journal, 1 << 20, 1)
        if descriptors:
            with os.fdopen(descriptors[0], "rb") as file:
                file.seek(0)
                assert b'"reload":"refused"' in file.read()
            return
    raise AssertionError("nothing came in a file")


OPERATIONS = (
    answers,
    sleeps_while_nothing_comes,
    ends,
    reloads,
    reloads_what_is_a_link,
    goes_on_after_a_stop,
    feeds_the_watchdog,
    leaves_and_comes_back,
    serves_the_other_driver,
    pins_its_threads,
    is_asked_by_its_own_user,
    hands_over,
    logs_to_a_server,
    logs_over_ipv6,
    logs_to_a_name,
    logs_to_a_socket,
    tells_the_journal,
    tells_the_journal_much,
)


def confined(router: Router, what: str, does: Callable[[Confined], None]) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # pytest's own let nobody else in
        does(Confined(router, folder, what, stack))


@pytest.mark.parametrize("does", OPERATIONS, ids=lambda does: does.__name__)
def test_a_confined_gateway(router: Router, does: Callable[[Confined], None]) -> None:
    confined(router, "whole", does)


def test_what_a_confined_gateway_cannot_do(router: Router) -> None:
    """As root, which it may stay: tried in the process that runs."""

    def tries(one: Confined) -> None:
        one.start()
        found = json.loads(one.gateway.read_line())
        assert found.pop("/root") == found.pop("/etc/shadow") == "Permission denied"
        assert {name for name, outcome in found.items() if outcome == "done"} == set()
        assert len(found) > 20
        one.mail()

    confined(router, "probe", tries)


@pytest.mark.parametrize("user", ["", "nobody"])
def test_every_thread_is_confined(router: Router, user: str) -> None:
    def looks(one: Confined) -> None:
        one.folder.chmod(0o777)
        one.python = python_for_nobody() if user else sys.executable
        one.start(service_user=user)
        one.ask("flows")
        threads = [int(path.name) for path in Path(f"/proc/{one.gateway.process.pid}/task").iterdir()]
        assert len(threads) >= 3
        for status in map(one.status, threads):
            sets = {name: int(status[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")}
            assert sets == {"Eff": 1 << 12, "Prm": 1 << 12, "Bnd": 1 << 12, "Inh": 0, "Amb": 0}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert set(status["Uid"].split()) == {str(NOBODY if user else 0)}
            assert set(status["Gid"].split()) == {str(NOBODY if user else 0)}
        standing = one.ask("status")["confinement"]
        assert isinstance(standing, dict)
        assert standing["confined"]
        assert standing["capabilities"] == standing["bounding"] == ["CAP_NET_ADMIN"]
        assert (standing["user"], standing["system_calls"]) == (user or "root", len(CALLS))
        assert standing["landlock"] >= 1

    confined(router, "whole", looks)


def test_a_user_who_cannot_write_the_log_is_told_what_to_do(router: Router) -> None:
    def looks(one: Confined) -> None:
        one.python = python_for_nobody()
        one.folder.chmod(0o755)
        with pytest.raises(AssertionError):
            one.start(service_user="nobody")
        _, err = one.gateway.process.communicate(timeout=PATIENCE)
        wanted = f"log.eve: {one.eve}: user nobody (service.user) cannot write it; `chown nobody {one.folder}`"
        assert err == f"nfmailguard: {wanted}\n"
        one.eve.touch()
        os.chown(one.eve, NOBODY, NOBODY)
        one.start(service_user="nobody")
        assert "cannot make it anew when a rotation has moved it away; `chown nobody" in one.gateway.read_line()

    confined(router, "whole", looks)


def test_a_rotated_log_of_another_user_is_opened_anew(router: Router) -> None:
    def looks(one: Confined) -> None:
        one.folder.chmod(0o777)
        one.python = python_for_nobody()
        one.start(service_user="nobody")
        one.wait(one.eve.exists)
        one.eve.rename(one.eve.with_suffix(".1"))
        one.gateway.process.send_signal(signal.SIGHUP)
        one.wait(one.eve.exists)
        assert one.eve.stat().st_uid == NOBODY

    confined(router, "whole", looks)


def test_what_is_outside_is_refused_by_a_reload(router: Router) -> None:
    def looks(one: Confined) -> None:
        one.start()
        one.set(log_eve="/tmp/elsewhere/eve.json", syslog_target="tcp://192.0.2.1:1514")
        with pytest.raises(NfmailguardError) as told:
            one.ask("reload")
        assert told.value.lines == (
            "log.eve: /tmp/elsewhere/eve.json: outside the directories this gateway is confined to; needs a restart",
            "syslog.target: port 1514 over TCP: this gateway is confined to those it started with; needs a restart",
        )

    confined(router, "whole", looks)


CAPABILITIES = "-all,+net_admin,+net_raw"


def test_it_confines_itself_with_what_the_unit_leaves_it(router: Router) -> None:
    """Root with two capabilities in its bounding set, of which it may take none away."""

    def looks(one: Confined) -> None:
        one.started_by = ["setpriv", "--bounding-set", CAPABILITIES, "--inh-caps", "-all", "--no-new-privs"]
        one.start()
        one.mail()
        assert (int(one.status()["CapPrm"], 16), int(one.status()["CapBnd"], 16)) == (1 << 12, 3 << 12)
        standing = one.ask("status")["confinement"]
        assert isinstance(standing, dict)
        assert standing["bounding"] == ["CAP_NET_ADMIN", "CAP_NET_RAW"]
        assert standing["confined"]
        one.end()
        with pytest.raises(AssertionError):
            one.start(service_user="nobody")
        _, err = one.gateway.process.communicate(timeout=PATIENCE)
        wanted = "service.user: nobody: Operation not permitted; start as root, or with CAP_SETUID and CAP_SETGID"
        assert err == f"nfmailguard: {wanted}\n"

    confined(router, "whole", looks)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_units_filter_of_system_calls_leaves_what_it_needs(router: Router) -> None:
    def looks(one: Confined) -> None:
        one.started_by = [sys.executable, str(PROGRAM.with_name("unit_filter.py"))]
        one.start(queue_cpus=[0], log_eve="journald")
        one.mail()
        assert one.ask("reload") is not None
        assert one.ask("bypass", on=True)
        assert one.end() == (0, "")

    confined(router, "whole", looks)


def test_systemd_may_give_it_a_user_instead(router: Router) -> None:
    """As docs/daemon.md's `User=`: the group of the kernel's counters, and two ambient capabilities."""

    def looks(one: Confined) -> None:
        one.folder.chmod(0o777)
        one.python = python_for_nobody()
        who = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", "0"]
        sets = [f"--{name}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
        one.started_by = ["setpriv", *who, *(word for name in sets for word in (name, CAPABILITIES)), "--no-new-privs"]
        one.start()
        one.mail()
        assert int(one.status()["CapPrm"], 16) == 1 << 12
        assert set(one.status()["Uid"].split()) == {str(NOBODY)}
        assert "queue.kernel_queue_total" in one.ask("stats")
        assert one.end() == (0, "")

    confined(router, "whole", looks)


def test_without_confinement_everything_is_kept(router: Router) -> None:
    def looks(one: Confined) -> None:
        one.start(service_confine="no")
        assert int(one.status()["CapEff"], 16) != 1 << 12
        assert one.status()["Seccomp"] == "0"
        assert not one.ask("status")["confinement"]["confined"]  # type: ignore[index]

    confined(router, "whole", looks)


#: What fails without an entry, where it is not what every gateway does.
NEEDED_BY: dict[str, Callable[[Confined], None]] = {
    "recvmsg": reloads,
    "sendmsg": serves_the_other_driver,
    "ppoll": sleeps_while_nothing_comes,
    "pselect6": serves_the_other_driver,
    "unlink": ends,
    "memfd_create": tells_the_journal_much,
    "fcntl:1": tells_the_journal_much,
    "socket:0": logs_to_a_server,
    "socket:1": logs_to_a_server,
    "socket:2": logs_over_ipv6,
    "socket:3": logs_over_ipv6,
    "socket:4": feeds_the_watchdog,
    "bind": reloads,
    "connect": feeds_the_watchdog,
    "sendmmsg": logs_to_a_name,
    "exit_group": logs_to_a_name,
    "rt_sigaction": ends,
    "rt_sigreturn": ends,
    "restart_syscall": goes_on_after_a_stop,
    "geteuid": is_asked_by_its_own_user,
    "sched_setaffinity": pins_its_threads,
    "sched_getaffinity": reloads,
    "getcwd": reloads,
    "poll": feeds_the_watchdog,
    "mmap:1": logs_to_a_name,
    "gettid": ends,
    "getpriority": ends,
    "setpriority": ends,
    "uname": logs_to_a_socket,
}
ENTRIES = [
    *(name for name, call in CALLS.items() if len(call.only) < 2),
    *(f"{name}:{place}" for name, call in CALLS.items() if len(call.only) > 1 for place in range(len(call.only))),
    "CAP_NET_ADMIN",
]


#: One kind of each in `make test`; `make test-confined` takes every entry away once, for some five minutes.
SOME = ("futex", "recvmsg", "socket:4", "openat", "mmap:1", "CAP_NET_ADMIN")


@pytest.mark.parametrize("entry", ENTRIES if os.environ.get("CONFINED_ALL") else [e for e in ENTRIES if e in SOME])
def test_each_entry_is_needed(router: Router, entry: str) -> None:
    with pytest.raises(FAILED):
        confined(router, f"without:{entry}", NEEDED_BY.get(entry, answers))
