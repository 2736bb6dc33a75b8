"""One run of the machine: a dialogue, delivered by an adversary, and what has to hold at its end.

Promises: every run ends, and leaves nothing behind. Where what was decided cannot be
known, or not be equal, it says so (``check``): with conflicting copies monitor lets both
pass, and nobody can know which one the receiver took, so that invariants 1, 3 and 5 to 8
remain; and octets that an end has acknowledged without having them (``lied``) are blanked
when they are sent again, so that of invariant 2 its strongest form remains: no denied verb.
"""

from __future__ import annotations

from dataclasses import dataclass

from nfmailguard.policy.model import EhloMask, Mode
from tests.stream.adversary import Adversary
from tests.stream.endpoint import Endpoint
from tests.stream.invariant_checker import InvariantChecker, Violation
from tests.stream.network import Network
from tests.stream.oracle import Oracle
from tests.stream.packets import ACK, FIN, STAMP, SYN, TIMESTAMPS, Track
from tests.stream.peers import HIDDEN, KNOWN, TEXT, Below, DisagreementError
from tests.stream.setting import NAMES, POLICIES, TOTALS, Setting, engine_for, forget_engines

ISNS = (1000, 2**32 - 3, 2**32 - 20, 2**31 - 5, 2**32 - 1, 2**32 - 400, 2**31 - 300)


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
        self.engine, clock = engine_for(self.name, setting, "gateway")
        self.tracks = Track(family, False), Track(family, True)
        self.apply = setting.mode is not Mode.MONITOR
        bases = (isns[0] + 1) % 2**32, (isns[1] + 1) % 2**32
        self.checker = InvariantChecker(
            self.engine, self.tracks, bases, apply=self.apply, memory=setting.memory, now=clock[0]
        )
        size = (65535, 65535, 65535, 300, 40)[below(5)]
        ends = Endpoint(isns[0], isns[1], 65535), Endpoint(isns[1], isns[0], 65535)
        ends[below(2)].size = size
        self.network = (Adversary if hostile else Network)(below, self.checker, ends)
        self.checker.holds = setting.mode is Mode.ENFORCE
        if setting.mode is Mode.RESTORE:
            self.network.server.others.clear()  # what servers read otherwise is told, and left
        self.network.options = TIMESTAMPS if below(4) == 3 else b""
        self.scale(((), (), (2, 7), (7, None))[below(4)])
        if self.network.options and below(2):
            self.network.offers = tuple(TIMESTAMPS + offer for offer in self.network.offers)
        try:
            self.play()
        except DisagreementError as error:
            self.fail(Violation(2, str(error)))
        except Violation as violation:
            self.fail(violation)
        except BaseException:  # hypothesis has enough of this one
            forget_engines()
            raise
        clock[0] = self.checker.now + 1
        TOTALS.runs += 1

    def fail(self, violation: Violation) -> None:
        forget_engines()
        violation.add_note(f"policy {self.name}\n{self.checker.story()}")
        if violation.invariant == 4:
            TOTALS.reference_differs += 1
        if violation.invariant == 2:
            TOTALS.delivered_differs += 1
        raise violation

    def play(self) -> None:
        network = self.network
        before = self.checker.given
        try:
            self.handshake()
            turns = (0, 1, 3, 4, 5, 5, 6, 10)[self.below(8)]
            self.warm_up(turns if self.setting.begun is None else self.setting.begun)
            network.fair = False
            for _ in range(self.below(self.setting.steps) + self.setting.steps // 4):
                network.step()
            network.fair = True
            self.repair()
            self.understood()
            self.close()
        finally:
            TOTALS.deliveries += self.checker.given - before
        self.end()
        TOTALS.ended += self.checker.ended
        TOTALS.messages += sum(1 for (mode, _), _, _ in network.server.events if mode == TEXT)
        records = []
        while more := self.engine.drain():
            records += more
        if network.judged and (self.apply or not network.contradicted):
            Oracle(self.name, self.setting, self.checker).check(records, honest=type(network) is Network)

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
        if all(end.offered == STAMP for end in network.ends):  # as they came through the gateway
            client.agreed = server.agreed = STAMP
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
        network, checker = self.network, self.checker
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
                checker.expire(200 * 10**9)  # longer than anything waits

    def progress(self) -> tuple[int, ...]:
        ends = self.network.ends
        return (*(end.have for end in ends), *(end.una for end in ends), *(end.dead for end in ends))

    def settled(self) -> bool:
        if all(end.dead for end in self.network.ends):
            return True
        return all(end.una == len(end.said) for end in self.network.ends) and not self.checker.open

    def understood(self) -> None:
        """Invariant 2 at its strongest: no server's reading of what it got has a denied verb in it."""
        if self.setting.mode is not Mode.ENFORCE:
            return
        allowed = {verb.upper() for verb in POLICIES[self.name].commands.allow}
        if "*" not in allowed:
            for verbs, line in self.network.server.log:
                if denied := [verb for verb in verbs if verb in KNOWN and verb not in allowed]:
                    raise Violation(2, f"a server understands {denied} in {line!r}")
        told = bytes(self.network.ends[True].first.stream)
        if (
            POLICIES[self.name].replies.ehlo is EhloMask.E1
            and not self.network.contradicted
            and HIDDEN.encode() in told
        ):
            raise Violation(2, f"a keyword is readable in {told!r}")
        if behind := self.network.server.behind(self.network.ends[False].first.stream):
            raise Violation(2, f"{behind} has not read all of the lines that others have")

    def close(self) -> None:
        network, checker = self.network, self.checker
        if not self.settled() and not network.wedged and not checker.ended and not checker.over and not self.waits():
            raise Violation(2, "honest ends on an honest network do not go on")
        reset = checker.last["flows_reset"] > checker.first["flows_reset"]
        if checker.ended and self.apply and reset and not network.renewed:
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
        checker = self.checker
        checker.finish()
        if checker.open:
            raise Violation(1, f"{len(checker.open)} packets never get a verdict")
        checker.expire(1)
        counters = checker.last
        left = {name: counters[name] for name in ("memory_now", "held_now", "flows_now") if counters[name]}
        if left:
            raise Violation(6, f"left behind: {left}")
