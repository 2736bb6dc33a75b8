"""The process that a standing lab is: hosts, a server and a gateway live in its namespaces, and end when it does.

Run by ``standing`` as ``python -m nfmailguard.lab.keeper SOCKET LIFELINE WANTED NAME`` (the name is for `ps`), in a
private world, as its first process: whatever ends it, by a signal that cannot be caught too, the kernel ends every
process in here and takes the network, its rules and every file of the lab (under /mnt and /run) along. Answers a line
of JSON with another on the socket. Does not know what it is called.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from nfmailguard.errors import NfmailguardError
from nfmailguard.lab.namespaces import enter_private
from nfmailguard.lab.postfix import Postfix
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import HOSTS, SERVER, Topology
from nfmailguard.lab.unpacked import KINDS, Unpacked
from nfmailguard.service.asking import Asking

__all__ = ["CONFIG", "CONTROL", "DIRECTORY", "EVENTS", "SERVER_KINDS", "Keeper", "main"]

#: Inside of the lab: a file system of its own, which is gone with it.
DIRECTORY = Path("/mnt")
CONFIG, CONTROL, EVENTS = DIRECTORY / "gateway.toml", DIRECTORY / "control", DIRECTORY / "gateway" / "eve.json"
SERVER_KINDS = ("aiosmtpd", "postfix", *KINDS)
_MOST = 1 << 16  # bytes of a question
_PATIENCE = 5.0  # seconds for one
_POSTFIX_TLS = """\
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {directory}/certificate.pem
smtpd_tls_key_file = {directory}/key.pem
"""


class Keeper:
    """The lab while it stands."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.topology = stack.enter_context(Topology())
        self._gateway: Gateway | None = None
        self._server: MailServer | Postfix | Unpacked | None = None
        self._kind = ""
        self._wanted: dict[str, str] = {}

    def serve(self, kind: str) -> None:
        """Starts a mail server. Raises LabError."""
        directory = DIRECTORY / "server"
        addresses = tuple(self.topology.address(SERVER, family=family) for family in (4, 6))
        server: MailServer | Postfix | Unpacked
        if kind == "aiosmtpd":
            server = MailServer(self.topology, directory)
        elif kind == "postfix":
            server = Postfix(self.topology, SERVER, directory, addresses=addresses, settings=_POSTFIX_TLS)
        else:
            server = Unpacked(self.topology, directory, kind)
        self._stack.callback(server.__exit__, None, None, None)
        self._server, self._kind = server, kind

    def guard(self, profile: str, mode: str) -> list[str]:
        """Starts the gateway, or has it take other rules; what has changed. Raises LabError or what it says."""
        was, self._wanted = self._wanted, {"mode": mode, "profile": profile}
        before = CONFIG.read_text() if CONFIG.exists() else None
        CONFIG.write_text(f"[gateway]\nmode = {json.dumps(mode)}\nprofile = {json.dumps(profile)}\n")
        try:
            if self._gateway is not None and self._gateway.process.poll() is None:
                with Asking(str(CONTROL)) as asking:
                    return [str(line) for line in asking.ask("reload")["changed"]]
            options = ("-c", str(CONFIG), "--set", f"service.control={CONTROL}")
            self._gateway = self._stack.enter_context(Gateway(self.topology, DIRECTORY / "gateway", *options))
        except BaseException:
            self._wanted = was
            if before is not None:
                CONFIG.write_text(before)
            raise
        return []

    def status(self) -> dict[str, Any]:
        """Who is where, and what runs."""
        hosts = [
            [
                host,
                [
                    [end.interface, end.ipv4, end.ipv6]
                    for link in self.topology.links
                    for end in link
                    if end.host == host
                ],
            ]
            for host in HOSTS
        ]
        found: dict[str, Any] = {"hosts": hosts, "server": self._server_state(), "gateway": None}
        if self._gateway is not None:
            running = self._gateway.process.poll() is None
            with suppress(OSError):
                found["events"] = EVENTS.read_bytes().count(b"\n")
            found["gateway"] = {**self._wanted, "running": running, "said": "" if running else self._gateway.printed()}
        return found

    def _server_state(self) -> dict[str, Any] | None:
        if self._server is None:
            return None
        try:
            with self.topology.enter(SERVER), socket.create_connection((self.topology.address(SERVER), 25), 2):
                listens = True
        except OSError:
            listens = False
        return {"kind": self._kind, "listens": listens, "mails": len(self._server.mails())}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question.get("command") == "set":
            profile = question.get("profile") or self._wanted.get("profile", "pix63")
            mode = question.get("mode") or self._wanted.get("mode", "enforce")
            return {"changed": self.guard(str(profile), str(mode)), **self._wanted}
        return self.status()


def _tell(link: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(OSError):
        link.sendall(json.dumps(answer).encode() + b"\n")


def _reap(own: set[int]) -> None:
    """Processes whose parents have ended are this one's; those it started itself are waited for where they are."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def _one(link: socket.socket, keeper: Keeper) -> bool:
    """Answers one question; False when that was to end."""
    link.settimeout(_PATIENCE)
    try:
        asked = json.loads(link.makefile("rb").readline(_MOST))
    except (OSError, ValueError):
        return True
    if not isinstance(asked, dict):
        return True
    if asked.get("command") == "down":
        return False
    try:
        _tell(link, {"answer": keeper.answer(asked)})
    except (NfmailguardError, OSError, subprocess.SubprocessError) as error:
        _tell(link, {"error": str(error)})
    return True


def keep(door: socket.socket, lifeline: socket.socket, taken: threading.Event, wanted: dict[str, str]) -> None:
    """Builds the lab, says so on ``lifeline``, and answers on ``door`` until it is told to end."""
    with ExitStack() as stack:
        keeper = Keeper(stack)
        if wanted["server"] != "none":
            keeper.serve(wanted["server"])
        if wanted["gateway"]:
            keeper.guard(wanted["gateway"], wanted["mode"])
        door.listen(8)  # whoever asks learns this process's number from here
        _tell(lifeline, {"answer": keeper.status()})
        taken.wait()
        lifeline.close()
        while True:
            if select.select([door], [], [], 5)[0]:
                link, _ = door.accept()
                with link:
                    if not _one(link, keeper):
                        return
            _reap({process.pid for process in keeper.topology._processes})


def _watch(lifeline: socket.socket) -> threading.Event:
    """Set when whoever began the lab has taken it over; ends everything when that one goes before the lab stands."""
    taken = threading.Event()

    def wait() -> None:
        answer = b""
        with suppress(OSError):
            answer = lifeline.recv(1)
        if answer != b"+":
            os._exit(1)
        taken.set()

    threading.Thread(target=wait, daemon=True).start()
    return taken


def main(argv: list[str]) -> None:
    """Until the lab ends."""
    door, lifeline = (socket.socket(fileno=int(number)) for number in argv[:2])
    door.set_inheritable(False)
    lifeline.set_inheritable(False)
    taken = _watch(lifeline)
    # Its standard error is nobody's: a fault of ours is told to whoever began the lab.
    sys.excepthook = lambda kind, error, _: _tell(lifeline, {"error": f"lab: internal error: {kind.__name__}: {error}"})
    try:
        enter_private()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(DIRECTORY)], check=True)
        os.environ["TMPDIR"] = str(DIRECTORY)
        keep(door, lifeline, taken, json.loads(argv[2]))
    except (NfmailguardError, OSError, subprocess.SubprocessError) as error:
        _tell(lifeline, {"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
