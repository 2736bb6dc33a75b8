"""Which octets a gateway decides, and in which order: the obvious reassembly.

Promises: told by the verdicts alone (what left, what is held, what was dropped), it puts
together the dialogue the gateway has to believe: the first-seen octet stands, in the
order in which the streams went on. Does not know why a packet was held or dropped, so
limits and waits need no second implementation. Does not know SMTP.
"""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """Octets that were decided at once."""

    to_server: bool
    data: bytes


class Believed:
    """``turns`` is the dialogue decided so far; ``ending`` what the call that ended the flow may have decided."""

    def __init__(self, *, apply: bool) -> None:
        self.apply = apply
        self.turns: list[Turn] = []
        self.ending: list[Turn] = []
        self.next = [0, 0]
        #: (start, octets, id), by start; id None: it has left ahead of the gap.
        self.pending: list[list[tuple[int, bytes, int | None]]] = [[], []]

    def given(
        self, to_server: bool, own: int, start: int, octets: bytes, verdicts: dict[int, bytes | None], *, ended: bool
    ) -> None:
        """The gateway was given packet ``own``; ``verdicts``: id to what left of the payload, None when dropped."""
        if ended:
            self.end(to_server, start, octets)
            return
        if own not in verdicts:
            self.insert(to_server, start, octets, own)
        elif (out := verdicts[own]) is not None:
            self.left(to_server, start, octets[: len(out)], out)
        self.pump(to_server, verdicts)
        if not to_server:
            self.pump(True, verdicts)
        if len(verdicts) > (own in verdicts):
            self.forget(verdicts)

    def left(self, to_server: bool, start: int, octets: bytes, out: bytes) -> None:
        place = self.next[to_server]
        if not octets or start + len(octets) <= place:
            return
        if start <= place:
            self.decide(to_server, start, octets)
        elif self.apply or not any(
            begin <= start and start + len(octets) <= begin + len(text) for begin, text, _ in self.pending[to_server]
        ):
            self.insert(to_server, start, out, None)

    def insert(self, to_server: bool, start: int, octets: bytes, own: int | None) -> None:
        pending = self.pending[to_server]
        place = len(pending)
        while place and pending[place - 1][0] > start:
            place -= 1
        pending.insert(place, (start, octets, own))

    def decide(self, to_server: bool, start: int, octets: bytes) -> None:
        place = self.next[to_server]
        fresh = octets[place - start :]
        if self.apply and self.pending[to_server]:
            fresh = self.first_seen(to_server, place, fresh)
        self.turns.append(Turn(to_server, fresh))
        self.next[to_server] = place + len(fresh)

    def first_seen(self, to_server: bool, place: int, fresh: bytes) -> bytes:
        """What has left ahead of ``fresh`` is with the receiver: it stands."""
        end = place + len(fresh)
        for begin, text, own in self.pending[to_server]:
            low, high = max(begin, place), min(begin + len(text), end)
            if own is None and low < high:
                fresh = fresh[: low - place] + text[low - begin : high - begin] + fresh[high - place :]
        return fresh

    def pump(self, to_server: bool, verdicts: dict[int, bytes | None]) -> None:
        """What was waiting goes on: held packets when they have been let go, the others by themselves."""
        pending = self.pending[to_server]
        while pending and pending[0][0] <= self.next[to_server]:
            start, octets, own = pending[0]
            if own is not None and verdicts.get(own) is None:
                return
            if start + len(octets) > self.next[to_server]:
                self.decide(to_server, start, octets)
            pending.pop(0)

    def forget(self, verdicts: dict[int, bytes | None]) -> None:
        """Held packets that were dropped, or have become old."""
        for pending in self.pending:
            pending[:] = [entry for entry in pending if entry[2] is None or entry[2] not in verdicts]

    def end(self, to_server: bool, start: int, octets: bytes) -> None:
        """The call in which the flow ended: what it may have looked at before it did."""
        kept, self.turns = self.turns, []
        if start <= self.next[to_server] < start + len(octets):
            self.decide(to_server, start, octets)
        for direction in (to_server, True):
            pending = self.pending[direction]
            while pending and pending[0][0] <= self.next[direction]:
                begin, text, _ = pending.pop(0)
                if begin + len(text) > self.next[direction]:
                    self.decide(direction, begin, text)
        self.ending, self.turns = self.turns, kept
