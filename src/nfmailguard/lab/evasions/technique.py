"""Techniques, and the means they use: the attacker's side of the lab, step by step.

Promises: a technique that could not be carried out reports that (``NotTried``) and is never counted as stopped. Does
not judge, and never looks at what the gateway reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nfmailguard.lab.bulk import segment
from nfmailguard.lab.lenient_server import Personality
from nfmailguard.lab.rawtcp import ACK, PSH, RST, SYN, Ends, Link, RawTcp, build
from nfmailguard.policy.model import Policy

__all__ = ["EVIL", "HARMLESS", "LOST", "Attack", "NotTried", "Table", "Technique"]

#: A verb that every profile denies (EVIL) and one that every profile allows (HARMLESS), in lines of the same length.
EVIL = b"TURN root\r\n"
HARMLESS = b"NOOP root\r\n"
#: An initial TTL with which a packet passes the gateway but does not reach the server.
LOST = 5
PORTS_EACH = 40
#: Seconds to wait for a reply that is certain to come, on a busy machine.
PATIENCE = 4.0
ORDINARY = Personality()
#: Source ports of the SYNs that fill the server's queue of half-open connections, so that it answers with SYN cookies;
#: no technique uses these ports.
PRESSURE = range(1_100, 1_400)
PRESSING_ISN = 0x25000000


class NotTried(Exception):  # noqa: N818, an outcome
    """The technique could not be carried out; says what failed."""


@dataclass
class Attack:
    """The means of one technique: ports of its own, and connections in the state it starts from."""

    link: Link
    source: str
    server: str
    #: Address at which the server listens for Multipath TCP; None: the kernel has no Multipath TCP.
    multipath_server: str | None
    first_port: int
    #: The gateway's policy; a technique may only count as forbidden what this policy forbids.
    policy: Policy
    connections: list[RawTcp] = field(default_factory=list)
    #: The connection that the technique's ``before`` opened before the gateway started; None: no such connection.
    early: RawTcp | None = None
    #: Patterns that must not reach the server, and those that must not reach the client, in addition to what is always
    #: forbidden.
    forbidden: list[bytes] = field(default_factory=list)
    forbidden_to_client: list[bytes] = field(default_factory=list)
    #: The server's net.ipv4.tcp_syncookies. 0: never sends SYN cookies, 1: when its queue is full, 2: always.
    cookies: int = 1
    #: Remarks by the technique about how it went.
    notes: list[str] = field(default_factory=list)
    #: Number of connections from the attacker's address that the server had before this technique.
    before_it: int = 0
    _ports: int = 0
    _pressing: bool = False

    @property
    def family(self) -> int:
        return Ends(self.source, self.server, 0).family

    def port(self) -> int:
        """A port no other technique uses."""
        self._ports += 1
        assert self._ports < PORTS_EACH
        return self.first_port + self._ports - 1

    def ports(self) -> frozenset[int]:
        """All ports that belong to this technique."""
        taken = (one.ends.port for one in self.connections)
        return frozenset(range(self.first_port, self.first_port + PORTS_EACH)).union(taken)

    def press(self) -> None:
        """If the server sends SYN cookies only under pressure, opens half-open connections until it does."""
        if self.cookies == 1:
            self._flood(SYN, PRESSING_ISN)
            self._pressing = True

    def relieve(self) -> None:
        """Ends the pressure: a server forgets a half-open connection when it gets an exact RST."""
        if self._pressing:
            self._flood(RST, PRESSING_ISN + 1)
            self._pressing = False

    def _flood(self, flags: int, seq: int) -> None:
        for number, port in enumerate(PRESSURE):
            self.link.send(segment(Ends(self.source, self.server, port), flags, seq, tag=self.link.next_tag()))
            if number % 32 == 31:  # No more packets are sent at once than the gateway's queue can take.
                self.link.dispatch(0.001)

    def again(self, old: RawTcp, isn: int | None = None, *, timeout: float = 0.3, **fields: Any) -> RawTcp:
        """A connection from the port of one that the server has lost, by default with the same ISN.

        With SYN cookies the server's ISN is the same again, within the same minute.
        """
        old.reset = True  # Marks the old connection as ended, so that its unacknowledged bytes are not retransmitted.
        self.press()
        new = self.tcp(old.ends.port, isn=old.isn if isn is None else isn % (1 << 32), **fields)
        new.connect(timeout=timeout)
        self.compare(old, new)
        return new

    def without_syn(self, old: RawTcp, isn: int | None = None, **fields: Any) -> RawTcp:
        """A connection that begins with an ACK of the cookie that ``old`` got.

        Linux' cookies grow with the client's ISN, so the cookie for another ISN is known too.
        """
        old.reset = True
        new = self.tcp(old.ends.port, isn=old.isn if isn is None else isn % (1 << 32), **fields)
        new.peer_isn = (old.peer_isn + new.isn - old.isn) % (1 << 32)
        new.peer_next = (new.peer_isn + 1) % (1 << 32)
        new.acknowledged, new.established = (new.isn + 1) % (1 << 32), True
        new.put(flags=ACK)
        return new

    def compare(self, old: RawTcp, new: RawTcp) -> None:
        """Notes whether the server's ISN is the same again, as the client's is."""
        if not new.established:
            self.notes.append("no second connection")
        elif (new.peer_isn - old.peer_isn - new.isn + old.isn) % (1 << 32):
            self.notes.append("the server chose another ISN")
        else:
            self.notes.append("the server's ISN followed the client's")

    def tcp(self, port: int | None = None, server: str | None = None, **fields: Any) -> RawTcp:
        """A connection that has sent nothing yet."""
        connection = RawTcp(self.link, Ends(self.source, server or self.server, port or self.port()), **fields)
        self.connections.append(connection)
        return connection

    def connected(self, port: int | None = None, **fields: Any) -> RawTcp:
        """An open connection, its greeting not read."""
        connection = self.tcp(port, **fields)
        if not connection.connect(timeout=PATIENCE):
            raise NotTried("no connection")
        return connection

    def opened(self, port: int | None = None, **fields: Any) -> RawTcp:
        """An open connection whose greeting has been read."""
        connection = self.connected(port, **fields)
        if not connection.read(PATIENCE).startswith(b"220"):
            raise NotTried("no greeting")
        return connection

    def session(self, hello: bytes = b"HELO", **fields: Any) -> RawTcp:
        """An SMTP session in which the server waits for a command."""
        connection = self.opened(**fields)
        if not connection.say(hello + b" evade.example\r\n", PATIENCE).startswith(b"250"):
            raise NotTried(f"no reply to {hello.decode()}")
        return connection

    def mail(self, hello: bytes = b"HELO", **fields: Any) -> RawTcp:
        """A session in which DATA, or BDAT, is next."""
        connection = self.session(hello, **fields)
        for line in (b"MAIL FROM:<evil@example.net>\r\n", b"RCPT TO:<bob@example.com>\r\n"):
            if not connection.say(line, PATIENCE).startswith(b"250"):
                raise NotTried("no mail begun")
        return connection

    def text(self, **fields: Any) -> RawTcp:
        """A session in which the server reads message text."""
        connection = self.mail(**fields)
        if not connection.say(b"DATA\r\n", PATIENCE).startswith(b"354"):
            raise NotTried("no 354")
        return connection

    def forge(
        self,
        connection: RawTcp,
        payload: bytes = b"",
        flags: int = PSH | ACK,
        *,
        seq: int | None = None,
        ack: int | None = None,
    ) -> None:
        """Sends packets with the server's address as source, from the client's side of the gateway."""
        tag, seq = self.link.next_tag(), connection.peer_next if seq is None else seq
        self.link.forged.add((tag, seq))
        packet = build(
            connection.ends.turned(),
            tag,
            payload,
            flags=flags,
            seq=seq,
            ack=connection.sequence(connection.here) if ack is None else ack,
            window=65535,
        )
        self.link.send(bytes(packet))

    def wait(self, seconds: float) -> None:
        """For so many seconds, receives and acknowledges what comes in."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.link.dispatch(left)


@dataclass(frozen=True)
class Technique:
    """One technique. ``why``: what it exploits, and its source.

    ``options``: it gets a gateway of its own, with these options added. ``before`` runs before that gateway does.
    """

    name: str
    kind: str
    why: str
    run: Callable[[Attack], None]
    server: Personality = ORDINARY
    options: tuple[str, ...] = ()
    before: Callable[[Attack], RawTcp] | None = None
    families: tuple[int, ...] = (4, 6)


class Table(list[Technique]):
    """Techniques of one kind, in order."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def technique(
        self, name: str, why: str, **how: Any
    ) -> Callable[[Callable[[Attack], None]], Callable[[Attack], None]]:
        """Adds the decorated function to the table; ``how``: other fields of Technique."""

        def decorate(run: Callable[[Attack], None]) -> Callable[[Attack], None]:
            self.append(Technique(name, self.kind, why, run, **how))
            return run

        return decorate
