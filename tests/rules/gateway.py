"""A gateway with three engines on one wire: one enforces, one watches, one runs dry.

Whatever a rule's test sends goes through all three. The enforcing one is what the test is about;
the two others have to let every packet pass at once and as it came, so that each rule is proven
for ``monitor`` and ``--dry-run`` by the same packets.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode, Policy
from tests.stream.receiver import Receiver
from tests.support.dialogue import CLIENTS, SERVERS, Dialogue, Finding, findings
from tests.support.wire import ACK, PSH, SYN, End, Segment, build, parse

ACCEPT, REPLACE, DROP, EMIT = (
    OperationKind.ACCEPT,
    OperationKind.REPLACE,
    OperationKind.DROP,
    OperationKind.EMIT,
)
#: What a reset of ours looks like: the packet is dropped, both sides are told.
RESET = [DROP, EMIT, EMIT]
PARTIAL, GSO = 1, 2  # QueuedPacket.flags
#: What a queue tells of a packet besides.
QUEUED = ("in_interface", "out_interface", "connection")

Operations = list[tuple[int, int, bytes | None, bool]]


profile = cache(load_profile)


class Gateway:
    """The engines, one clock and the packets they have not answered yet."""

    def __init__(self, policy: Policy | str = "pix63", **options: object) -> None:
        # In streams as short as these an ACK's numbers often are a cookie's by chance: only its own tests hide them.
        options.setdefault("limits", Limits(cookies=0))
        rule = FlowRule(Mode.ENFORCE, profile(policy) if isinstance(policy, str) else policy)
        watching = FlowRule(Mode.MONITOR, rule.policy)
        self.options = options
        self.engine = Engine([rule], **options)  # type: ignore[arg-type]
        self.watching = Engine([watching], **options)  # type: ignore[arg-type]
        self.dry = Engine([rule], dry_run=True, **options)  # type: ignore[arg-type]
        self.now = 1_000_000_000
        self.next_id = 1
        self.open: dict[int, tuple[Connection, bool, bytes]] = {}
        self.records: list[tuple] = []  # type: ignore[type-arg]
        self.watched: list[tuple] = []  # type: ignore[type-arg]

    def reload(self, *policies: Policy | str, begins_anew: bool = False, **options: object) -> int:
        """Other rules, each for every flow but the last one's, and settings; their number in the records."""
        found = [profile(policy) if isinstance(policy, str) else policy for policy in policies]
        changed: dict[str, Any] = {**self.options, **options}
        number = -1
        for engine, mode, dry in (
            (self.dry, Mode.ENFORCE, True),
            (self.watching, Mode.MONITOR, False),
            (self.engine, Mode.ENFORCE, False),
        ):
            rules = [FlowRule(mode, policy) for policy in found]
            number = engine.publish(engine.prepare(rules, **changed, dry_run=dry), begins_anew=begins_anew)
        return number

    def process(
        self, owner: Connection, to_server: bool, packet: bytes, captured: int | None = None, **queued: int
    ) -> list[int]:
        """Gives all engines the packet and delivers what the enforcing one lets through; the kinds of its answers."""
        packet_id, self.next_id = self.next_id, self.next_id + 1
        self.now += 1000
        whole = packet
        if captured is not None:
            queued = {"length": len(packet)} | queued
            packet = packet[:captured]
        for engine in (self.watching, self.dry):
            answers = engine.process(packet, self.now, id=packet_id, **queued)
            assert answers == [(ACCEPT, packet_id, None, False)], "what only watches passes every packet as it came"
        self.watched += self.watching.drain()
        self.open[packet_id] = owner, to_server, whole
        return self.deliver(owner, self.engine.process(packet, self.now, id=packet_id, **queued))

    def wait(self, seconds: float) -> list[int]:
        """Time goes by; the kinds of what it brought about."""
        self.now += round(seconds * 1e9)
        for engine in (self.watching, self.dry):
            assert engine.expire(self.now) == []
        return self.deliver(None, self.engine.expire(self.now))

    def deliver(self, owner: Connection | None, operations: Operations) -> list[int]:
        for kind, packet_id, data, to_server in operations:
            if kind == EMIT:
                assert owner is not None
                assert data is not None
                owner.emitted.append(parse(data))
                owner.emitted_to_server.append(to_server)
                continue
            sender, direction, packet = self.open.pop(packet_id)  # KeyError: a second verdict
            if kind != DROP:
                sender.deliver(direction, packet if data is None else data)
        self.records += self.engine.drain()
        return [operation[0] for operation in operations]

    def memory(self) -> int:
        return self.engine.counters()["memory_now"]

    def count(self, name: str) -> int:
        return self.engine.counters()[name]

    @property
    def findings(self) -> list[Finding]:
        """What the enforcing engine found."""
        return findings(self.records)

    @property
    def names(self) -> list[str]:
        return [finding.name for finding in self.findings]

    @property
    def watched_names(self) -> list[str]:
        """What the watching engine found."""
        return [finding.name for finding in findings(self.watched)]


class Connection(Dialogue):
    """One connection through the gateway.

    Places are counted from the first octet of a stream. Each side acknowledges what it has, which
    two receivers put together that disagree on overlaps: they must never differ.
    """

    def __init__(
        self,
        gateway: Gateway | None = None,
        family: int = 4,
        *,
        client: str | None = None,
        port: int = 40000,
        isn: tuple[int, int] = (1000, 5000),
        window: int = 65535,
        options: bytes = b"",
        shake: bool = True,
    ) -> None:
        self.gateway = gateway or Gateway()
        self.engine = self.gateway.engine
        self.client_end = End(client or CLIENTS[family].address, port)
        self.server_end = SERVERS[family]
        self.window = {True: window, False: window}  # as each side's packets say it
        self.emitted: list[Segment] = []
        self.emitted_to_server: list[bool] = []
        self.left: list[bytes] = []
        self.losing = False
        self.begin(isn)
        if shake:
            self.shake(options)

    def begin(self, isn: tuple[int, int]) -> None:
        """Both sides choose their numbers."""
        self.isn = {True: isn[0], False: isn[1]}
        self.sent = dict(self.isn)
        self.receivers = {
            side: (Receiver(last_wins=False, edge=2**31), Receiver(last_wins=True, edge=2**31))
            for side in (True, False)
        }

    def shake(self, options: bytes = b"", **queued: int) -> None:
        """The three packets of the handshake; ``options`` stand in both SYNs."""
        assert self.send(True, SYN, options=options, **queued) == [ACCEPT]
        self.sent[True] += 1
        assert self.send(False, SYN | ACK, options=options) == [ACCEPT]
        self.sent[False] += 1
        assert self.send(True, ACK, options=options, **queued) in ([ACCEPT], [REPLACE])

    def reads(self, to_server: bool) -> bytes:
        """What the receiving side's application reads, whichever copy of an octet its TCP keeps."""
        first, last = (bytes(receiver.stream) for receiver in self.receivers[to_server])
        assert first == last
        return first

    @property
    def server_reads(self) -> bytes:
        return self.reads(True)

    @property
    def client_reads(self) -> bytes:
        return self.reads(False)

    def has(self, to_server: bool) -> int:
        """What the receiving side acknowledges: the next number it expects."""
        return self.isn[to_server] + 1 + len(self.reads(to_server))

    def packet(
        self,
        to_server: bool,
        flags: int = ACK | PSH,
        payload: bytes = b"",
        *,
        seq: int | None = None,
        at: int | None = None,
        ack: int | None = None,
        **header: int | bytes,
    ) -> bytes:
        """A packet of this connection; ``at`` is its place in the stream instead of a ``seq``."""
        ends = (self.client_end, self.server_end) if to_server else (self.server_end, self.client_end)
        if at is not None:
            seq = self.isn[to_server] + 1 + at
        elif seq is None:
            seq = self.sent[to_server]
        if ack is None:
            ack = self.has(not to_server) if flags & ACK else 0
        header.setdefault("window", self.window[to_server])
        return build(*ends, seq, ack, flags, payload, **header)  # type: ignore[arg-type]

    def send(  # type: ignore[override]
        self,
        to_server: bool,
        flags: int = ACK | PSH,
        payload: bytes = b"",
        *,
        lost: bool = False,
        **fields: int | bytes,
    ) -> list[int]:
        """Sends one packet and stays where it is; ``lost``: behind the gateway."""
        queued = {name: int(fields.pop(name)) for name in QUEUED if name in fields}
        return self.raw(to_server, self.packet(to_server, flags, payload, **fields), lost=lost, **queued)  # type: ignore[arg-type]

    def raw(
        self, to_server: bool, packet: bytes, *, lost: bool = False, captured: int | None = None, **queued: int
    ) -> list[int]:
        """Sends a packet as it is, of which the queue hands over the ``captured`` first octets."""
        self.losing = lost
        kinds = self.gateway.process(self, to_server, packet, captured, **queued)
        self.losing = False
        return kinds

    def deliver(self, to_server: bool, packet: bytes) -> None:
        """A packet of this connection has left the gateway."""
        segment = parse(packet)
        self.left.append(packet)
        if not self.losing and not segment.flags & SYN:
            for receiver in self.receivers[to_server]:
                place = (segment.seq - self.isn[to_server] - 1 + 2**31) % 2**32 - 2**31
                receiver.take(place, segment.payload)

    def greeted(self) -> Connection:
        """With the server's greeting received and acknowledged."""
        assert self.server(b"220 mail ESMTP\r\n") in ([ACCEPT], [REPLACE])
        assert self.send(True, ACK) == [ACCEPT]
        return self

    def in_text(self) -> Connection:
        """In message text, with nothing of it sent; ``mark`` is the place of its first octet."""
        self.greeted()
        self.client(b"DATA\r\n")
        self.server(b"354 go on\r\n")
        assert self.send(True, ACK) == [ACCEPT]
        return self

    @property
    def mark(self) -> int:
        """Where the client's next octet stands in its stream."""
        return self.sent[True] - self.isn[True] - 1

    @property
    def last(self) -> Segment:
        """The packet that left last."""
        return parse(self.left[-1])

    @property
    def names(self) -> list[str]:
        """The findings' names, without the greeting's, which most tests begin with."""
        return [name for name in self.gateway.names if name != "banner.masked"]

    def is_inspected(self) -> bool:
        """Whether a denied command that comes next is masked."""
        before = len(self.server_reads)
        self.client(b"EXPN x\r\n")
        return self.server_reads[before:] == b"XXXX x\r\n"
