"""Settings of log lines: targets, formats, facilities, names of interfaces.

Promises: values only, and what is wrong with them. Does not know lines.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from nfmailguard.policy.model import Network

__all__ = ["FACILITIES", "JOURNAL", "Format", "Interfaces", "file_of", "problem"]

#: Syslog facilities in the order of their numbers (RFC 5424 6.2.1).
FACILITIES: dict[str, int] = {
    name: number
    for number, name in enumerate(
        [
            *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv"),
            *("ftp", "ntp", "audit", "alert", "clock"),
            *(f"local{number}" for number in range(8)),
        ]
    )
}


#: The log target that means systemd's journal.
JOURNAL = "journald"


def file_of(target: str | None) -> Path | None:
    """The file that a target names; None: it is no file."""
    return None if target in (None, "-", JOURNAL) or "://" in target else Path(target)


class Format(StrEnum):
    """How a line is framed for a server; lines in a file have what RFC 3164 has after the priority."""

    RFC3164 = "rfc3164"
    RFC5424 = "rfc5424"


class Interfaces(NamedTuple):
    """Interface names for addresses: of the first network that contains the address, else of the side it is on."""

    client: str = "outside"
    server: str = "inside"
    networks: tuple[tuple[str, Network], ...] = ()

    def name(self, address: str, side: str) -> str:
        value = ipaddress.ip_address(address)
        return next((name for name, network in self.networks if value in network), side)


def problem(target: str, facility: str, host: str) -> str | None:
    """What is wrong with the settings, after the key's name; None: nothing."""
    if facility not in FACILITIES:
        return f"facility: {facility!r}; one of {', '.join(FACILITIES)}"
    if not all(33 <= ord(character) < 127 for character in host):
        return f"host: {host!r}; a host's name"
    if not _goes_somewhere(target):
        return f"target: {target!r}; a file, -, journald, udp://HOST[:PORT], tcp://HOST[:PORT] or unix:///PATH"
    return None


def _goes_somewhere(target: str) -> bool:
    if "://" not in target:
        # A mistyped server URL, such as "udp:host", would be taken for a file name, and no line would reach the server.
        return bool(target) and not re.match(r"(udp|tcp|unix):", target, re.IGNORECASE)
    try:
        url = urlsplit(target)
        # Anything in the URL after host and port would be ignored silently, so it is refused.
        rest = url.path.strip("/") or url.query or url.fragment or url.username is not None or url.netloc[-1:] == ":"
        if url.scheme == "unix":
            return not url.netloc and len(url.path) > 1 and not url.query and not url.fragment
        return url.scheme in ("udp", "tcp") and bool(url.hostname) and url.port != 0 and not rest
    except ValueError:
        return False
