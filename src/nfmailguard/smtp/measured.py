"""What keeps the obvious model's time linear in a dialogue.

Promises: nothing of SMTP but what a header is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, overload

__all__ = ["Part", "Rest"]

Item = TypeVar("Item")


@dataclass
class Part:
    """A message's header, or its body, as it comes out."""

    header: bool = True
    line: bytes = b""  # The first bytes of the line that is being read, in capitals.
    size: int = 0
    before: int = 0  # Size in bytes of this header or body without the line that is being read.
    fields: int = 0  # Number of header lines that begin with "To:".


class Rest(Sequence[Item], Generic[Item]):
    """A list of which what is left costs nothing to take: the model reads on by ``octets[n:]``."""

    def __init__(self, items: list[Item], begin: int = 0) -> None:
        self._items, self._begin = items, begin

    def as_list(self) -> list[Item]:
        """As whoever reads takes it: nobody writes to it."""
        return cast("list[Item]", self)

    def __len__(self) -> int:
        return len(self._items) - self._begin

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, int):
            return self._items[self._begin + place if place >= 0 else place]
        begin, end, _ = place.indices(len(self))
        if end == len(self):
            return Rest(self._items, self._begin + begin).as_list()
        return self._items[self._begin + begin : self._begin + end]
