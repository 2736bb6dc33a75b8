"""Exim and OpenSMTPD on a lab host, out of their Debian packages, which one machine cannot have together.

``deploy/setup test`` unpacks them under build/servers and installs nothing. Each runs in a mount
namespace of its own, where its files lie over the machine's and its users exist.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nfmailguard.lab.topology import SERVER, Topology

ROOT = Path(__file__).parents[2] / "build" / "servers"
_USERS = {"Debian-exim": 65100, "opensmtpd": 65101, "opensmtpq": 65102}
_EXIM = """\
primary_hostname = mail2.example.com
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
local_interfaces = {address}
daemon_smtp_ports = 25
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = accept
begin acl
begin routers
begin transports
begin retry
begin authenticators
"""
_OPENSMTPD = """\
listen on {address} port 25 hostname mail2.example.com
action "keep" maildir "{directory}/mail"
match from any for any action "keep"
"""
_COMMANDS = {
    "exim": "exec /usr/sbin/exim4 -C {directory}/config -bdf",
    "opensmtpd": "exec /usr/sbin/smtpd -d -f {directory}/config",
}


def unpacked() -> bool:
    """Whether both can be run here."""
    return (ROOT / "usr/sbin/exim4").exists() and (ROOT / "usr/sbin/smtpd").exists()


class Other:
    """One of them, listening on the server's address; ends with its context."""

    def __init__(self, topology: Topology, directory: Path, kind: str) -> None:
        directory.mkdir(parents=True)
        for name in ("spool", "log", "mail", "lib/opensmtpd/empty"):
            (directory / name).mkdir(parents=True)
        for name in ("spool", "log"):
            shutil.chown(directory / name, _USERS["Debian-exim"], _USERS["Debian-exim"])
        for parent in (directory, *directory.parents):
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        address = topology.address(SERVER)
        config = _EXIM if kind == "exim" else _OPENSMTPD
        (directory / "config").write_text(config.format(directory=directory, address=address))
        for file in ("passwd", "group"):
            lines = [
                f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin"
                if file == "passwd"
                else f"{name}:x:{number}:"
                for name, number in _USERS.items()
            ]
            (directory / file).write_text(Path("/etc", file).read_text() + "\n".join(lines) + "\n")
        # Nobody there says so at once: a server that looks its client up does not wait.
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        script = (
            f"set -e; for file in passwd group resolv.conf; do mount --bind {directory}/$file /etc/$file; done;"
            f" mount -t overlay overlay -o lowerdir={ROOT}/usr:/usr /usr; mount -t tmpfs tmpfs /var/spool;"
            f" mkdir -m 711 /var/spool/smtpd; mount --bind {directory}/lib /var/lib;" + _COMMANDS[kind]
        ).format(directory=directory)
        self._log = (directory / "output").open("wb")
        command = ["unshare", "-m", "sh", "-c", script]
        self._process: subprocess.Popen[Any] = topology.popen(SERVER, command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 15
        while True:
            try:
                with topology.enter(SERVER), socket.create_connection((address, 25), timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self._end()
                    raise AssertionError(f"{kind} does not listen: {(directory / 'output').read_text()}") from None
                time.sleep(0.05)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
