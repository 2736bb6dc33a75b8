"""Logs of real mail servers in the lab: ordinary days, and days behind a Mailguard.

    python -m tests.support.recording_logs [KIND ...]

writes them to ``tests/fixtures/logs/recorded`` (needs root, Postfix, and `deploy/setup test` for the others).
Four clients send mail, and mistakes; the server relays to four others, some of which are out of order. Does not
know what is found in a log.
"""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nfmailguard.lab.postfix import Postfix
from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.lab.unpacked import Unpacked, configuration

__all__ = ["BEHIND", "HOUR", "KINDS", "MAILS", "PEERS", "RECORDED", "Day", "recorded"]

RECORDED = Path(__file__).parents[1] / "fixtures" / "logs" / "recorded"
#: What a client at an address of its own says to a server.
Said = Callable[[str, str], None]
#: Where a box stands: nowhere, in front of this server, or in front of one of those it speaks with.
BEHIND = ("nothing", "yours", "theirs")
KINDS = ("postfix", "exim", "opensmtpd", "sendmail")
#: Who sends to the server, and whom it relays to: rN.example.
PEERS = tuple(f"10.25.1.{last}" for last in range(11, 15))
_POSTFIX = """\
mynetworks = 10.25.0.0/16
mydestination =
transport_maps = texthash:{directory}/transport
smtpd_peername_lookup = no
smtpd_banner = $myhostname ESMTP $mail_name
smtp_tls_security_level = may
smtpd_tls_security_level = may
smtpd_tls_chain_files = {directory}/key.pem, {directory}/certificate.pem
smtp_connect_timeout = 3s
smtp_helo_timeout = 3s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
smtp_destination_concurrency_failed_cohort_limit = 0
transport_retry_time = 1s
smtp_connection_cache_on_demand = no
"""
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
never_users =
log_selector = +smtp_protocol_error +smtp_syntax_error +smtp_connection
acl_smtp_rcpt = accept
acl_smtp_vrfy = accept
begin acl
begin routers
out:
  driver = manualroute
  domains = ! nowhere.example
  route_list = r1.example 10.25.1.11 ; r2.example 10.25.1.12 ; r3.example 10.25.1.13 ; r4.example 10.25.1.14
  transport = remote_smtp
begin transports
remote_smtp:
  driver = smtp
  allow_localhost
  connect_timeout = 3s
begin retry
* * F,1h,5s
begin authenticators
"""
_OPENSMTPD = """\
pki here cert "{directory}/certificate.pem"
pki here key "{directory}/key.pem"
{listens}action "r1" relay host smtp://10.25.1.11
action "r2" relay host smtp://10.25.1.12
action "r3" relay host smtp://10.25.1.13
action "r4" relay host smtp://10.25.1.14
match from any for domain "r1.example" action "r1"
match from any for domain "r2.example" action "r2"
match from any for domain "r3.example" action "r3"
match from any for domain "r4.example" action "r4"
"""
# At its usual LogLevel, 9, sendmail says nothing of commands that it does not know.
_SENDMAIL = (
    configuration("sendmail")
    .replace("DeliveryMode=queueonly", "DeliveryMode=background\nO LogLevel=15")
    .replace(
        "Sparse=0\n",
        "Sparse=0\n"
        + "".join(
            f"R$*<@r{number}.example>\t$#esmtp $@ [{peer}] $: $1<@r{number}.example>\n"
            for number, peer in enumerate(PEERS, start=1)
        ),
    )
)
_CONFIGURATIONS = {"exim": _EXIM, "opensmtpd": _OPENSMTPD, "sendmail": _SENDMAIL}

_RULE = '[[rule]]\n{} = ["10.25.1.11"]\nmode = "enforce"\nprofile = "pix63"\n'
_GATEWAYS = {
    "yours": '[gateway]\nmode = "enforce"\nprofile = "pix63"\n',
    "theirs": '[gateway]\nmode = "monitor"\nprofile = "pix63"\n' + _RULE.format("from") + _RULE.format("to"),
}
#: Of how the lab starts Exim, and of nothing that a mail did.
_NOISE = re.compile(r"lost privilege for using -C|safesasl\(")
_MOST_LINES = 600


class Syslog:
    """What programs say to a socket, as a syslog daemon would write it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log/socket"
        self._lines: list[str] = []
        (directory / "log").mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while octets := self._socket.recv(1 << 16):
            # <22>Jan 31 10:00:00 smtpd[1]: words: the daemon adds the host.
            text = octets.decode("latin-1").partition(">")[2].rstrip("\0\n")
            self._lines += [f"{text[:15]} mx{text[15:]}"]

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


class Relay:
    """A server on one of the client's addresses, with the manners of the day."""

    def __init__(self, topology: Topology, number: int) -> None:
        self.name = f"r{number}.example"
        with topology.enter(CLIENT):
            self._listening = socket.create_server((PEERS[number - 1], 25))
        self._seen: set[bytes] = set()
        self._connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            connection.settimeout(20)
            self._connections += 1
            if self._connections % 5 == 0:
                connection.sendall(b"421 4.3.2 *** too many connections, XXXX ***\r\n")
                return
            connection.sendall(f"220 {self.name} ESMTP ready\r\n".encode())
            for line in lines:
                answer = self._answer(line)
                connection.sendall(answer)
                if answer.startswith(b"354"):
                    while lines.readline() not in (b".\r\n", b""):
                        pass
                    connection.sendall(b"250 2.0.0 Ok: queued as XXXX\r\n")
                if answer.startswith(b"221"):
                    return

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            keywords = ("PIPELINING", "SIZE 1000000", "8BITMIME")
            return b"".join(f"250-{word}\r\n".encode() for word in (self.name, *keywords)) + b"250 DSN\r\n"
        if verb == b"RCPT":
            if b"grey" in line and line not in self._seen:
                self._seen.add(line)
                return b"450 4.2.0 Greylisted, come back in XXXX seconds\r\n"
            if b"gone" in line:
                return b'550 5.1.1 "XXXX" User unknown\r\n'
        known = {b"DATA": b"354 go ahead", b"QUIT": b"221 2.0.0 bye", b"XXXX": b"500 5.5.1 what?"}
        return known.get(verb, b"250 2.1.0 Ok") + b"\r\n"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


# What clients say, each from one of their addresses.


def _raw(*lines: bytes, wait: bool = True) -> Said:
    def say(server: str, client: str) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((server, 25), 10, (client, 0)) as connection,
            connection.makefile("rb") as replies,
        ):
            if wait:
                replies.readline()
            for line in lines:
                connection.sendall(line + b"\r\n")
                while wait and (reply := replies.readline())[3:4] == b"-":
                    pass
                if wait and not reply:
                    return

    return say


def _mail(recipient: str, *, helo: bool = False, tls: bool = False) -> Said:
    def send(server: str, client: str) -> None:
        name = f"c{client.rpartition('.')[2]}.example"
        with (
            contextlib.suppress(smtplib.SMTPException, OSError),
            smtplib.SMTP(server, 25, name, 10, (client, 0)) as session,
        ):
            if helo:
                session.helo()
            if tls and session.ehlo()[0] == 250 and session.has_extn("starttls"):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                session.starttls(context=context)
            text = "From: <a@c.example>\r\nSubject: XXXX 20 **\r\n\r\nEHLO ****\r\nXXXX\r\n"
            session.sendmail("xxxx@c.example", [recipient], text)

    return send


MAILS: tuple[Said, ...] = (
    _mail("anna@r1.example"),
    _mail("info@r2.example", helo=True),
    _mail("xx@r3.example", tls=True),
    _mail("u@r4.example"),
)
_GREETED = (b"EHLO c.example", b"MAIL FROM:<xx@c.example>")
#: An hour of one client: what goes well, and what does not.
HOUR: tuple[Said, ...] = (
    *MAILS,
    _mail("grey@r2.example"),
    _mail("gone@r4.example"),
    _raw(*_GREETED, b"RCPT TO:<XXXX@nowhere.example>", b"DATA", b"RSET", b"QUIT"),
    _raw(b"GET / HTTP/1.1", b"Host: x"),
    _raw(b"EHLO c.example", b"AUTH LOGIN", b"AUTH PLAIN AHh4eHgAeHh4eA==", b"QUIT"),
    _raw(*_GREETED, b"RCPT TO:<u@r1.example>"),
    _raw(*_GREETED, b"RCPT TO:<u@r1.example>", b"DATA"),
    _raw(b"HELO", b"VRFY root", b"EXPN root", b"FOO", b"WIZ", b"HELP", b"NOOP", b"QUIT"),
    _raw(b"EHLO c.example\r\nQUIT", wait=False),
    _raw(),
)


class Day:
    """One server with its clients and relays, on a topology's hosts."""

    def __init__(self, topology: Topology, directory: Path, kind: str) -> None:
        self.topology, self.directory, self.kind = topology, directory, kind
        directory.mkdir(parents=True, exist_ok=True)
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Day:
        with self.topology.enter(CLIENT):
            for peer in PEERS:
                subprocess.run(["ip", "addr", "replace", f"{peer}/24", "dev", "net0"], check=True)
        try:
            for number in range(1, 1 + len(PEERS)):
                self._ends.callback(Relay(self.topology, number).close)
            self._start()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _start(self) -> None:
        self._syslog: Syslog | None = None
        if self.kind == "postfix":
            lines = (f"r{number}.example smtp:[{peer}]\n" for number, peer in enumerate(PEERS, start=1))
            (self.directory / "transport").write_text("".join(lines) + f"c.example smtp:[{PEERS[0]}]\n")
            address = (self.topology.address(SERVER),)
            self._postfix = self._ends.enter_context(
                Postfix(self.topology, SERVER, self.directory, addresses=address, settings=_POSTFIX)
            )
            return
        self._syslog = Syslog(self.directory)
        self._ends.enter_context(Unpacked(self.topology, self.directory, self.kind, _CONFIGURATIONS[self.kind]))

    def run(self, hour: Sequence[Said] = HOUR) -> None:
        """What each client says, one after another; the clients beside each other."""

        def live(client: str) -> None:
            with self.topology.enter(CLIENT):
                for say in hour:
                    say(self.topology.address(SERVER), client)

        with ThreadPoolExecutor(len(PEERS)) as threads:
            list(threads.map(live, PEERS))

    def log(self) -> str:
        """All that the server has logged."""
        if self.kind == "postfix":
            return self._postfix.log()
        if self.kind == "exim":
            return (self.directory / "log/mainlog").read_text(errors="replace")
        return self._syslog.text() if self._syslog else ""

    def settled(self, seconds: float = 3) -> str:
        """The log, once nothing has been added for so long."""
        log = self.log()
        while True:
            time.sleep(seconds)
            if (now := self.log()) == log:
                return log
            log = now


def recorded(topology: Topology, directory: Path, kind: str, behind: str) -> str:
    """The log of such a day: no box on the way, one for all (``yours``), or one in front of the first peer."""
    with contextlib.ExitStack() as ends:
        day = ends.enter_context(Day(topology, directory / "server", kind))
        if behind != "nothing":
            config = directory / "gateway.toml"
            config.write_text(_GATEWAYS[behind])
            ends.enter_context(Gateway(topology, directory / "gateway", "-c", str(config)))
        day.run(HOUR if behind == "nothing" else MAILS)
        return day.settled()


def main(kinds: Sequence[str]) -> None:
    """Writes those of these servers."""
    RECORDED.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for behind in BEHIND:
            with Topology(f"rl{os.getpid()}-") as topology, tempfile.TemporaryDirectory() as place:
                log = recorded(topology, Path(place), kind, behind)
            lines = [line for line in log.splitlines() if not _NOISE.search(line)][:_MOST_LINES]
            (RECORDED / f"{kind}-{behind}.log").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:] or KINDS)
