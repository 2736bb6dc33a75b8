"""What the matrix is made of: its axes, one cell of it, and what came of that.

Promises: data only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

__all__ = ["CLIENTS", "MODES", "SERVERS", "Cell", "Choice", "Outcome", "cells"]

CLIENTS = ("swaks", "postfix", "msmtp", "curl", "smtplib", "nodemailer")
SERVERS = ("postfix", "exim", "opensmtpd", "sendmail", "aiosmtpd")
#: ``restore``: the profile enforced by a firewall that stands between two restoring gateways.
MODES = ("enforce", "monitor", "restore")


class Choice(NamedTuple):
    """What of the matrix is wanted."""

    clients: Sequence[str]
    servers: Sequence[str]
    profiles: Sequence[str]
    modes: Sequence[str]


class Cell(NamedTuple):
    """One mail's way."""

    client: str
    server: str
    profile: str
    mode: str


class Outcome(msgspec.Struct, frozen=True):
    """What came of a cell. ``seconds``: from the client's start to its word that it is done.

    ``ehlo``, ``tls``, ``auth``: by the Received line of the server that took the mail (RFC 3848); None: nothing came.
    """

    #: It lies there once, byte for byte, or ``encoded``.
    delivered: bool
    #: Why not, where something arrived that is not the mail as it was sent, once.
    damage: str = ""
    #: The same text in other bytes: its client has made quoted-printable of eight bits (RFC 6152 3).
    encoded: bool = False
    ehlo: bool | None = None
    tls: bool | None = None
    auth: bool | None = None
    seconds: float = 0.0
    #: Whether the client took it for done.
    accepted: bool = False
    #: The client's last words where it did not.
    said: str = ""
    #: Findings of the gateways on the way about this mail's connections, and how often each was told.
    log: dict[str, int] = {}


def cells(choice: Choice) -> list[Cell]:
    """All that ``choice`` spans, mode by mode, profile by profile."""
    return [
        Cell(client, server, profile, mode)
        for mode in choice.modes
        for profile in choice.profiles
        for server in choice.servers
        for client in choice.clients
    ]
