"""Exim, OpenSMTPD and sendmail on a lab host, from their Debian packages, which one machine cannot have together.

``deploy/setup test`` unpacks them under build/servers and installs nothing. Each runs in a mount namespace of its own,
where its files cover the machine's and its users exist, and listens at both addresses. It writes to ``output``
(sendmail: ``traffic``) what it read as commands and what it answered. With a configuration of the caller's it runs as
in production instead, and writes logs. Needs the machine's root, because the servers change users.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nfmailguard.errors import LabError
from nfmailguard.lab.account import PASSWORD, USER
from nfmailguard.lab.certificate import certify
from nfmailguard.lab.topology import SERVER, Topology

__all__ = ["KINDS", "ROOT", "Unpacked", "configuration", "unpacked"]

ROOT = Path(__file__).parents[3] / "build" / "servers"
_USERS = {"Debian-exim": 65100, "opensmtpd": 65101, "opensmtpq": 65102}
# Configuration of Exim. Its limits on client errors are lifted, because the most permissive behaviour is what matters.
_EXIM = """\
primary_hostname = mail2.example.com
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
local_interfaces = <; {listed}
daemon_smtp_ports = 25
keep_environment =
tls_advertise_hosts = *
tls_certificate = {directory}/certificate.pem
tls_privatekey = {directory}/key.pem
host_lookup =
rfc1413_hosts =
queue_only = true
log_selector = +incoming_port
smtp_accept_max = 0
smtp_accept_max_nonmail_hosts = :
smtp_max_unknown_commands = 10000
smtp_max_synprot_errors = 10000
acl_smtp_rcpt = accept
acl_smtp_expn = accept
acl_smtp_vrfy = accept
begin acl
begin routers
begin transports
begin retry
begin authenticators
{auth}"""
_OPENSMTPD = """\
pki here cert "{directory}/certificate.pem"
pki here key "{directory}/key.pem"
{listens}action "keep" relay host smtp://127.0.0.1:2600
match from any for any action "keep"
"""
# Configuration of sendmail, readable without m4, with the minimum of rewriting rules.
_SENDMAIL = """\
V10/Berkeley
Djmail2.example.com
DnMAILER-DAEMON
Cwlocalhost mail2.example.com
O QueueDirectory={directory}/spool
O DeliveryMode=queueonly
{ports}O PrivacyOptions=public
O PidFile={directory}/sendmail.pid
O SmtpGreetingMessage=$j Sendmail {{${{client_addr}} ${{client_port}}}}
O Timeout.ident=0
O CACertPath=/var/lib
O CACertFile=/var/lib/certificate.pem
O ServerCertFile=/var/lib/certificate.pem
O ServerKeyFile=/var/lib/key.pem
O HelpFile=/dev/null
O DontBlameSendmail=Safe
O QueueLA=10000
O RefuseLA=10000
O DefaultUser=65534:65534
O OperatorChars=.:%@!^/[]+
O HostsFile=/etc/hosts
Troot daemon
H?D?Date: $a
H?F?From: $g
H?M?Message-Id: <$t.$i@$j>
HReceived: from $s by $j with $r id $i; $b
Scanonify=3
R$*<$*>$*\t$: $2
R$*@$*\t$: $1<@$2>
Sfinal=4
R$*<@$*>\t$: $1@$2
Sparse=0
R$*<@$*>\t$#esmtp $@ $2 $: $1<@$2>
R$*\t$#local $: $1
Scheck_rcpt
R$*\t$#OK
Mlocal, P=/bin/false, F=lsDFMAw5:/|@q, S=4, R=4, T=DNS/RFC822/X-Unix, A=false
Mprog, P=/bin/false, F=lsDFMoqeu9, S=4, R=4, T=X-Unix/X-Unix/X-Unix, A=false
M*file*, P=[FILE], F=lsDFMPEouq9, S=4, R=4, T=DNS/RFC822/X-Unix, A=FILE $u
Mesmtp, P=[IPC], F=mDFMuXa, S=4, R=4, E=\\r\\n, L=990, T=DNS/RFC822/SMTP, A=TCP $h
"""
#: Configuration of the lab's mail account for Exim; AUTH is accepted without TLS too.
_EXIM_ACCOUNT = f"""\
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{USER}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}
  server_set_id = $auth2
"""
_ACCOUNTS = {"exim": _EXIM_ACCOUNT, "sendmail": ", Modifiers=A"}  # sendmail gets a modifier that switches AUTH off.
_CONFIGS = {"exim": _EXIM, "opensmtpd": _OPENSMTPD, "sendmail": _SENDMAIL}
KINDS = tuple(_CONFIGS)
_PROGRAMS = {"exim": "usr/sbin/exim4", "opensmtpd": "usr/sbin/smtpd", "sendmail": "usr/libexec/sendmail/sendmail"}
_COMMANDS = {
    "exim": "exec /usr/sbin/exim4 -C {directory}/config -bdf -d-all+receive+pid",
    "opensmtpd": "exec /usr/sbin/smtpd -d -T smtp -f {directory}/config",
    "sendmail": "exec /usr/libexec/sendmail/sendmail -C {directory}/config -bD -X {directory}/traffic",
}
#: Commands that start the servers without the debug output that the lab reads; they log as they do in production.
_IN_SERVICE = {
    "exim": "exec /usr/sbin/exim4 -C {directory}/config -bdf -q1m",
    "opensmtpd": "exec /usr/sbin/smtpd -F -f {directory}/config",
    "sendmail": "exec /usr/libexec/sendmail/sendmail -C {directory}/config -bD -q1m",
}
#: Shell commands that make a private /dev for the server, in which the syslog socket is the caller's.
_SYSLOG = (
    "mkdir -p {directory}/dev; mount -t tmpfs tmpfs {directory}/dev; ln -s {directory}/log/socket {directory}/dev/log;"
    " for file in null zero full random urandom tty; do"
    " touch {directory}/dev/$file; mount --bind /dev/$file {directory}/dev/$file; done;"
    " mount --rbind {directory}/dev /dev; "
)
#: Where each server stores a mail: folder, and pattern of the file's name.
_MAILS = {"exim": ("spool/input", "*-D"), "opensmtpd": ("queued/smtpd/queue", "message"), "sendmail": ("spool", "df*")}


def _listening(addresses: Sequence[str], auth: str, tls: str) -> dict[str, str]:
    """The addresses as each configuration writes them; ``auth`` is added to sendmail's, ``tls`` to OpenSMTPD's."""
    listens = (f"listen on {one} port 25 hostname mail2.example.com{tls}\n" for one in addresses)
    ports = (
        f"O DaemonPortOptions=Name=MTA{number}, Addr={one}, Port=25, Family={'inet6' if ':' in one else 'inet'}{auth}\n"
        for number, one in enumerate(addresses)
    )
    return {"listed": " ; ".join(addresses), "listens": "".join(listens), "ports": "".join(ports)}


def unpacked(*kinds: str) -> bool:
    """Whether these servers (by default Exim and OpenSMTPD) can be run here."""
    return all((ROOT / _PROGRAMS[kind]).exists() for kind in kinds or ("exim", "opensmtpd"))


def configuration(kind: str) -> str:
    """The lab's own configuration, with names to fill in."""
    return _CONFIGS[kind]


class Unpacked:
    """One of these servers, listening on ``addresses``, by default the server host's; ends with its context.

    ``accounts``: Exim accepts AUTH with the lab's account, the others none. ``tls``: whether OpenSMTPD offers STARTTLS.
    ``configuration``: replaces the lab's own, with the same names to fill in. The server then runs as in production:
    Exim writes ``log/mainlog``, the others write to the syslog socket ``log/socket``, which the caller reads.
    """

    def __init__(
        self,
        topology: Topology,
        directory: Path,
        kind: str,
        configuration: str = "",
        *,
        host: str = SERVER,
        addresses: Sequence[str] = (),
        accounts: bool = False,
        tls: bool = True,
    ) -> None:
        if not unpacked(kind):
            raise LabError(f"lab: no {kind} under {ROOT}; `deploy/setup test` unpacks it")
        self.directory, self.kind = directory, kind
        self.said = directory / ("traffic" if kind == "sendmail" else "output")
        own = addresses or [topology.address(host, family=family) for family in (4, 6)]
        auth = _ACCOUNTS.get(kind, "") if accounts else ""
        filled = {"directory": directory, "auth": auth, **_listening(own, auth, " tls pki here" if tls else "")}
        self._write((configuration or _CONFIGS[kind]).format(**filled))
        script = (
            f"set -e; {_SYSLOG if configuration else ''}"
            "for file in passwd group resolv.conf hosts; do mount --bind {directory}/$file /etc/$file; done;"
            " mount -t overlay overlay -o lowerdir={root}/usr:/usr /usr; mount --bind {directory}/queued /var/spool;"
            " mount --bind {directory}/lib /var/lib; mount -t tmpfs tmpfs /run; "
            + (_IN_SERVICE if configuration else _COMMANDS)[kind]
        ).format(directory=directory, root=ROOT)
        self._log = (directory / "output").open("wb")
        command = ["unshare", "-m", "sh", "-c", script]
        self._process: subprocess.Popen[Any] = topology.popen(host, command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 60
        while True:
            try:
                with topology.enter(host), socket.create_connection((own[0], 25), timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self._end()
                    words = (directory / "output").read_text(errors="replace").strip().splitlines()
                    raise LabError(f"lab: {kind} does not listen: {words[-1] if words else 'no output'}") from None
                time.sleep(0.05)

    def _write(self, configuration: str) -> None:
        directory = self.directory
        for name in ("spool", "log", "mail", "lib/opensmtpd/empty", "queued/smtpd"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "queued/smtpd").chmod(0o711)
        if (pair := certify(directory)) is None:
            raise LabError("lab: no openssl here; apt-get install openssl")
        pair[1].chmod(0o600)
        # Copied to a directory of which no parent is writable by everybody, as sendmail requires for its certificate.
        for made in pair:
            shutil.copy(made, directory / "lib")
        if self.kind == "exim":
            for name in ("spool", "log"):
                shutil.chown(directory / name, _USERS["Debian-exim"], _USERS["Debian-exim"])
            shutil.chown(pair[1], _USERS["Debian-exim"])
        for parent in (directory, *directory.parents):
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        (directory / "config").write_text(configuration)
        (directory / "traffic").touch()
        for file in ("passwd", "group"):
            lines = [
                f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin"
                if file == "passwd"
                else f"{name}:x:{number}:"
                for name, number in _USERS.items()
            ]
            (directory / file).write_text(Path("/etc", file).read_text() + "\n".join(lines) + "\n")
        # Nothing listens at 127.0.0.1, so a server's DNS lookup of its client fails at once; sendmail needs a fully
        # qualified host name.
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        name = socket.gethostname()
        (directory / "hosts").write_text(f"127.0.0.1 {name}.example.com {name} localhost\n")

    def mails(self) -> list[bytes]:
        """The mails it has accepted, as it stores them: LF line ends, with or without header fields of its own."""
        folder, name = _MAILS[self.kind]
        return [path.read_bytes() for path in sorted((self.directory / folder).rglob(name))]

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
