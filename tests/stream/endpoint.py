"""One end of the connection: TCP's sender, and two receivers at once, over an application.

Promises: what it acknowledges both its receivers have; it takes what RFC 9293 3.10.7.4
lets it take, and a RST only at exactly the next octet (RFC 5961 3.2). Does not know
SMTP, the gateway or the network.

What it refuses unread: a key it does not know (tcp_inbound_hash), and a timestamp older than the one
it has noted, where both agreed on them (RFC 7323 5.2); not a RST for its timestamp.
"""

from __future__ import annotations

from tests.stream.packets import ACK, FIN, RST, SYN, Segment
from tests.stream.receiver import Receiver


class Endpoint:
    """Places are octets of a stream from its first one on; ``said`` is what the application has written."""

    def __init__(self, isn: int, peer_isn: int, window: int) -> None:
        self.base = (isn + 1) % 2**32
        self.peer_base = (peer_isn + 1) % 2**32
        self.said = bytearray()
        self.una = 0  #: acknowledged by the other end
        self.sent = 0  #: the farthest that has been sent
        self.edge = 65535  #: where the other end's window ends
        self.size = window
        self.shift = self.peer_shift = 0  #: RFC 7323 2.2, of the windows it offers and reads
        self.first = Receiver(last_wins=False, edge=window)
        self.last = Receiver(last_wins=True, edge=window)
        self.offered: int | None = None  #: the timestamp in the other end's SYN
        self.agreed: int | None = None  #: the same, where both have sent one
        self.dead = False
        self.owes_ack = False

    @property
    def have(self) -> int:
        return len(self.first.stream)

    def seq(self, place: int) -> int:
        return (self.base + place) % 2**32

    def ack(self) -> int:
        return (self.peer_base + self.have + self.first.ended) % 2**32

    def window(self, *, scaled: bool = True) -> int:
        room = max(0, self.first.edge - self.have)
        return min(65535, room >> (self.shift if scaled else 0))

    def open_window(self) -> None:
        """Its application has read everything."""
        self.first.edge = self.last.edge = max(self.first.edge, self.have + self.size)

    def receive(self, segment: Segment) -> bool:
        """A segment has arrived; whether the application has something new to read."""
        seq, ack, flags, window, payload, option, stamp = segment
        if self.dead or option:
            return False
        if self.agreed is not None and stamp is not None and stamp < self.agreed and not flags & RST:
            self.owes_ack = True
            return False
        start = (seq - self.peer_base - self.have + 2**31) % 2**32 - 2**31 + self.have
        if flags & RST:
            self.dead = start == self.have + self.first.ended
            self.owes_ack = not self.dead and self.have < start < self.first.edge
            return False
        if flags & SYN and seq == (self.peer_base - 1) % 2**32:
            self.offered = stamp
        if flags & SYN or not flags & ACK:
            self.owes_ack |= bool(flags & SYN)
            return False
        acked = (ack - self.base - self.una + 2**31) % 2**32 - 2**31 + self.una
        if acked > self.sent + 1:
            self.owes_ack = True
            return False
        acked = min(acked, self.sent)
        if acked >= self.una:
            self.una = acked
            self.edge = max(self.edge, acked + (window << self.peer_shift))
        before = self.have
        self.owes_ack |= bool(payload) or bool(flags & FIN) or start < before
        for receiver in (self.first, self.last):
            receiver.take(start, payload, fin=bool(flags & FIN))
        return self.have > before
