"""Which octets a gateway decides, and in which order: the obvious reassembly.

Promises: told by the verdicts alone (what left, what is held, what was dropped), it puts
together the dialogue the gateway has to believe: the first-seen octet stands, in the
order in which the streams went on. Does not know why a packet was held or dropped, so
limits and waits need no second implementation. Does not know SMTP.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Turn(NamedTuple):
    """Octets that were decided at once."""

    to_server: bool
    data: bytes


class Side:
    """One direction: what waits for its turn, ``ahead`` of it with the receiver, or ``held`` at the gateway."""

    def __init__(self) -> None:
        self.next = 0
        self.ahead: list[tuple[int, bytes]] = []  # ranges, none over another
        self.held: list[tuple[int, bytes, int]] = []  # with the packet's id

    def hold(self, start: int, octets: bytes, own: int) -> None:
        self.held.insert(bisect_right(self.held, start, key=lambda held: held[0]), (start, octets, own))

    def forward_out_of_order(self, start: int, octets: bytes) -> None:
        """Octets that are there already stay; what follows a range belongs to it."""
        place = bisect_right(self.ahead, start, key=lambda ahead: ahead[0]) - 1
        while octets:
            if place >= 0:
                begin, text = self.ahead[place]
                known = max(0, begin + len(text) - start)
                start, octets = start + known, octets[known:]
            part = len(octets)
            if place + 1 < len(self.ahead):
                part = min(part, self.ahead[place + 1][0] - start)
            if part and place >= 0 and self.ahead[place][0] + len(self.ahead[place][1]) == start:
                self.ahead[place] = self.ahead[place][0], self.ahead[place][1] + octets[:part]
            elif part:
                place += 1
                self.ahead.insert(place, (start, octets[:part]))
            start, octets = start + part, octets[part:]
            place += 1

    def over(self, octets: bytes) -> bytes:
        """The next octets, with those put over them that have gone ahead."""
        end = self.next + len(octets)
        for begin, text in self.ahead:
            low, high = max(begin, self.next), min(begin + len(text), end)
            if low < high:
                octets = octets[: low - self.next] + text[low - begin : high - begin] + octets[high - self.next :]
        return octets


class ReassemblyModel:
    """``turns`` is the dialogue decided so far; ``ending`` what the call that ended the flow may have decided."""

    def __init__(self, *, apply: bool) -> None:
        self.apply = apply
        self.turns: list[Turn] = []
        self.ending: list[Turn] = []
        self.sides = Side(), Side()
        #: Places of the client's stream whose turn had come, and that did not leave all the same.
        self.impatient: set[int] = set()

    def given(
        self, to_server: bool, own: int, start: int, octets: bytes, verdicts: dict[int, bytes | None], *, ended: bool
    ) -> None:
        """The gateway was given packet ``own``; ``verdicts``: id to what left of the payload, None when dropped."""
        side = self.sides[to_server]
        if ended:
            self.end(to_server, start, octets)
            return
        if own not in verdicts:
            side.hold(start, octets, own)
        elif out := verdicts[own]:
            if start > side.next:
                side.forward_out_of_order(start, out)
            else:
                self.decide(to_server, start, octets[: len(out)])
        if start <= side.next < start + len(octets):
            self.impatient.add(side.next)
        self.drain(to_server, verdicts)
        if not to_server:
            self.drain(True, verdicts)
        if len(verdicts) > (own in verdicts):
            self.forget(verdicts)

    def decide(self, to_server: bool, start: int, octets: bytes) -> None:
        side = self.sides[to_server]
        if fresh := octets[side.next - start :]:
            if self.apply and side.ahead:
                fresh = side.over(fresh)
            self.turns.append(Turn(to_server, fresh))
            side.next += len(fresh)

    def drain(self, to_server: bool, verdicts: dict[int, bytes | None] | None) -> None:
        """What was waiting goes on: held packets when they have been let go (None: all), the others by themselves."""
        side = self.sides[to_server]
        while True:
            ahead, held = side.ahead[:1], side.held[:1]
            if ahead and ahead[0][0] <= side.next and not (held and held[0][0] < ahead[0][0]):
                self.decide(to_server, *side.ahead.pop(0))
            elif held and held[0][0] <= side.next:
                start, octets, own = held[0]
                if verdicts is not None and verdicts.get(own) is None:
                    self.impatient.add(side.next)
                    return
                side.held.pop(0)
                self.decide(to_server, start, octets)
            else:
                return

    def forget(self, verdicts: dict[int, bytes | None]) -> None:
        """Held packets that were dropped, or have become old."""
        for side in self.sides:
            side.held = [held for held in side.held if held[2] not in verdicts]

    def end(self, to_server: bool, start: int, octets: bytes) -> None:
        """The call in which the flow ended: what it may have looked at before it did."""
        decided, self.turns = self.turns, []
        if start <= self.sides[to_server].next:
            self.decide(to_server, start, octets)
        self.drain(to_server, None)
        self.drain(True, None)
        self.ending, self.turns = self.turns, decided
