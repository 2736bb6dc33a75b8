"""The core, from Python: the models are turned into its tables here and nowhere else.

Promises: an Engine runs on exactly the rules, limits and conditions it was given. Does not know where packets come
from.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from nfmailguard.cext import engine as core
from nfmailguard.cext.handover import state
from nfmailguard.policy.limits import LIMITS
from nfmailguard.policy.model import (
    CONDITION_OF,
    FINDING_INDEX,
    FINDINGS,
    Action,
    BannerRule,
    Concerns,
    Conduct,
    EhloMask,
    FlowRule,
    Limits,
    Mode,
    MultilineBanner,
    Network,
    On,
    PartialLines,
    Policy,
    UnknownCommand,
)
from nfmailguard.policy.restoring import Recovery, recovery
from nfmailguard.smtp.states import TAKES_CHUNK, State, next_state
from nfmailguard.smtp.verbs import CUTS, LONGEST_LINE, LONGEST_PARAMETERS, VERB_INDEX, VERBS, Input

__all__ = ["ACTIONS", "Engine", "Generation", "Operation", "OperationKind", "flows_at_once"]

#: Actions in the order of their numbers in the core.
ACTIONS: tuple[Action, ...] = tuple(Action)
_BANNERS = tuple(BannerRule)
_FORMS = tuple(UnknownCommand)
_COMMANDS, _REPLIES = 1, 2  # Bits of Ruling.restore: restore commands, restore replies.
#: Records that the ring buffer holds: half a second's worth at five thousand mails per second, with 14 records per
#: mail.
_RING_RECORDS = 32_768
#: Size of each half of the table that notes SYN cookies, in cache lines of 64 bytes, as a power of two (least and
#: most): 4 MiB at most.
_LEAST_NOTES, _MOST_NOTES = 12, 15
_NANOSECONDS = 1_000_000_000
#: Stands for "no limit": larger than any number the core counts to.
_ANY_NUMBER = 2**32 - 1


class OperationKind:
    """The values of ``Operation.kind``."""

    ACCEPT = 0
    REPLACE = 1
    DROP = 2
    EMIT = 3


class Operation(NamedTuple):
    """What the driver is to do; ``data`` is the whole IP packet of a replace or an emit."""

    kind: int
    id: int
    data: bytes | None
    to_server: bool


def _actions(policy: Policy, mode: Mode, on: On) -> list[int]:
    # Findings of exceptional conditions take their action from [on]; "drop" for a condition of a whole flow ends the
    # flow.
    actions = [policy.action(spec.name) for spec in FINDINGS]
    for finding, condition in CONDITION_OF.items():
        action = on.action(condition.name, mode)
        if action is Action.DROP and condition.concerns is Concerns.FLOW:
            action = Action.DROP_CONNECTION
        # "pass" lets the flow continue; the condition is still reported.
        actions[FINDING_INDEX[finding]] = Action.LOG if action is Action.PASS else action
    return [ACTIONS.index(action) for action in actions]


def _verb_names(rules: Sequence[FlowRule]) -> list[str]:
    # A policy may allow verbs that are not in the table of verbs: they get numbers after those in the table.
    extra = {verb.upper() for rule in rules for verb in rule.policy.commands.allow} - set(VERB_INDEX) - {"*"}
    return [verb.name for verb in VERBS] + sorted(extra)


def _ruling(rule: FlowRule, verbs: Sequence[str], limits: Limits, on: On, dry_run: bool) -> dict[str, object]:
    restoring = recovery(rule.policy, rule.restore) if rule.mode is Mode.RESTORE else None
    policy = restoring.policy if restoring else rule.policy
    commands, replies, address, data = policy.commands, policy.replies, policy.address, policy.data
    apply = rule.mode is not Mode.MONITOR and not dry_run
    everything = "*" in commands.allow
    allowed = {verb.upper() for verb in commands.allow}
    counted = policy.action("command.too_many_junk") is not Action.PASS
    # Restore mode refuses no command, so packets from the client need not be held.
    conduct = Conduct.WATCH if not apply else Conduct.EDIT if restoring else Conduct.GATE
    return {
        "conduct": int(conduct),
        "actions": _actions(policy, rule.mode, on),
        **_restoring(restoring),
        "allow": [everything or (name != "" and name in allowed) for name in verbs],
        "unknown": _FORMS.index(commands.unknown),
        "letter": commands.letter,
        "faithful": commands.partial_lines is PartialLines.MASK,
        "banner": _BANNERS.index(policy.banner.rule),
        "banner_separator": policy.banner.separator,
        "banner_dash": policy.banner.multiline is MultilineBanner.KEEP_DASH,
        "mask_ehlo": replies.ehlo is EhloMask.E1,
        "keywords": [keyword.upper() for keyword in replies.keywords],
        "keyword_end": replies.keyword_end.encode("latin-1"),
        "illegal": address.characters.encode("latin-1"),
        "brackets": address.brackets,
        "bug_dot_crlf": policy.bugs.dot_crlf,
        "bug_data_bypass": policy.bugs.data_bypass,
        "bug_noop_body": policy.bugs.noop_body,
        # The core carries out this action without consulting the policy, so it is "pass" where nothing may be changed.
        "internal_error": ACTIONS.index(on.action("internal_error", rule.mode) if apply else Action.PASS),
        "midstream_at_start": ACTIONS.index(on.midstream_at_start),
        **{limit.name: limit.of(policy) or 0 for limit in LIMITS},
        # Restore mode refuses no command, so it has no line limit. Without EHLO there are no extensions, and so no
        # parameters that make a line longer.
        "longest_line": 0 if restoring else LONGEST_LINE,
        "longest_parameters": LONGEST_PARAMETERS if everything or "EHLO" in allowed else LONGEST_LINE,
        "longest_secret": commands.secret_length,
        "cuts": CUTS,
        # Lines shorter than this need no further checks. It is 16 bytes below the limit, because the last bytes of a
        # line with a secret must be kept.
        "near_length": min(commands.line_length or LONGEST_LINE, commands.secret_length, LONGEST_LINE - 16),
        "seven_bits": data.seven_bits,
        "outstanding_commands": limits.outstanding_commands,
        "junk_commands": (limits.junk_commands if counted else 0) or _ANY_NUMBER,
        "findings_told": limits.findings_told,
    }


def _restoring(known: Recovery | None) -> dict[str, object]:
    return {
        "restore": (known.commands * _COMMANDS | known.replies * _REPLIES) if known else 0,
        "restore_starttls": bool(known and known.starttls),
        "restore_auth": bool(known and known.authentication),
        "restore_noop": bool(known and known.noop),
        "keep_end": bool(known and known.keeps_end),
        "hide": bool(known and known.hides),
        "listings": [
            {
                "servers": _nets(offer.servers),
                "banner": offer.banner.encode("latin-1"),
                "digits": known.digits,
                "spaces": known.spaces,
                "candidates": [(line.text, line.restored) for line in known.candidates(offer)],
            }
            for offer in known.offers
        ]
        if known
        else [],
    }


def _nets(networks: Sequence[Network]) -> list[tuple[bytes, int]]:
    return [(network.network_address.packed, network.prefixlen) for network in networks]


def _rule(rule: FlowRule, ruling: dict[str, object]) -> dict[str, object]:
    return {
        "ruling": ruling,
        "sources": _nets(rule.source),
        "destinations": _nets(rule.destination),
        "ports": list(rule.ports),
        "interface": socket.if_nametoindex(rule.interface) if rule.interface else 0,
    }


@cache
def _next_states(verbs: tuple[str, ...]) -> list[list[list[int]]]:
    return [[[int(next_state(state, name, digit * 100)) for digit in range(6)] for name in verbs] for state in State]


def _tables(
    rules: Sequence[FlowRule],
    ports: Sequence[int],
    limits: Limits,
    on: On,
    dry_run: bool,
    can_hold: bool,
    records: bool | Collection[int],
    told: Collection[str] | None,
    offload: bool,
    apart: bool,
) -> dict[str, object]:
    verbs = _verb_names(rules)
    grammar = [(v.name, int(v.argument), v.waits, int(v.reads), v.continues, v.long) for v in VERBS]
    grammar += [(name, 0, False, int(Input.COMMANDS), 0, False) for name in verbs[len(VERBS) :]]
    numbers: dict[str, int] = {**VERB_INDEX, **FINDING_INDEX}
    numbers |= {"reset": ACTIONS.index(Action.RESET), "ok": _FORMS.index(UnknownCommand.OK)}
    numbers |= {"restore commands": _COMMANDS, "restore replies": _REPLIES}
    numbers |= {conduct.name.lower(): int(conduct) for conduct in Conduct}
    numbers |= {"basa": _BANNERS.index(BannerRule.BASA), "OPAQUE": int(Input.OPAQUE)}
    return {
        "numbers": numbers,
        "verbs": grammar,
        "end_of_data": VERB_INDEX["<end of data>"],
        "empty": VERB_INDEX["<empty>"],
        "greeting": VERB_INDEX["<greeting>"],
        "masked": VERB_INDEX["<masked>"],
        "dot": VERB_INDEX["."],
        "connect": int(State.CONNECT),
        "greeted": int(State.GREETED),
        "ready": int(State.READY),
        "takes_chunk": [int(state) for state in TAKES_CHUNK],
        "told": [told is None or name in told for name in verbs],
        "next_state": _next_states(tuple(verbs)),
        "rules": [_rule(rule, _ruling(rule, verbs, limits, on, dry_run)) for rule in rules],
        "ports": sorted(set(ports) | {port for rule in rules for port in rule.ports}),
        "timeouts": [  # Timeouts in nanoseconds, in the order of FlowState.
            int(seconds * _NANOSECONDS)
            for seconds in (
                *(limits.embryonic, limits.greeting, limits.idle),
                *(limits.idle, limits.idle, limits.closing),
            )
        ],
        "held_timeout": int(limits.held * _NANOSECONDS),
        "stalled_timeout": int(limits.stalled * _NANOSECONDS),
        "startup": int(limits.startup * _NANOSECONDS),
        "cookie_life": int(limits.cookies * _NANOSECONDS),
        # Each cache line holds the SYN cookie notes of about four flows.
        "cookie_lines": 1 << min(max(_LEAST_NOTES, (flows_at_once(limits) // 4).bit_length()), _MOST_NOTES),
        "held_limit": limits.held_packets,
        "held_flow_limit": limits.held_per_flow,
        "held_source_limit": limits.held_per_source,
        "pending_limit": limits.pending_segments,
        "can_hold": can_hold,
        "apart": apart,
        "offload": offload,
        "memory": limits.memory,
        "flows": flows_at_once(limits),
        "flows_per_source": limits.flows_per_source or 0,
        "ring": _RING_RECORDS,
        "record_kinds": sum(1 << kind for kind in (range(8) if records is True else records or ())),
        "key": secrets.token_bytes(16),
    }


def _digest(tables: dict[str, object], rules: Sequence[FlowRule]) -> bytes:
    """A digest that is equal for equal rules and settings; the flow table's key is left out."""
    told = {name: table for name, table in tables.items() if name != "key"}
    return hashlib.sha256(repr((told, list(rules))).encode()).digest()


def flows_at_once(limits: Limits) -> int:
    """How many flows an Engine of these limits holds: no more than fit into half of its memory."""
    return min(limits.flows, max(1, limits.memory // 2 // core.FLOW_BYTES))


class Generation(NamedTuple):
    """Rules and settings that belong together, prepared for one Engine and not in use yet."""

    prepared: core.Prepared
    digest: bytes
    rules: tuple[FlowRule, ...]
    on: On
    dry_run: bool
    memory: int


class Engine(core.Engine):
    """One core with its own flow table.

    ``rules``: the last one matches every flow. ``ports``: TCP ports that are inspected, besides those of the rules.
    ``dry_run`` reports and changes nothing. ``can_hold=False`` is for a driver that must give each packet's verdict at
    once. ``records``: False makes none, a collection of RecordKind only those; ``told``: commands and replies are
    recorded only for these verbs. ``offload``: packets of flows that are passed may bypass the engine, except their
    SYNs, FINs and RSTs. ``apart``: packets come with ``connection``. Raises ValueError for more rules, verbs or
    keywords than the core holds and OSError for an interface that does not exist.

    ``prepare`` and ``publish`` replace rules and settings while packets are processed; ``rules`` are the latest ones.
    """

    rules: tuple[FlowRule, ...]
    _on: On
    _dry_run: bool
    _fixed: dict[str, bool]
    _memory: int
    _digests: dict[int, bytes]

    def __new__(
        cls,
        rules: Sequence[FlowRule],
        *,
        ports: Sequence[int] = (25,),
        limits: Limits | None = None,
        on: On | None = None,
        dry_run: bool = False,
        can_hold: bool = True,
        records: bool | Collection[int] = True,
        told: Collection[str] | None = None,
        offload: bool = False,
        apart: bool = True,
    ) -> Engine:
        limits, on = limits or Limits(), on or On()
        tables = _tables(rules, ports, limits, on, dry_run, can_hold, records, told, offload, apart)
        self = super().__new__(cls, tables)
        self.rules, self._on, self._dry_run = tuple(rules), on, dry_run
        self._fixed = {"can_hold": can_hold, "offload": offload}
        self._memory = limits.memory
        self._digests = {0: _digest(tables, rules)}
        return self

    def prepare(
        self,
        rules: Sequence[FlowRule],
        *,
        ports: Sequence[int] = (25,),
        limits: Limits | None = None,
        on: On | None = None,
        dry_run: bool = False,
        records: bool | Collection[int] = True,
        told: Collection[str] | None = None,
        apart: bool = True,
        older: bool = False,
    ) -> Generation:
        """Prepares other rules and settings; nothing changes yet. Raises as the constructor does, and if memory
        shrinks.

        The limits ``flows``, ``cookies`` and ``startup`` keep their values. ``older``: they are for flows that another
        engine hands over (``load_state``), whose memory limit does not apply here.
        """
        limits, on = limits or Limits(), on or On()
        if limits.memory < self._memory and not older:
            raise ValueError(f"memory cannot shrink from {self._memory} to {limits.memory} octets: it may be in use")
        tables = _tables(rules, ports, limits, on, dry_run, records=records, told=told, apart=apart, **self._fixed)
        digest = _digest(tables, rules)
        return Generation(core.Prepared(tables), digest, tuple(rules), on, dry_run, limits.memory)

    def publish(self, generation: Generation, *, begins_anew: bool = False) -> int:
        """Flows that begin after the next batch has begun come under these rules; all others keep theirs.

        Returns the number of the first rule in records; numbers are used again once the last record with them is read.
        Rules and settings equal to those of flows that are still open are shared with them. Raises ValueError if flows
        are under too many older ones.
        """
        same = [number for number, digest in self._digests.items() if digest == generation.digest]
        if same and not begins_anew and self.core_republish(same[0]):
            number = same[0]
        else:
            number = self.core_publish(generation.prepared, begins_anew)
        alive = {known for known, _ in self.generations()}
        self._digests = {known: digest for known, digest in self._digests.items() if known in alive}
        self._digests[number] = generation.digest
        self.rules, self._on, self._dry_run = generation.rules, generation.on, generation.dry_run
        self._memory = generation.memory
        return number * core.MOST_RULES

    @property
    def rules_in_use(self) -> dict[int, bytes]:
        """The latest rules, and those that flows are under, by number: their digests, which are equal in any process
        for equal rules.
        """
        found = enumerate(self.generations())
        return {number: self._digests[number] for place, (number, flows) in found if flows or place == 0}

    @property
    def state_size(self) -> int:
        """Bytes that ``save_state`` needs at the moment."""
        return state.size(self)

    def save_state(self, image: bytearray | memoryview) -> None:
        """Writes its whole state of flows, held packets and counters into ``image``, which has ``state_size`` bytes.

        Records that have not been read are not included. Not while a driver runs; the engine may continue afterwards.
        """
        state.save(self, image)

    def load_state(self, image: bytes | bytearray | memoryview, rules: Mapping[int, Generation]) -> dict[int, int]:
        """Continues with the state of another engine: flows, held packets and counters, of the same layout and limits.

        ``rules``: what that engine's ``rules_in_use`` were, as ``prepare`` makes them here; flows keep theirs, new ones
        come under the latest of this engine. Returns, for each number, that of their first rule in records. Raises
        ValueError, and then nothing has changed except that some rules may have been added needlessly.
        """
        numbers = {}
        for number, generation in rules.items():
            same = [ours for ours, digest in self._digests.items() if digest == generation.digest]
            numbers[number] = same[0] if same else state.add_older(self, generation.prepared)
            self._digests[numbers[number]] = generation.digest
        state.load(self, image, numbers, states=len(State), findings=len(FINDINGS))
        return {number: ours * core.MOST_RULES for number, ours in numbers.items()}

    def action(self, finding: str, rule: int = 0) -> tuple[Action, bool]:
        """The action for a finding, and whether it is carried out; ``rule`` is an index of ``rules``."""
        known = self.rules[rule]
        restoring = recovery(known.policy, known.restore) if known.mode is Mode.RESTORE else None
        actions = _actions(restoring.policy if restoring else known.policy, known.mode, self._on)
        return ACTIONS[actions[FINDING_INDEX[finding]]], known.mode is not Mode.MONITOR and not self._dry_run

    def counters(self) -> dict[str, int]:
        """Every counter by name; findings as ``finding.NAME``."""
        counters, findings = self.core_counters()
        counters |= {f"finding.{spec.name}": findings[number] for number, spec in enumerate(FINDINGS) if number}
        return counters
