"""The settings the targets of the core run under: engines, and what each of them promises.

The first octet of an input names one by its place here, so rows are appended, never moved.
Does not know inputs.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import msgspec

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import (
    CONDITIONS,
    Action,
    Concerns,
    FlowRule,
    Limits,
    Mode,
    Offer,
    On,
    Restore,
    RestoreScope,
)
from nfmailguard.smtp.verbs import VERBS

__all__ = ["NOTHING_DENIED", "PASSES", "PROFILES", "SETTINGS", "Setting", "denied_verbs"]

NOTHING_DENIED = ""
#: By number: whose denied verbs an honest server must not read.
PROFILES = (NOTHING_DENIED, "pix63", "asa", "pix51")

_FEW = Limits(
    flows=3,
    memory=16_384,
    pending_segments=3,
    held_packets=4,
    held=1.0,
    outstanding_commands=5,
    embryonic=1.0,
    idle=5.0,
    closing=1.0,
    startup=0.0,
)
#: Tables no larger than an execution needs, so that they stay in the processor's cache.
_SMALL = msgspec.structs.replace(Limits(), flows=64, startup=0.0)
_AT_START = msgspec.structs.replace(_SMALL, startup=1e9)
_ON = On()
_GOES_ON = On(
    memory_limit=Action.PASS,
    pending_limit=Action.PASS,
    gap=Action.PASS,
    truncated=Action.PASS,
    not_smtp=Action.PASS,
    asymmetric=Action.PASS,
    midstream=Action.PASS,
    flow_limit=Action.PASS,
    internal_error=Action.PASS,
)
_ENDS = On(
    conflict=Action.RESET,
    gap=Action.DROP,
    memory_limit=Action.DROP,
    pending_limit=Action.RESET,
    asymmetric=Action.DROP,
    not_smtp=Action.DROP,
    wrong_interface=Action.RESET,
    midstream=Action.DROP,
    truncated=Action.RESET,
)


@dataclass(frozen=True)
class Setting:
    """One engine's configuration.

    ``guards``: no denied verb gets through; not so with a fault of Cisco's, or where anybody may
    speak for the server. ``inspects_all``: no flow may go on uninspected. ``networks``: its rule
    is one for the clients' networks, not the last one.
    """

    profile: str
    mode: Mode = Mode.ENFORCE
    limits: Limits = _SMALL
    on: On = _ON
    dry_run: bool = False
    holds: bool = True
    overrides: tuple[tuple[str, str], ...] = ()
    networks: tuple[str, ...] = ()
    guards: bool = True
    inspects_all: bool = True

    @property
    def changes(self) -> bool:
        return self.mode is not Mode.MONITOR and not self.dry_run

    @property
    def denies(self) -> int:
        """The number of the profile whose denied verbs do not get through."""
        profile = self.profile.removesuffix("-tls")  # of those that are listed, the one with the same commands
        return PROFILES.index(profile if self.changes and self.guards else NOTHING_DENIED)

    def engine(self) -> Engine:
        policy = override(load_profile(self.profile), dict(self.overrides))
        networks = tuple(ipaddress.ip_network(network) for network in self.networks)
        rules = [FlowRule(self.mode, policy, networks, restore=_RESTORE)] if networks else []
        return Engine(
            [*rules, FlowRule(self.mode, policy, restore=_RESTORE)],
            limits=self.limits,
            on=self.on,
            dry_run=self.dry_run,
            can_hold=self.holds,
        )


#: What restoring lets pass by itself, refused, so that both receivers of every octet can be compared.
_CLOSED = On(**{name: spec.enforce for name, spec in CONDITIONS.items() if spec.concerns is not Concerns.GATEWAY})
_RESTORE = Restore(
    scope=RestoreScope.ALL, starttls=True, offers=(Offer((), ("STARTTLS", "CHUNKING"), "mx.example ESMTP ready"),)
)
_FAULTS = (("bugs.dot_crlf", "yes"), ("bugs.data_bypass", "yes"), ("bugs.noop_body", "yes"))
_NARROW = (
    ("commands.unknown", "xall"),
    ("commands.letter", "x"),
    ("commands.line_length", "24"),
    ("address.recipients", "1"),
    ("data.header_line_length", "40"),
    ("data.body_line_length", "60"),
    ("actions.data.line_too_long", "reset"),
    ("actions.command.bare_lf", "drop-connection"),
    ("banner.multiline", "star_dash"),
)
_OTHER = (("commands.unknown", "noop"), ("banner.rule", "b40"), ("banner.separator", "no"))

SETTINGS: tuple[Setting, ...] = (
    Setting("pix63"),
    Setting("asa"),
    Setting("pix63", Mode.MONITOR, inspects_all=False),
    Setting("pix63", limits=_FEW),
    Setting("asa", limits=_AT_START, on=_GOES_ON, guards=False, inspects_all=False),
    Setting("asa", Mode.MONITOR, limits=_FEW, inspects_all=False),
    Setting("pix63", holds=False),
    Setting("asa", dry_run=True, inspects_all=False),
    Setting("pix63", on=_ENDS),
    Setting("asa", overrides=(("commands.partial_lines", "mask"),), guards=False),
    Setting("pix51", on=On(wrong_interface=Action.PASS), guards=False),
    Setting("pix63", overrides=_FAULTS, guards=False),
    Setting("pix51", overrides=_NARROW),
    Setting("asa", overrides=_OTHER, networks=("10.0.1.0/25", "fd00:100::/32")),
    Setting("asa", Mode.RESTORE, on=_CLOSED, guards=False, inspects_all=False),
    Setting("asa", overrides=(("data.filename_length", "7"),)),
)

#: Beside them, where connections follow one another: flows behind STARTTLS are not looked at any more.
PASSES = Setting("asa-tls", inspects_all=False)


def denied_verbs(profile: str) -> list[str]:
    """The verbs of the table that a profile does not let through."""
    if profile == NOTHING_DENIED:
        return []
    allowed = set(load_profile(profile).commands.allow)
    return [verb.name for verb in VERBS if verb.name and not verb.name.startswith("<") and verb.name not in allowed]
