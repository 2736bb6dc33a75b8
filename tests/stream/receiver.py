"""Two receivers on one wire: TCPs that keep the first, or the last, of two copies of an octet.

Promises: what real receivers differ in, they differ in (RFC 9293 3.10.7.4 leaves open
which copy of an octet beyond the gap stands). Does not know what the stream means.
"""

from __future__ import annotations


class Receiver:
    """Puts a stream together; places are octets from the first one on.

    ``last_wins``: which copy of an octet beyond the gap stands. ``edge``: the place
    where the window ends that has been offered; octets from there on are not taken.
    """

    def __init__(self, *, last_wins: bool, edge: int = 65535) -> None:
        self.last_wins = last_wins
        self.edge = edge
        self.stream = bytearray()
        self.ended = False  #: a FIN has come in its turn: nothing more is taken
        self._early: dict[int, int] = {}
        self._fins: set[int] = set()

    def take(self, start: int, payload: bytes, *, fin: bool = False) -> None:
        """A segment has arrived."""
        if self.ended:
            return
        stream, early = self.stream, self._early
        have, end = len(stream), start + len(payload)
        if fin and have <= end <= self.edge:
            self._fins.add(end)
        if end > self.edge:
            payload = payload[: max(0, self.edge - start)]
            end = start + len(payload)
        if end > have:
            if start <= have and not early and not self._fins:
                stream += payload[have - start :]
                return
            for place, octet in enumerate(payload[max(0, have - start) :], start=max(start, have)):
                if self.last_wins or place not in early:
                    early[place] = octet
        while len(stream) in early and len(stream) not in self._fins:
            stream.append(early.pop(len(stream)))
        self.ended = len(stream) in self._fins
