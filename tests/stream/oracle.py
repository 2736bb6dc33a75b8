"""What was decided, held against the reference model and against an engine that sees it in order.

Promises: invariants 2 and 4 of a whole run. Of a flow that ended midway (by the gateway, or
because it is no longer looked at) it asserts less, for the checker cannot see how far the last
call looked: what was delivered is a beginning of what was decided, and the findings are those
of the decided dialogue up to some packet of that call.
"""

from __future__ import annotations

from nfmailguard.policy.model import Action, Mode
from nfmailguard.smtp.reference import Result, translate
from nfmailguard.smtp.turns import Turn as ModelTurn
from tests.stream.invariant_checker import InvariantChecker, Violation
from tests.stream.packets import ACK, PSH, SYN
from tests.stream.reassembly_model import Turn
from tests.stream.setting import POLICIES, RESTORE, Setting, engine_for
from tests.support.dialogue import Finding, findings

#: Conditions of the flow, not of the dialogue: the reference model does not know them.
OFF_PATH = ("flow.limit", "flow.asymmetric", "flow.midstream", "command.too_many_outstanding")
#: What an honest network never makes the gateway find.
HOSTILE = ("stream.conflicting_retransmission", "stream.gap", "stream.urgent", "packet.", "flow.asymmetric")
ENDING = (str(Action.DROP_CONNECTION), str(Action.RESET))

Key = tuple[bool, int, str, str]


def of_the_stream(finding: Finding) -> bool:
    return finding.name.startswith(("stream.", "packet.")) or finding.name in OFF_PATH


class Oracle:
    """Of one run, once it is over."""

    def __init__(self, policy: str, setting: Setting, checker: InvariantChecker) -> None:
        self.policy = policy
        self.setting = setting
        self.checker = checker

    def check(self, records: list[tuple], *, honest: bool) -> None:  # type: ignore[type-arg]
        """``records``: all that the engine made; ``honest``: the network made nothing up."""
        own = min((record[2] for record in records if record[2]), default=0)  # not a later flow on the same ports
        found = findings([record for record in records if record[2] == own])
        if honest and (odd := [finding.name for finding in found if finding.name.startswith(HOSTILE)]):
            raise Violation(4, f"on an honest network: {odd}")
        keys = sorted((f.to_server, f.offset, f.name, f.action) for f in found if not of_the_stream(f))
        reassembly = self.checker.reassembly
        turns = reassembly.turns + reassembly.ending
        first = ""
        for stop in range(len(turns), len(reassembly.turns) - 1, -1):
            model = translate(
                POLICIES[self.policy],
                [ModelTurn(*turn) for turn in turns[:stop]],
                apply=self.checker.apply,
                restore=RESTORE if self.setting.mode is Mode.RESTORE else None,
            )
            difference = self.differs(model, keys)
            if not difference:
                break
            first = first or difference
        else:
            raise Violation(4, first)
        if self.checker.apply:
            self.same_end(model, found)
            delivered = self.in_order(turns)
            if not self.checker.ended and not self.checker.over:
                self.same_octets(model, turns, delivered)

    def differs(self, model: Result, of_core: list[Key]) -> str:
        """What one of them finds and the other does not; empty when nothing."""
        of_model = sorted((f.to_server, f.offset, f.name, str(f.action)) for f in model.findings)
        # The model reads whole lines; what it has to say of the last ones it says when they are whole.
        whole = [b"".join(t.data for t in model.turns if t.to_server is side).rfind(b"\n") for side in (False, True)]
        of_core, of_model = ([f for f in found if f[1] <= whole[f[0]]] for found in (of_core, of_model))
        # The checker feeds the model what was decided; that something had to wait, it saw when it came.
        impatient = self.checker.reassembly.impatient
        of_core = [f for f in of_core if f in of_model or f[2] != "command.pipelined_too_far" or f[1] not in impatient]
        if of_core == of_model:
            return ""
        core_only = [f for f in of_core if f not in of_model]
        model_only = [f for f in of_model if f not in of_core]
        return f"only the core finds {core_only}, only the model {model_only}"

    def same_end(self, model: Result, found: list[Finding]) -> None:
        """A flow ends where the model ends it, or by what the model does not know."""
        if model.ended and not self.checker.cut_short:
            raise Violation(4, f"the model ends the flow ({model.ended}), the core does not")
        if (
            self.checker.cut_short
            and not model.ended
            and not any(of_the_stream(f) and f.action in ENDING for f in found)
        ):
            raise Violation(4, f"the core has ended the flow, the model would not; it found {found[-1:]}")

    def same_octets(self, model: Result, turns: list[Turn], delivered: tuple[bytearray, bytearray]) -> None:
        """Octet for octet what the model delivers, but for lines that were cut (invariant 4)."""
        for side in (False, True):
            theirs = b"".join(turn.data for turn in model.turns if turn.to_server is side)
            ours = bytes(delivered[side])
            if ours == theirs:
                continue
            cuts, place = set(), 0
            for to_server, data in turns:
                place += len(data) * (to_server is side)
                cuts.add(place)
            start = 0
            for line in ours.splitlines(keepends=True):
                stop = start + len(line)
                if line != theirs[start:stop] and not any(start < cut < stop for cut in cuts):
                    raise Violation(4, f"a whole line leaves as {line!r}, the model has {theirs[start:stop]!r}")
                start = stop

    def in_order(self, turns: list[Turn]) -> tuple[bytearray, bytearray]:
        """What left the gateway is what an engine lets through that sees the decided dialogue in order."""
        engine, clock = engine_for(self.policy, Setting(self.setting.mode), "in order")
        tracks, now = self.checker.tracks, clock[0]
        out, sent, bases = (bytearray(), bytearray()), [0, 0], (1001, 5001)
        handshake = [(True, SYN, b""), (False, SYN | ACK, b""), (True, ACK, b"")]
        for to_server, flags, data in handshake + [(to_server, ACK | PSH, data) for to_server, data in turns]:
            seq = bases[to_server] + sent[to_server] - bool(flags & SYN)
            ack = bases[not to_server] + sent[not to_server] if flags & ACK else 0
            gone = 0
            for _ in range(4 if data else 1):  # what is held back for the rest of an end of data is said again
                now += 1000
                packet = tracks[to_server].build(seq + gone, ack, flags, data[gone:])
                for kind, _, changed, _ in engine.process(packet, now):
                    if kind < 2:
                        left = tracks[to_server].read(packet if changed is None else changed).payload
                        out[to_server].extend(left)
                        gone += len(left)
                if gone >= len(data):
                    break
            sent[to_server] += len(data)
        engine.finish(now)
        while engine.drain():
            pass
        clock[0] = now + 1
        midway = self.checker.ended or self.checker.over
        for to_server in (False, True):
            left = self.checker.left[to_server]
            if not (out[to_server].startswith(left) if midway else left == out[to_server]):
                who = "server" if to_server else "client"
                raise Violation(2, f"delivered to the {who} {bytes(left)!r}, decided {bytes(out[to_server])!r}")
        return out
