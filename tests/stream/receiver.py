"""Two receivers on one wire: TCPs that keep the first, or the last, of two copies of an octet."""

from __future__ import annotations


class Receiver:
    """Puts a stream together. ``last_wins``: which copy of an octet beyond the gap stands."""

    def __init__(self, isn: int, *, last_wins: bool) -> None:
        self.base = (isn + 1) % 2**32
        self.last_wins = last_wins
        self.stream = bytearray()
        self._early: dict[int, int] = {}

    @property
    def expects(self) -> int:
        """The next sequence number."""
        return (self.base + len(self.stream)) % 2**32

    def take(self, seq: int, payload: bytes) -> None:
        """A segment has arrived."""
        start = (seq - self.base + 2**31) % 2**32 - 2**31
        for place, octet in enumerate(payload, start=start):
            if place >= len(self.stream) and (self.last_wins or place not in self._early):
                self._early[place] = octet
        while len(self.stream) in self._early:
            self.stream.append(self._early.pop(len(self.stream)))
