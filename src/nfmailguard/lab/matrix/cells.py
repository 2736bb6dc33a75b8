"""The parts of the matrix: its axes, a cell, and a cell's outcome.

Promises: data only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

__all__ = ["CLIENTS", "MODES", "SERVERS", "Cell", "Choice", "Outcome", "cells"]

CLIENTS = ("swaks", "postfix", "msmtp", "curl", "smtplib", "nodemailer")
SERVERS = ("postfix", "exim", "opensmtpd", "sendmail", "aiosmtpd")
#: Modes of the matrix; in ``restore`` the path has a firewall that enforces the profile, between two gateways in
#: restore mode.
MODES = ("enforce", "monitor", "restore")


class Choice(NamedTuple):
    """The selected part of the matrix."""

    clients: Sequence[str]
    servers: Sequence[str]
    profiles: Sequence[str]
    modes: Sequence[str]


class Cell(NamedTuple):
    """One mail's client, server, profile and mode."""

    client: str
    server: str
    profile: str
    mode: str


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a cell. ``seconds``: from the client's start until it reports that it is done.

    ``ehlo``, ``tls``, ``auth``: by the Received line of the server that took the mail (RFC 3848); None: nothing
    arrived.
    """

    #: True if the mail is in the mailbox exactly once, unchanged byte for byte or ``encoded``.
    delivered: bool
    #: Why the mail does not count as delivered, if something arrived; empty otherwise.
    damage: str = ""
    #: True if the client converted 8-bit text to quoted-printable (RFC 6152 3): the same text in other bytes.
    encoded: bool = False
    ehlo: bool | None = None
    tls: bool | None = None
    auth: bool | None = None
    seconds: float = 0.0
    #: True if the client believes that the mail was sent.
    accepted: bool = False
    #: The client's last message, if it failed to send.
    said: str = ""
    #: Number of reported findings by name, of all gateways on the path and this mail's connections.
    log: dict[str, int] = {}


def cells(choice: Choice) -> list[Cell]:
    """All cells selected by ``choice``, mode by mode, profile by profile."""
    return [
        Cell(client, server, profile, mode)
        for mode in choice.modes
        for profile in choice.profiles
        for server in choice.servers
        for client in choice.clients
    ]
