"""One run of the machine: a dialogue, delivered by an adversary, and what has to hold at its end.

Promises: every run ends. What it asserts where equality is impossible by design, and why:

* A flow that the gateway ended midway: what was delivered is a beginning of what was
  decided, and the findings are those of the decided dialogue up to some packet of the call
  in which it ended, for the books cannot see how far that call looked.
* A flow that is no longer followed (TLS has begun, or the server did not speak SMTP): the
  same up to that point; beyond it nothing is decided.
* Monitor with conflicting copies: both pass, so nobody can know which one the receiver
  took; invariants 1, 3 and 5 to 8 remain.
* An ACK of octets that were emitted and then lost: the gateway lets go of them, and their
  retransmission is blanked. Ends of ours never acknowledge what they do not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode, On, Policy, UnknownCommand
from nfmailguard.smtp.reference import Turn as ModelTurn
from nfmailguard.smtp.reference import translate
from tests.stream.adversary import Adversary
from tests.stream.believed import Turn
from tests.stream.books import FLOWS, Books, Violation
from tests.stream.endpoint import Endpoint
from tests.stream.network import Network
from tests.stream.packets import ACK, FIN, PSH, SYN, TIMESTAMPS, Track
from tests.stream.peers import KNOWN, Below, DisagreementError
from tests.support.dialogue import findings

ISNS = (1000, 2**32 - 3, 2**32 - 20, 2**31 - 5, 2**32 - 1, 2**32 - 400, 2**31 - 300)
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
NAMES = ("pix63", "asa", "loose", "noop", "xall", "pix51")


@dataclass(frozen=True)
class Setting:
    """What a test fixes; None is drawn."""

    mode: Mode = Mode.ENFORCE
    policy: str | None = None
    family: int | None = None
    hostile: bool | None = None
    steps: int = 80
    memory: int = MEMORY
    pending: int = 256
    held: int = 1024
    outstanding: int = 2000

    @property
    def limited(self) -> bool:
        """Limits may end the dialogue, which the reference model does not know."""
        return (self.memory, self.pending, self.outstanding) != (MEMORY, 256, 2000)


@dataclass
class Totals:
    """What many runs have come to."""

    runs: int = 0
    deliveries: int = 0
    delivered_differs: int = 0
    reference_differs: int = 0
    compared: int = 0
    ended: int = 0
    messages: int = 0


TOTALS = Totals()
_ENGINES: dict[tuple[object, ...], tuple[Engine, list[int]]] = {}


def _engine(policy: str, setting: Setting, role: str) -> tuple[Engine, list[int]]:
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
        )
        _ENGINES[key] = Engine([FlowRule(setting.mode, POLICIES[policy])], limits=limits, on=On()), [10**9]
    return _ENGINES[key]


@dataclass
class Run:
    """``below`` chooses everything; ``run`` raises Violation."""

    below: Below
    setting: Setting

    def run(self) -> None:
        below, setting = self.below, self.setting
        self.name = setting.policy or NAMES[below(len(NAMES))]
        family = setting.family or (4, 6)[below(2)]
        hostile = below(3) != 0 if setting.hostile is None else setting.hostile
        isns = ISNS[below(len(ISNS))], ISNS[below(len(ISNS))]
        self.engine, clock = _engine(self.name, setting, "gateway")
        self.tracks = Track(family, False), Track(family, True)
        self.apply = setting.mode is Mode.ENFORCE
        bases = (isns[0] + 1) % 2**32, (isns[1] + 1) % 2**32
        self.books = Books(self.engine, self.tracks, bases, apply=self.apply, memory=setting.memory, now=clock[0])
        size = (65535, 65535, 65535, 300, 40)[below(5)]
        ends = Endpoint(isns[0], isns[1], 65535), Endpoint(isns[1], isns[0], 65535)
        ends[below(2)].size = size
        self.network = (Adversary if hostile else Network)(below, self.books, ends)
        self.network.options = TIMESTAMPS if below(4) == 3 else b""
        self.scale(((), (), (2, 7), (7, None))[below(4)])
        try:
            self.play()
        except DisagreementError as error:
            self.fail(Violation(2, str(error)))
        except Violation as violation:
            self.fail(violation)
        except BaseException:  # hypothesis has enough of this one
            _ENGINES.clear()
            raise
        clock[0] = self.books.now + 1
        TOTALS.runs += 1

    def fail(self, violation: Violation) -> None:
        _ENGINES.clear()
        violation.add_note(f"policy {self.name}\n{self.books.story()}")
        if violation.invariant == 4:
            TOTALS.reference_differs += 1
        if violation.invariant == 2:
            TOTALS.delivered_differs += 1
        raise violation

    def play(self) -> None:
        network = self.network
        before = self.books.given
        try:
            self.handshake()
            self.warm_up((0, 1, 3, 4, 5, 5, 6, 10)[self.below(8)])
            network.fair = False
            for _ in range(self.below(self.setting.steps) + self.setting.steps // 4):
                network.step()
            network.fair = True
            self.repair()
            self.understood()
            self.close()
        finally:
            TOTALS.deliveries += self.books.given - before
        self.end()
        self.judge()

    def scale(self, shifts: tuple[int | None, ...]) -> None:
        """Window scales the SYNs offer: the server's, the client's; one alone means none (RFC 7323 2.2)."""
        network = self.network
        network.offers = tuple(bytes([3, 3, shift, 0]) if shift is not None else b"" for shift in shifts) or (b"", b"")
        if shifts and None not in shifts:
            for place, shift in enumerate(shifts):
                network.ends[place].shift = network.ends[not place].peer_shift = shift

    # The course of a run.

    def handshake(self) -> None:
        network = self.network
        client, server = network.ends[True], network.ends[False]
        for to_server, flags in ((True, SYN), (False, SYN | ACK)):
            network.send(
                to_server,
                -1,
                flags=flags,
                ack=client.base if not to_server else 0,
                believable=False,
                options=network.offers[to_server],
            )
        network.send(True, 0, flags=ACK)
        server.said += network.server.greet()

    def warm_up(self, turns: int) -> None:
        """An ordinary beginning, so that the adversary comes in anywhere in a dialogue."""
        client = self.network.client
        traits, client.wild, client.patient = (client.wild, client.patient), 0, True
        for _ in range(turns):
            self.network.onward(False, 1460)
            self.network.onward(True, 1460)
        client.wild, client.patient = traits

    def repair(self) -> None:
        """Honest ends on an honest network, until all is said or nothing goes on any more."""
        network, books = self.network, self.books
        stalled = 0
        while stalled < 5:
            before = self.progress()
            bag, network.bag = network.bag, []
            for to_server, segment in bag:
                network.deliver(to_server, segment)
            for to_server in (False, True):
                end = network.ends[to_server]
                network.ends[not to_server].open_window()
                if end.dead:
                    continue
                stop = min(len(end.said), end.edge)
                for place in range(end.una, stop, 1000):
                    network.send(to_server, place, bytes(end.said[place : min(place + 1000, stop)]))
                network.send(to_server, end.sent, flags=ACK)
            if self.settled():
                return
            stalled = 0 if self.progress() != before else stalled + 1
            if stalled == 2:
                books.expire(31 * 10**9)

    def progress(self) -> tuple[int, ...]:
        ends = self.network.ends
        return (*(end.have for end in ends), *(end.una for end in ends), *(end.dead for end in ends))

    def settled(self) -> bool:
        if all(end.dead for end in self.network.ends):
            return True
        return all(end.una == len(end.said) for end in self.network.ends) and not self.books.open

    def understood(self) -> None:
        """Invariant 2 at its strongest: no server's reading of what it got has a denied verb in it."""
        if not self.apply:
            return
        allowed = {verb.upper() for verb in POLICIES[self.name].commands.allow}
        if "*" not in allowed:
            for verbs, line in self.network.server.log:
                if denied := [verb for verb in verbs if verb in KNOWN and verb not in allowed]:
                    raise Violation(2, f"a server understands {denied} in {line!r}")
        if behind := self.network.server.behind(self.network.ends[False].first.stream):
            raise Violation(2, f"{behind} has not read all of the lines that others have")

    def close(self) -> None:
        network, books = self.network, self.books
        if not self.settled() and not network.wedged and not books.ended and not books.over and not self.waits():
            raise Violation(2, "honest ends on an honest network do not go on")
        if books.ended and self.apply and books.last["flows_reset"] > books.first["flows_reset"]:
            for to_server in (True, False):
                if not network.ends[to_server].dead:
                    raise Violation(
                        2, f"the flow was reset, and the {'client' if to_server else 'server'} was not told"
                    )
        if self.below(2):
            for to_server in (True, False):
                end = network.ends[to_server]
                if not end.dead:
                    network.send(to_server, end.sent, flags=FIN | ACK)

    def waits(self) -> bool:
        """The client may have to wait for a reply that never comes."""
        server = self.network.server
        return server.skipped or server.reading.mode != 0 or self.setting.limited

    def end(self) -> None:
        """Nothing is left behind (invariants 1, 6)."""
        books = self.books
        books.finish()
        if books.open:
            raise Violation(1, f"{len(books.open)} packets never get a verdict")
        books.expire(1)
        counters = books.last
        left = {name: counters[name] for name in ("memory_now", "held_now", "flows_now") if counters[name]}
        if left:
            raise Violation(6, f"left behind: {left}")

    # What was decided, against the reference model and an engine that sees it in order.

    def judge(self) -> None:
        records = []
        while more := self.engine.drain():
            records += more
        ours = min((record[2] for record in records if record[2]), default=0)  # not a later one on the same ports
        if not self.apply and self.network.contradicted:
            return
        believed = self.books.believed
        of_core = sorted(
            (f.to_server, f.offset, f.name, f.action)
            for f in findings([record for record in records if record[2] == ours])
            if not f.name.startswith(("stream.", "packet.")) and f.name not in _BESIDE
        )
        TOTALS.compared += 1
        TOTALS.messages += sum(1 for event, _, _ in self.network.server.events if event[0] == 1)
        whole = len(believed.turns)
        turns = believed.turns + believed.ending
        first_difference = ""
        for stop in range(len(turns), whole - 1, -1):
            difference = self.differs(turns[:stop], of_core)
            if not difference:
                break
            first_difference = first_difference or difference
        else:
            raise Violation(4, first_difference)
        TOTALS.ended += self.books.ended
        if self.apply:
            self.in_order(turns)

    def differs(self, turns: list[Turn], of_core: list[tuple[object, ...]]) -> str:
        model = translate(POLICIES[self.name], [ModelTurn(*turn) for turn in turns], apply=self.apply)
        of_model = sorted((f.to_server, f.offset, f.name, str(f.action)) for f in model.findings)
        # The model reads whole lines; what it has to say of the last ones it says when they are whole.
        whole = [
            b"".join(turn.data for turn in model.turns if turn.to_server is side).rfind(b"\n") for side in (False, True)
        ]
        of_core, of_model = ([f for f in found if f[1] <= whole[f[0]]] for found in (of_core, of_model))
        cut = self.cut_off([Turn(turn.to_server, turn.data) for turn in model.turns])
        of_core = [f for f in of_core if f in of_model or not any(start <= f[1] < stop for start, stop in cut)]
        # The books feed the model what was decided; that something had to wait, they saw when it came.
        impatient = self.books.believed.impatient
        of_core = [f for f in of_core if f in of_model or f[2] != "command.pipelined_too_far" or f[1] not in impatient]
        if of_core == of_model:
            return ""
        core_only = [f for f in of_core if f not in of_model]
        model_only = [f for f in of_model if f not in of_core]
        return f"only the core finds {core_only}, only the model {model_only}"

    def cut_off(self, turns: list[Turn]) -> list[tuple[int, int]]:
        """Command lines that a 354 or 334 cut off: the core has told of them what the model tells at their end."""
        said, cut = [bytearray(), bytearray()], []
        for to_server, data in turns:
            said[to_server] += data
            if not to_server and not said[True].endswith(b"\n"):
                lines = said[False][said[False].rfind(b"\n", 0, -len(data)) + 1 :].split(b"\n")[:-1]
                if any(line.startswith((b"354", b"334")) for line in lines):
                    cut.append((said[True].rfind(b"\n") + 1, len(said[True])))
        return cut

    def in_order(self, turns: list[Turn]) -> None:
        """What left the gateway is what an engine lets through that sees the decided dialogue in order."""
        engine, clock = _engine(self.name, Setting(self.setting.mode), "twin")
        out = [bytearray(), bytearray()]
        now = clock[0]
        bases = [1001, 5001]
        sent = [0, 0]

        def give(to_server: bool, flags: int, data: bytes = b"") -> None:
            nonlocal now
            now += 1000
            seq = bases[to_server] + sent[to_server] - bool(flags & SYN)
            ack = bases[not to_server] + sent[not to_server] if flags & ACK else 0
            packet = self.tracks[to_server].build(seq, ack, flags, data)
            for kind, _, changed, _ in engine.process(packet, now):
                if kind < 2:
                    out[to_server] += self.tracks[to_server].read(packet if changed is None else changed).payload
            sent[to_server] += len(data)

        give(True, SYN)
        give(False, SYN | ACK)
        give(True, ACK)
        for to_server, data in turns:
            give(to_server, ACK | PSH, data)
        engine.finish(now)
        while engine.drain():
            pass
        clock[0] = now + 1
        ended = self.books.ended or self.books.over
        for to_server in (False, True):
            left = self.books.left[to_server]
            if not (out[to_server].startswith(left) if ended else left == out[to_server]):
                raise Violation(
                    2, f"delivered {bytes(left)!r}, decided {bytes(out[to_server])!r}; to_server={to_server}"
                )


#: Conditions of the flow, not of the dialogue: the reference model does not know them.
_BESIDE = ("flow.limit", "flow.asymmetric", "flow.midstream", "command.too_many_outstanding")
