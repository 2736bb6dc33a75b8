"""A TCP connection through an Engine: what each side says in, what the other receives out."""

from __future__ import annotations

from dataclasses import dataclass

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.model import FINDINGS, Action, FlowRule, Mode, Policy, Restore
from nfmailguard.smtp.states import State
from tests.support.wire import ACK, FIN, PSH, RST, SYN, End, Segment, build, parse

CLIENTS = {4: End("10.0.1.2", 40000), 6: End("fd00:1::2", 40000)}
SERVERS = {4: End("10.0.2.2", 25), 6: End("fd00:2::2", 25)}
_ACTIONS = tuple(Action)
RECORD_FINDING = 1


@dataclass(frozen=True)
class Finding:
    """A finding of the core, in names."""

    name: str
    action: str
    to_server: bool
    state: str
    offset: int
    hypothetical: bool
    before: bytes
    after: bytes


def findings(records: list[tuple]) -> list[Finding]:  # type: ignore[type-arg]
    """The findings among an Engine's drained records."""
    return [
        Finding(
            FINDINGS[record[12]].name,
            str(_ACTIONS[record[13]]),
            record[9],
            State(record[10]).name.lower(),
            record[17][0],
            record[14],
            record[18],
            record[19],
        )
        for record in records
        if record[0] == RECORD_FINDING
    ]


class Dialogue:
    """One connection with its handshake done; in order, every ACK sent with the data of the other side.

    ``received_by_server`` and ``received_by_client`` grow as packets leave the
    engine; every packet that leaves has its lengths and checksums checked.
    """

    def __init__(
        self, engine: Engine, family: int = 4, *, isn: tuple[int, int] = (1000, 5000), port: int = 40000
    ) -> None:
        self.engine = engine
        self.client_end = End(CLIENTS[family].address, port)
        self.server_end = SERVERS[family]
        self.now = 1_000_000_000
        self.next_id = 1
        self.open: dict[int, tuple[bool, bytes]] = {}
        self.sent = {True: isn[0], False: isn[1]}
        self.isn = {True: isn[0], False: isn[1]}
        self.received = {True: bytearray(), False: bytearray()}
        self.emitted: list[Segment] = []
        self.records: list[tuple] = []  # type: ignore[type-arg]
        self.cut: list[tuple[int, bytes]] = []
        self.send(True, SYN)
        self.sent[True] += 1
        self.send(False, SYN | ACK)
        self.sent[False] += 1
        self.send(True, ACK)

    @classmethod
    def under(
        cls,
        policy: Policy,
        mode: Mode = Mode.ENFORCE,
        family: int = 4,
        *,
        restore: Restore | None = None,
        **options: object,
    ) -> Dialogue:
        """A dialogue through an engine with this one rule; ``restore``: one that undoes the policy's damage."""
        rule = FlowRule(Mode.RESTORE, policy, restore=restore) if restore else FlowRule(mode, policy)
        return cls(Engine([rule], **options), family)  # type: ignore[arg-type]

    def send(self, to_server: bool, flags: int, payload: bytes = b"", seq: int | None = None) -> list[int]:
        """Sends one packet; the kinds of the operations it gave."""
        ends = (self.client_end, self.server_end) if to_server else (self.server_end, self.client_end)
        seq = self.sent[to_server] if seq is None else seq
        # What this side has heard so far is what went the other way, and the SYN.
        ack = self.isn[not to_server] + 1 + len(self.received[not to_server]) if flags & ACK else 0
        return self.raw(to_server, build(*ends, seq, ack, flags, payload))

    def raw(self, to_server: bool, packet: bytes) -> list[int]:
        """Gives the engine a packet as it is."""
        packet_id, self.next_id = self.next_id, self.next_id + 1
        self.now += 1000
        self.open[packet_id] = (to_server, packet)
        return self.carry_out(self.engine.process(packet, self.now, id=packet_id))

    def carry_out(self, operations: list[tuple[int, int, bytes | None, bool]]) -> list[int]:
        """Delivers what operations let through, in order."""
        for kind, packet_id, data, to_server in operations:
            if kind == OperationKind.EMIT:
                assert data is not None
                self.emitted.append(parse(data))
                continue
            direction, packet = self.open.pop(packet_id)  # KeyError: a second verdict
            assert to_server is False
            if kind == OperationKind.DROP:
                continue
            segment = parse(packet if data is None else data)
            self.received[direction] += segment.payload
            came = parse(packet)
            if direction and len(segment.payload) < len(came.payload):
                self.cut.append((segment.seq + len(segment.payload), came.payload[len(segment.payload) :]))
        self.records += self.engine.drain()
        return [operation[0] for operation in operations]

    def repeat(self) -> None:
        """A client's TCP says once more what was cut off a packet."""
        while self.cut:
            seq, octets = self.cut.pop(0)
            self.send(True, ACK | PSH, octets, seq)

    def client(self, octets: bytes) -> list[int]:
        """The client sends one segment with ``octets``."""
        kinds = self.send(True, ACK | PSH, octets)
        self.sent[True] += len(octets)
        return kinds

    def server(self, octets: bytes) -> list[int]:
        """The server sends one segment with ``octets``."""
        kinds = self.send(False, ACK | PSH, octets)
        self.sent[False] += len(octets)
        return kinds

    def say(self, to_server: bool, octets: bytes) -> list[int]:
        return self.client(octets) if to_server else self.server(octets)

    def close(self) -> None:
        """Both sides finish."""
        for to_server in (True, False):
            self.send(to_server, FIN | ACK)
            self.sent[to_server] += 1

    @property
    def received_by_server(self) -> bytes:
        return bytes(self.received[True])

    @property
    def received_by_client(self) -> bytes:
        return bytes(self.received[False])

    @property
    def findings(self) -> list[Finding]:
        return findings(self.records)

    @property
    def resets(self) -> list[Segment]:
        return [segment for segment in self.emitted if segment.flags & RST]
