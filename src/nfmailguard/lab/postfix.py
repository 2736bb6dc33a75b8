"""A separate Postfix on a lab host: own configuration, queue, log; the system's is not touched.

Promises: as a client it relays everything to one server; as a server it delivers everything to one maildir. Needs
Postfix installed and root, because Postfix changes users.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from nfmailguard.errors import LabError
from nfmailguard.lab.certificate import certify
from nfmailguard.lab.topology import Topology

__all__ = ["Postfix", "installed", "make_reachable"]

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/log/mail.log
maillog_file_prefixes = {directory}
myhostname = {name}
mydestination =
local_recipient_maps =
alias_maps =
inet_interfaces = {interfaces}
inet_protocols = all
disable_dns_lookups = yes
smtp_host_lookup = native
relayhost = {relay}
message_size_limit = 67108864
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""
# Only the Postfix services that the lab uses; none of them runs in a chroot, because the directories are the lab's own.
_SERVICES = (
    "rewrite:trivial-rewrite",
    "error",
    "retry:error",
    "smtp",
    "virtual",
)
_MASTER = """\
{listen} inet n - n - - smtpd{options}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
qmgr unix n - n 300 1 qmgr
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
"""


def installed() -> bool:
    """Whether Postfix is installed."""
    return shutil.which("postfix", path="/usr/sbin:/usr/bin") is not None


def make_reachable(directory: Path) -> None:
    """Lets every user enter a directory of root's under /tmp, and its parents; pytest makes them accessible to one user
    only.
    """
    for folder in (directory, *directory.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)


class Postfix:
    """One running instance; ends with its context.

    ``relay`` makes it a client of that address; otherwise it listens on ``addresses`` and accepts mail for example.com.
    ``settings`` are added after its own; if they need a certificate, there is one. ``verbose``: each command and reply
    is in its log. Raises LabError with Postfix's own message.
    """

    def __init__(
        self,
        topology: Topology,
        host: str,
        directory: Path,
        *,
        relay: str | None = None,
        addresses: tuple[str, ...] = (),
        settings: str = "",
        verbose: bool = False,
    ) -> None:
        if not installed():
            raise LabError("lab: no Postfix here; apt-get install postfix")
        self._topology, self._host, self.directory = topology, host, directory
        for name in ("config", "queue", "data", "log", "mail"):
            (directory / name).mkdir(parents=True)
        for name in ("data", "mail"):
            shutil.chown(directory / name, "postfix", "postfix")
        make_reachable(directory)
        owner = (directory / "mail").stat()
        main = _MAIN.format(
            directory=directory,
            name=f"{host}.example.{'net' if relay else 'com'}",
            interfaces=", ".join(addresses) if addresses else "loopback-only",
            relay=f"[{relay}]:25" if relay else "",
            domains="" if relay else "example.com",
            uid=owner.st_uid,
            gid=owner.st_gid,
        )
        (directory / "config/main.cf").write_text(main + settings.format(directory=directory))
        if "certificate.pem" in settings:
            certify(directory)
        services = (service.partition(":")[::2] for service in _SERVICES)
        lines = [f"{name} unix - n n - - {program or name}\n" for name, program in services]
        (directory / "config/master.cf").write_text(
            _MASTER.format(listen="25" if addresses else "2525", options=" -v" if verbose else "") + "".join(lines)
        )
        self._start()

    def _start(self) -> None:
        started = self._run("postfix", "-c", str(self.directory / "config"), "start")
        if started.returncode != 0:
            raise LabError(f"lab: Postfix did not start: {started.stderr.strip() or self.log()}")
        self.wait_for("daemon started")

    def _run(self, *command: str, octets: bytes | None = None) -> subprocess.CompletedProcess[str]:
        argv = self._topology.command(self._host, command)
        done = subprocess.run(argv, input=octets, capture_output=True, check=False)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    def log(self) -> str:
        """Everything it has logged so far."""
        path = self.directory / "log/mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, words: str, seconds: float = 30.0) -> str:
        """The log once it contains ``words``; LabError if it does not in time."""
        deadline = time.monotonic() + seconds
        while words not in (log := self.log()):
            if time.monotonic() > deadline:
                raise LabError(f"lab: Postfix has not logged {words!r} in {seconds:g} s: {log[-400:]}")
            time.sleep(0.05)
        return log

    def send(self, sender: str, recipient: str, mail: bytes) -> None:
        """Hands a mail with LF line ends to Postfix, as programs do, and returns at once."""
        done = self._run("sendmail", "-C", str(self.directory / "config"), "-i", "-f", sender, recipient, octets=mail)
        if done.returncode != 0:
            raise LabError(f"lab: sendmail: {done.stderr.strip()}")

    def mails(self) -> list[bytes]:
        """The mails it has delivered, as Postfix stores them: LF line ends, its own header fields first."""
        return [path.read_bytes() for path in sorted((self.directory / "mail/box/new").glob("*"))]

    def stop(self) -> None:
        """Ends it, by the pid of its master."""
        self._run("postfix", "-c", str(self.directory / "config"), "stop")

    def __enter__(self) -> Postfix:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
