"""An engine that is replaced again and again beside one that never is: both must do the same.

``Twins`` is an Engine to whoever uses it, and keeps a second one of the same rules in step. The second is handed over
to a fresh engine whenever ``when`` says so; all that either returns is compared, and any difference fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from nfmailguard.engine import Engine, Generation

__all__ = ["Twins", "hand_over", "often_at_first", "sometimes"]


def hand_over(engine: Engine, rules: dict[int, Generation], successor: Engine) -> Engine:
    """``successor``, which goes on where ``engine`` was."""
    image = bytearray(engine.state_size)
    engine.save_state(image)
    successor.load_state(image, rules)
    again = bytearray(successor.state_size)
    successor.save_state(again)
    assert bytes(again) == bytes(image), "what was read is what was written"
    return successor


class Twins(Engine):
    """The first of the two; ``rules`` and ``options`` are an Engine's."""

    #: Whether the second is to be handed over now.
    when: Callable[[], bool] = staticmethod(lambda: True)
    handed_over = 0

    def __new__(cls, *arguments: Any, **options: Any) -> Twins:
        self: Any = super().__new__(cls, *arguments, **options)
        self.made = lambda: Engine(*arguments, **options)
        self.prepared = {0: lambda engine: engine.prepare(*arguments, **cls.of_prepare(options))}
        self.now = 0
        self.other = hand_over(self, {0: self.prepared[0](self.made())}, self.made())
        return self

    @staticmethod
    def of_prepare(options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in ("can_hold", "offload")}

    def replace(self) -> None:
        """Hands the second over, with all records read."""
        me: Any = self
        successor = me.made()
        rules = {number: me.prepared[number](successor) for number in me.other.rules_in_use}
        me.other = hand_over(me.other, rules, successor)
        if room := getattr(me, "room", 0):
            me.other.bound_windows(room)
        Twins.handed_over += 1

    def prepare(self, *arguments: Any, **options: Any) -> Generation:
        made = super().prepare(*arguments, **options)
        me: Any = self
        me.next_one = (arguments, options)
        return made

    def publish(self, generation: Generation, *, begins_anew: bool = False) -> int:
        me: Any = self
        arguments, options = me.next_one
        first = super().publish(generation, begins_anew=begins_anew)
        again = me.other.publish(me.other.prepare(*arguments, **options), begins_anew=begins_anew)
        assert again == first
        me.prepared[first // 64] = lambda engine: engine.prepare(*arguments, **options)
        me.made = lambda: Engine(*arguments, **options)
        return first

    def both(self, name: str, *arguments: Any, **options: Any) -> Any:
        me: Any = self
        if Twins.when():
            self.replace()
        found = getattr(Engine, name)(self, *arguments, **options)
        again = getattr(me.other, name)(*arguments, **options)
        assert again == found, name
        assert me.other.next_deadline == Engine.next_deadline.__get__(self)
        records = Engine.drain(self)
        assert me.other.drain() == records
        me.records = [*getattr(me, "records", ()), *records]
        assert me.other.counters() == Engine.counters(self)
        return found

    def bound_windows(self, octets: int) -> None:
        me: Any = self
        me.room = octets
        super().bound_windows(octets)
        me.other.bound_windows(octets)

    def take_up(self, now: int) -> None:
        me: Any = self
        super().take_up(now)
        me.other.take_up(now)

    def free_unused(self) -> None:
        me: Any = self
        super().free_unused()
        me.other.free_unused()

    def process(self, *arguments: Any, **options: Any) -> Any:
        return self.both("process", *arguments, **options)

    def expire(self, now: int) -> Any:
        return self.both("expire", now)

    def finish(self, now: int) -> Any:
        return self.both("finish", now)

    def drain(self, most: int = 4096) -> list[tuple[Any, ...]]:
        me: Any = self
        found, me.records = getattr(me, "records", [])[:most], getattr(me, "records", [])[most:]
        return found


def often_at_first(often: int = 200, seldom: int = 50) -> Callable[[], bool]:
    """Every second time of the first ``often``, then once in ``seldom``: a test of many packets is no longer for it."""
    choices = random.Random(0)
    asked = 0

    def when() -> bool:
        nonlocal asked
        asked += 1
        return choices.randrange(2 if asked <= often else seldom) == 0

    return when


def sometimes(seed: int, one_in: int) -> Callable[[], bool]:
    choices = random.Random(seed)
    return lambda: choices.randrange(one_in) == 0
