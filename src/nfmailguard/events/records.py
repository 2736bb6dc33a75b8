"""The core's records, in names: what a tuple drained from an Engine says.

Promises: the order of ``Record`` is the order of ``ring_drain`` in cext/record.pyx.
Does not know how an event is written.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from nfmailguard.policy.findings import FINDINGS
from nfmailguard.smtp.states import State

__all__ = ["BY_PACKETS", "FlowEnd", "Record", "RecordKind", "address_text", "end_text"]

#: Numbers of the findings that packets cause whatever their source address, so that a forger can cause them.
#: flow.not_smtp is not one: the server causes it.
BY_PACKETS = frozenset(
    number
    for number, spec in enumerate(FINDINGS)
    if spec.name.startswith(("packet.", "flow.", "stream.")) and spec.name != "flow.not_smtp"
)


class RecordKind(IntEnum):
    """cext/record.pxd, RecordKind."""

    FINDING = 1
    COMMAND = 2
    REPLY = 3
    MESSAGE = 4
    FLOW = 5
    REPEATED = 6


class FlowEnd(IntEnum):
    """Why a flow's record was written: cext/record.pxd, FlowEnd."""

    TIMEOUT = 0
    FIN = 1
    RST = 2
    DROPPED = 3
    EVICTED = 4
    FINISHED = 5


class Record(NamedTuple):
    """One fact. Addresses are 4 or 16 octets; ``now`` is in nanoseconds; ``before`` and ``after`` are octets as
    they were on the wire, the numbers mean what cext/record.pxd says for the kind. ``rule`` counts from
    what ``Engine.publish`` has returned for them, the first ones from 0."""

    kind: int
    now: int
    flow_id: int
    rule: int
    family: int
    client: bytes
    client_port: int
    server: bytes
    server_port: int
    to_server: bool
    state: int
    verb: int
    finding: int
    action: int
    hypothetical: bool
    applied: bool
    code: int
    numbers: tuple[int, int, int, int, int]
    before: bytes
    after: bytes

    @classmethod
    def of(cls, drained: tuple[Any, ...]) -> Record:
        """The record of a drained tuple."""
        return cls._make(drained)

    @property
    def forgeable(self) -> bool:
        """Whether packets with a forged source address are enough to make it: no server has greeted its client.

        The end of such a flow, or a finding about such a flow, or about a packet of none. What clients say there is
        not: a flow takes it only with an acknowledgement of the server's initial sequence number.
        """
        if self.state != State.CONNECT:
            return False
        return self.kind == RecordKind.FLOW or (
            self.kind in (RecordKind.FINDING, RecordKind.REPEATED) and self.finding in BY_PACKETS
        )


@lru_cache(4096)
def address_text(family: int, octets: bytes) -> str:
    """An address as people write it."""
    return socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, octets)


def end_text(address: str, port: int) -> str:
    """One end of a connection, as people write it (RFC 3986 3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
