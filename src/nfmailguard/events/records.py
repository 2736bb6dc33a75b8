"""The core's records with field names: the meaning of a tuple drained from an Engine.

Promises: the order of ``Record`` is the order of ``ring_drain`` in cext/record.pyx. Does not know how an event is
written.
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
    """Kind of a record: RecordKind in cext/record.pxd."""

    FINDING = 1
    COMMAND = 2
    REPLY = 3
    MESSAGE = 4
    FLOW = 5
    REPEATED = 6


class FlowEnd(IntEnum):
    """Why a flow ended: FlowEnd in cext/record.pxd."""

    TIMEOUT = 0
    FIN = 1
    RST = 2
    DROPPED = 3
    EVICTED = 4
    FINISHED = 5


class Record(NamedTuple):
    """One record of the core. Addresses have 4 or 16 bytes; ``now`` is in nanoseconds; ``before`` and ``after`` are
    bytes as they were on the wire. What ``numbers`` mean depends on the kind (cext/record.pxd). ``rule`` is the rule's
    number, counted from what ``Engine.publish`` returned for its rules; the first rules begin at 0.
    """

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
        """Whether packets with a forged source address are enough to cause this record: no server has greeted its
        client.

        This holds for the end of such a flow, and for a finding about such a flow or about a packet without a flow. It
        does not hold for commands: a flow accepts them only with an acknowledgement of the server's initial sequence
        number.
        """
        if self.state != State.CONNECT:
            return False
        return self.kind == RecordKind.FLOW or (
            self.kind in (RecordKind.FINDING, RecordKind.REPEATED) and self.finding in BY_PACKETS
        )


@lru_cache(4096)
def address_text(family: int, octets: bytes) -> str:
    """An IP address in its usual text form."""
    return socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, octets)


def end_text(address: str, port: int) -> str:
    """One end of a connection as text (RFC 3986 3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
