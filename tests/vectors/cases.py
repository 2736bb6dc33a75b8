"""The vectors as cases: each for each of its profiles."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import Offer, Policy, Restore, RestoreScope, RestoreSide

#: What comes before a vector that says nothing about it.
_BEFORE = {
    "banner": [],
    "command": [["S", "220 x\r\n"]],
    "reply": [["S", "220 x\r\n"], ["C", "EHLO a\r\n"]],
}
_REPLIES_WANTED = 100  # "R" repeats its command this often, each answered: ASA's count of recipients


@dataclass(frozen=True)
class Case:
    """One vector under one profile. ``before`` and ``packets`` are (to_server, data) packets.

    ``by_packet``: the fault it shows depends on where packets end, so it is not cut elsewhere.
    """

    number: int
    source: str
    profile: str
    policy: Policy
    before: tuple[tuple[bool, bytes], ...]
    packets: tuple[tuple[bool, bytes], ...]
    out: bytes
    findings: tuple[str, ...] | None
    ends: str | None
    core_only: bool
    by_packet: bool
    restore: Restore | None

    @property
    def to_server(self) -> bool:
        return self.packets[0][0]

    def __str__(self) -> str:
        return f"{self.number}-{self.profile}"

    @property
    def read_as_commands(self) -> bool:
        """Whether what the client says is read as commands: no message, no TLS, no fault that makes it one."""
        begun = any(data.startswith((b"354", b"220 go")) for _, data in self.before)
        return not begun and not (self.policy.bugs.data_bypass and any(data == b"DATA\r\n" for _, data in self.before))


def _before(steps: list[list[str]]) -> list[tuple[bool, bytes]]:
    packets = []
    for side, text in steps:
        for _ in range(_REPLIES_WANTED if side == "R" else 1):
            packets.append((side != "S", text.encode("latin-1")))
            if side == "R":
                packets.append((False, b"250 ok\r\n"))
    return packets


def _restore(table: dict[str, Any]) -> Restore:
    offer = Offer((), tuple(table.get("keywords", ())), table.get("banner", ""))
    scope = RestoreScope(table.get("scope", "safe"))
    return Restore(RestoreSide(table["side"]), scope, table.get("starttls", False), (offer,))


def _case(kind: str, table: dict[str, Any], profile: str) -> Case:
    if "repeat" in table:
        head, octet, count, tail = table["repeat"]
        texts = [head + octet * count + tail]
    else:
        texts = table["in"] if isinstance(table["in"], list) else [table["in"]]
    to_server = kind == "command"
    packets = tuple((to_server, text.encode("latin-1")) for text in texts)
    out = b"".join(data for _, data in packets) if table.get("same") else table["out"].encode("latin-1")
    return Case(
        table["number"],
        table["source"],
        profile,
        override(load_profile(profile), table.get("set", {})),
        tuple(_before(table.get("before", _BEFORE[kind]))),
        packets,
        out,
        tuple(table["findings"]) if "findings" in table else None,
        table.get("ends"),
        table.get("core_only", False),
        table.get("by_packet", False),
        _restore(table["restore"]) if "restore" in table else None,
    )


def cases() -> list[Case]:
    """Every vector under each of its profiles."""
    tables = tomllib.loads(Path(__file__).with_name("vectors.toml").read_text())
    return [
        _case(kind, table, profile) for kind, rows in tables.items() for table in rows for profile in table["profiles"]
    ]
