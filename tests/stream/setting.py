"""What a run is played with: policies, limits, engines that are used again, and the totals of many runs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import (
    CONDITIONS,
    Concerns,
    FlowRule,
    Limits,
    Mode,
    Offer,
    On,
    Policy,
    Restore,
    RestoreScope,
    UnknownCommand,
)
from tests.stream.invariant_checker import FLOWS

MEMORY = 1 << 20


def _policies() -> dict[str, Policy]:
    replace = msgspec.structs.replace
    found = {name: load_profile(name) for name in ("pix51", "pix63", "asa")}
    pix, asa = found["pix63"], found["asa"]
    found["loose"] = replace(asa, commands=replace(asa.commands, allow=("*",)))
    found["noop"] = replace(pix, commands=replace(pix.commands, unknown=UnknownCommand.NOOP))
    found["xall"] = replace(pix, commands=replace(pix.commands, unknown=UnknownCommand.XALL))
    return found


POLICIES = _policies()
#: What a run in restore mode undoes of the policy's damage.
RESTORE = Restore(
    scope=RestoreScope.ALL, starttls=True, offers=(Offer((), ("SIZE 1000", "STARTTLS", "AUTH PLAIN"), "mail2 ESMTP"),)
)
#: Restoring lets most exceptional conditions pass; here it is as strict as enforcing.
CLOSED = On(**{name: spec.enforce for name, spec in CONDITIONS.items() if spec.concerns is not Concerns.GATEWAY})
NAMES = ("pix63", "asa", "loose", "noop", "xall", "pix51")


@dataclass(frozen=True)
class Setting:
    """What a test fixes; None is drawn."""

    mode: Mode = Mode.ENFORCE
    policy: str | None = None
    family: int | None = None
    hostile: bool | None = None
    steps: int = 80
    #: Turns of an ordinary beginning; 5 end with the 354.
    begun: int | None = None
    memory: int = MEMORY
    pending: int = 256
    held: int = 1024
    outstanding: int = 2000

    @property
    def limited(self) -> bool:
        """Limits may end the dialogue, which the reference model does not know."""
        return (self.memory, self.pending, self.held, self.outstanding) != (MEMORY, 256, 1024, 2000)


@dataclass
class Totals:
    """What many runs have come to."""

    runs: int = 0
    deliveries: int = 0
    delivered_differs: int = 0
    reference_differs: int = 0
    ended: int = 0
    messages: int = 0


TOTALS = Totals()
_ENGINES: dict[tuple[object, ...], tuple[Engine, list[int]]] = {}


def engine_for(policy: str, setting: Setting, role: str) -> tuple[Engine, list[int]]:
    """An engine and its clock: made once, for a run leaves nothing behind in it."""
    key = (policy, setting.mode, setting.memory, setting.pending, setting.held, setting.outstanding, role)
    if key not in _ENGINES:
        limits = Limits(
            flows=FLOWS,
            memory=setting.memory,
            pending_segments=setting.pending,
            held_packets=setting.held,
            outstanding_commands=setting.outstanding,
            startup=0.0,
            # In streams put in order and acknowledged at once many an ACK is a cookie's by chance.
            cookies=0.0 if role == "in order" else 180.0,
        )
        rule = FlowRule(setting.mode, POLICIES[policy], restore=RESTORE)
        on = CLOSED if setting.mode is Mode.RESTORE else None
        _ENGINES[key] = Engine([rule], limits=limits, on=on), [10**9]
    return _ENGINES[key]


def forget_engines() -> None:
    """A run has broken off: whatever it left behind is nobody's business."""
    _ENGINES.clear()
