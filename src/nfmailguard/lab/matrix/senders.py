"""Six independent mail programs, each set up as a user would do it: each sends one mail, from an address of its own.

Promises: where the server offers them, a program does STARTTLS, without verifying the certificate, and AUTH, with the
lab's account; it gives up after some ten seconds of silence; its output is kept. A program that this machine does not
have comes from its Debian package, unpacked under build/clients. Does not know what became of the mail.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from nfmailguard.lab.account import PASSWORD, USER
from nfmailguard.lab.postfix import Postfix
from nfmailguard.lab.topology import CLIENT, Topology
from nfmailguard.lab.unpacked import ROOT

__all__ = ["NAME", "PROGRAMS", "Letter", "Relay", "Sent", "missing", "send", "sender_for"]

NAME = "client.example.net"
UNPACKED = ROOT.parent / "clients"
#: The program that each client needs, and its Debian packages. Python's smtplib is always there.
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "swaks": ("swaks", "swaks libnet-ssleay-perl libio-socket-inet6-perl"),
    "postfix": ("postfix", "postfix"),
    "msmtp": ("msmtp", "msmtp"),
    "curl": ("curl", "curl"),
    "nodemailer": ("node", "nodejs node-nodemailer"),
}
_PATIENCE = 30.0
_HERE = Path(__file__).parent


class Letter(NamedTuple):
    """A mail to send: its file, with CRLF, sender, recipient, source address and server address."""

    file: Path
    sender: str
    recipient: str
    source: str
    host: str


class Sent(NamedTuple):
    """What a client reported: whether it considers the mail delivered, after how many seconds, its last words."""

    accepted: bool
    seconds: float
    said: str


def sender_for(server: str) -> str:
    """The sender address of mails to a server, by which Postfix's client finds their route."""
    return f"{server}@example.net"


def _found(program: str) -> str | None:
    """The path of a program, installed or unpacked."""
    own = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    unpacked = UNPACKED / "usr/bin" / program
    return own or (str(unpacked) if unpacked.exists() else None)


def missing(client: str) -> str:
    """What is missing for this client, and how to get it; empty: nothing."""
    if client not in PROGRAMS:
        return ""
    program, packages = PROGRAMS[client]
    modules = ("/usr/share/nodejs/nodemailer", str(UNPACKED / "usr/share/nodejs/nodemailer"))
    if _found(program) and (client != "nodemailer" or any(map(os.path.exists, modules))):
        return ""
    return f"{client} (apt-get install {packages})"


def _environment() -> dict[str, str]:
    """Environment in which the unpacked programs find their files; the machine's own come first."""
    libraries, share = UNPACKED / "usr/lib", UNPACKED / "usr/share"
    perl = [*libraries.glob("*-linux-gnu/perl5/*"), share / "perl5"]
    return {
        **os.environ,
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries.glob("*-linux-gnu"))),
        "PERL5LIB": ":".join(map(str, perl)),
        "NODE_PATH": f"/usr/share/nodejs:{share}/nodejs",
    }


def _swaks(program: str, one: Letter) -> list[str]:
    # swaks ends the last line itself, even one that already has a line end, so that one is removed.
    data = os.fsdecode(one.file.read_bytes().removesuffix(b"\r\n"))
    return [
        program, "--server", one.host, "--port", "25", "--ehlo", NAME, "--from", one.sender, "--to", one.recipient,
        "--data", data, "--tls-optional", "--auth-optional", "PLAIN,LOGIN", "--auth-user", USER,
        "--auth-password", PASSWORD, "--local-interface", one.source, "--timeout", "10",
    ]  # fmt: skip


def _msmtp(program: str, one: Letter) -> list[str]:
    return [
        program, "--file=/dev/null", f"--host={one.host}", "--port=25", "--tls=on", "--tls-starttls=on",
        "--tls-certcheck=off", "--auth=off", f"--domain={NAME}", f"--from={one.sender}", f"--source-ip={one.source}",
        "--timeout=10", "--", one.recipient,
    ]  # fmt: skip


def _curl(program: str, one: Letter) -> list[str]:
    host = f"[{one.host}]" if ":" in one.host else one.host
    return [
        program, "--disable", "--silent", "--verbose", "--url", f"smtp://{host}:25/{NAME}", "--ssl", "--insecure",
        "--mail-from", one.sender, "--mail-rcpt", one.recipient, "--upload-file", str(one.file),
        "--user", f"{USER}:{PASSWORD}", "--interface", one.source, "--max-time", "15",
    ]  # fmt: skip


def _script(program: str, one: Letter, script: str, *options: str) -> list[str]:
    words = [one.host, NAME, one.source, one.sender, one.recipient, str(one.file), USER, PASSWORD]
    return [program, *options, str(_HERE / script), *words]


_COMMANDS: Mapping[str, Callable[[Letter], list[str]]] = {
    "swaks": lambda one: _swaks(_found("swaks") or "swaks", one),
    "msmtp": lambda one: _msmtp(_found("msmtp") or "msmtp", one),
    "curl": lambda one: _curl(_found("curl") or "curl", one),
    "smtplib": lambda one: _script(sys.executable, one, "send.py", "-I"),
    "nodemailer": lambda one: _script(_found("node") or "node", one, "send.js"),
}
#: Lines of a client program's output that describe a failure; for a program without a pattern, or if no line matches,
#: the last line is used.
_WORDS = {
    "swaks": re.compile(r"^(?:<(?:\*|~)\*|\*\*\*) *(.*)"),
    "curl": re.compile(r"^< ([45]\d\d.*)"),
    "msmtp": re.compile(r"^msmtp: (?!could not send)(.*)"),
}


def last_words(client: str, output: str) -> str:
    """The line of a program's output that says why it gave up."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [found[1] for line in lines if client in _WORDS and (found := _WORDS[client].match(line))]
    return (telling or lines or ["nothing"])[-1].strip()


def send(client: str, topology: Topology, one: Letter) -> Sent:
    """Has a program send the mail, on the client's host; Postfix's client is a ``Relay``."""
    import subprocess

    began = time.monotonic()
    options = {"env": _environment(), "timeout": _PATIENCE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        with one.file.open("rb") as mail:
            done = topology.run(CLIENT, _COMMANDS[client](one), stdin=mail, **options)
    except subprocess.TimeoutExpired:
        return Sent(False, time.monotonic() - began, f"nothing for {_PATIENCE:g} s")
    seconds = time.monotonic() - began
    accepted = done.returncode == 0
    return Sent(accepted, seconds, "" if accepted else last_words(client, done.stdout.decode("utf-8", "replace")))


_RELAY = """\
sender_dependent_relayhost_maps = inline:{{ {relays} }}
{bind} = {source}
smtp_helo_name = {name}
smtp_tls_security_level = may
smtp_connection_cache_on_demand = no
default_destination_concurrency_failed_cohort_limit = 0
default_destination_concurrency_limit = 20
soft_bounce = yes
queue_run_delay = 10000s
minimal_backoff_time = 10000s
maximal_backoff_time = 10000s
smtp_connect_timeout = 10s
smtp_helo_timeout = 10s
smtp_mail_timeout = 10s
smtp_data_done_timeout = 10s
"""
_STATUS = re.compile(r" to=<(\w+)@[^ ]*, .*status=(\w+) \((.*)\)$", re.MULTILINE)


class Relay:
    """Postfix's client, one instance for all mails; nothing is tried twice. A context manager."""

    def __init__(self, topology: Topology, directory: Path, source: str, hosts: Mapping[str, str]) -> None:
        relays = ", ".join(f"{{ {sender_for(server)} = [{host}]:25 }}" for server, host in hosts.items())
        bind = "smtp_bind_address6" if ":" in source else "smtp_bind_address"
        settings = _RELAY.format(relays=relays, bind=bind, source=source, name=NAME)
        settings = settings.replace("{", "{{").replace("}", "}}")
        first = next(iter(hosts.values()))
        self._postfix = Postfix(topology, CLIENT, directory, relay=first, settings=settings)

    def send(self, one: Letter) -> Sent:
        """The same as ``send``; waits until the log has the result."""
        began = time.monotonic()
        mail = one.file.read_bytes().replace(b"\r\n", b"\n")
        self._postfix.send(one.sender, one.recipient, mail)
        wanted = one.recipient.partition("@")[0]
        while True:
            for recipient, status, words in _STATUS.findall(self._postfix.log()):
                if recipient == wanted:
                    seconds = time.monotonic() - began
                    return Sent(status == "sent", seconds, "" if status == "sent" else words)
            if time.monotonic() - began > _PATIENCE:
                return Sent(False, _PATIENCE, f"nothing for {_PATIENCE:g} s")
            time.sleep(0.05)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._postfix.stop()
