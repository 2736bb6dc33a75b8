"""Further observations of the same server: its other ports, and the same port seen from another place.

Promises: one short connection per port; a port that cannot be reached is reported and is no evidence. Only observes;
``verdict`` draws the conclusion.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfmailguard.errors import ConfigError
from nfmailguard.probe.features import observe
from nfmailguard.probe.talk import NAME, ProbeError, Session, Talk
from nfmailguard.reading import octets_of

__all__ = ["Glance", "Vantage", "from_namespace", "glance", "of_result"]

#: Ports for mail submission, and whether TLS begins with the first byte (RFC 6409, RFC 8314).
PORTS: Mapping[int, bool] = {587: False, 465: True}
_PATIENCE = 5.0
_MOST = 1 << 22


@dataclass(frozen=True)
class Glance:
    """What one port showed. ``fault``: why it could not be asked. ``keywords``: of the EHLO reply, in capitals."""

    port: int
    fault: str = ""
    banner: str | None = None
    masked_keywords: int = 0
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vantage:
    """What another place saw of the same server. ``source``: the address it asked from."""

    where: str
    source: str
    found: bool | None
    banner: str | None
    tls: str | None
    keywords: tuple[str, ...] = ()


def glance(address: str, port: int, timeout: float) -> Glance:
    """Greeting and EHLO of one port."""
    try:
        with Session(address, port, min(timeout, _PATIENCE), wrapped=PORTS.get(port, False)) as session:
            talk = Talk(session.greeting)
            if session.greeting.code != 220:
                return Glance(port, f"refused: {session.greeting.lines[-1][:80]}")
            talk.answers["EHLO"] = session.ask(f"EHLO {NAME}")
            session.ask("QUIT")
    except ProbeError as error:
        return Glance(port, str(error).rpartition(": ")[2])
    seen = observe(talk, None)
    return Glance(port, "", seen.banner, seen.masked_keywords, tuple(sorted(seen.keywords or ())))


def _vantage(result: Any, where: str) -> Vantage:
    try:
        return Vantage(
            where,
            str(result["source"]),
            None if result["found"] is None else bool(result["found"]),
            result["banner"],
            result["tls"],
            tuple(str(word) for word in result["keywords"]),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{where}: no result of `probe --json`: {error!r} is missing") from error


def of_result(path: Path) -> Vantage:
    """Reads what ``probe --json`` printed elsewhere; ConfigError for any other file."""
    try:
        return _vantage(json.loads(octets_of(path, _MOST)), str(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no JSON: {error}") from error


def from_namespace(name: str, where: str, timeout: float) -> Vantage:
    """The same question asked from a network namespace of this machine (``ip netns list``); needs root."""
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "nfmailguard", "probe", where, "--json", "--no-ports"]
    try:
        done = subprocess.run(
            [*command, "--timeout", str(timeout)], capture_output=True, text=True, check=False, timeout=40 * timeout
        )
        if done.returncode not in (0, 1, 3) or not done.stdout:
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            raise ProbeError(f"namespace {name}: {reason}")
        return _vantage(json.loads(done.stdout), f"namespace {name}")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ProbeError(f"namespace {name}: {error}") from error
