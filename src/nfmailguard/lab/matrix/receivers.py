"""Five mail servers on one host, each at addresses of its own, and the mails each has accepted.

Promises: a mail counts as accepted when it is in the server's own spool or mailbox, with the bytes stored there; how it
came is what the server wrote into its Received line (RFC 3848), or beside it. Needs root where the servers do.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nfmailguard.lab.matrix.passwords import PasswordServer
from nfmailguard.lab.postfix import Postfix, installed
from nfmailguard.lab.servers import MailServer
from nfmailguard.lab.topology import SERVER, Topology
from nfmailguard.lab.unpacked import Unpacked, unpacked

__all__ = ["Receiver", "Spool", "Taken", "missing"]

_POSTFIX = """\
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {directory}/certificate.pem
smtpd_tls_key_file = {directory}/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {directory}/passwords
"""
_PROTOCOL = re.compile(rb"\bwith (E?SMTPS?A?)\b|^-received_protocol (e?smtps?a?)$", re.MULTILINE | re.IGNORECASE)
_TOKEN = re.compile(rb"^(?:\d+  |H\?\?)?Subject: (\w+)\r?$", re.MULTILINE)


class Taken(NamedTuple):
    """A mail that a server has: its subject, how it came (``ESMTPSA``; RFC 3848), its body as it is stored."""

    token: str
    protocol: str
    body: bytes


def missing(server: str) -> str:
    """What is missing for this server, and how to get it; empty: nothing."""
    if server == "postfix":
        return "" if installed() else "postfix (apt-get install postfix)"
    if server == "aiosmtpd":
        return ""
    return "" if unpacked(server) else f"{server} (unpacked, not installed)"


def _read(kind: str, directory: Path) -> Iterator[tuple[Path, Callable[[], tuple[bytes, bytes]]]]:
    """For each stored mail the file that is written last, and a function that returns its header and its body."""
    if kind == "exim":
        for path in (directory / "spool/input").rglob("*-H"):
            yield path, lambda path=path: (path.read_bytes(), _behind_line(path.with_name(path.name[:-1] + "D")))  # type: ignore[misc]
    elif kind == "sendmail":
        for path in (directory / "spool").glob("qf*"):
            yield path, lambda path=path: (path.read_bytes(), path.with_name("d" + path.name[1:]).read_bytes())  # type: ignore[misc]
    else:
        folder, name = {
            "postfix": ("mail/box/new", "*"),
            "opensmtpd": ("queued/smtpd/queue", "message"),
            "aiosmtpd": ("", "[0-9]*-*.eml"),
        }[kind]
        for path in (directory / folder).rglob(name):
            yield path, lambda path=path: _parted(path.read_bytes())  # type: ignore[misc]


def _behind_line(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[2]


def _parted(mail: bytes) -> tuple[bytes, bytes]:
    end = re.search(rb"\r?\n\r?\n", mail)
    return (mail, b"") if end is None else (mail[: end.start()] + b"\n", mail[end.end() :])


class Spool:
    """The place where a server of ``kind`` stores what it has accepted, below ``directory``; usable from any thread."""

    def __init__(self, kind: str, directory: Path) -> None:
        self._kind, self._directory = kind, directory
        self._seen: set[Path] = set()
        self._lock = threading.Lock()

    def taken(self) -> list[Taken]:
        """The mails that have arrived since the last call."""
        found = []
        with self._lock:
            for path, read in _read(self._kind, self._directory):
                if path in self._seen:
                    continue
                try:
                    head, body = read()
                except FileNotFoundError:
                    continue  # The server is just moving the file; it will be found next time.
                token, protocol = _TOKEN.search(head), _PROTOCOL.search(head)
                if token is None:
                    continue
                self._seen.add(path)
                came = b"" if protocol is None else protocol[1] or protocol[2]
                found.append(Taken(token[1].decode(), came.decode().upper(), body.replace(b"\r\n", b"\n")))
        return found


class Receiver:
    """One server, listening at ``addresses``; ends with its context. Raises LabError with its own words."""

    def __init__(self, topology: Topology, directory: Path, kind: str, addresses: tuple[str, str]) -> None:
        self.kind, self.address = kind, addresses
        self._spool = Spool(kind, directory)
        self._server: MailServer | Postfix | Unpacked
        self._passwords: PasswordServer | None = None
        if kind == "aiosmtpd":
            self._server = MailServer(topology, directory, "--received", "--account", addresses=addresses)
        elif kind == "postfix":
            self._server = Postfix(topology, SERVER, directory, addresses=addresses, settings=_POSTFIX)
            self._passwords = PasswordServer(directory / "passwords")
        else:
            # OpenSMTPD 6.8 of Debian 12 fails every TLS handshake with OpenSSL 3 (OpenSMTPD issues 1171 and 1239), so
            # it gets no TLS.
            tls = kind != "opensmtpd"
            self._server = Unpacked(topology, directory, kind, addresses=addresses, accounts=True, tls=tls)

    def taken(self) -> list[Taken]:
        """The mails that have arrived since the last call."""
        return self._spool.taken()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__(None, None, None)
        if self._passwords is not None:
            self._passwords.close()
