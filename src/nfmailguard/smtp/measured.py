"""Helpers that keep the reference model's time linear in the dialogue's length.

Promises: knows nothing of SMTP except what a header is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, overload

__all__ = ["Part", "Rest"]

Item = TypeVar("Item")


@dataclass
class Part:
    """Sizes of a message's header, or of its body, as it is sent on."""

    header: bool = True
    line: bytes = b""  # The first bytes of the line that is being read, in capitals.
    size: int = 0
    before: int = 0  # Size in bytes of this header or body without the line that is being read.
    fields: int = 0  # Number of header lines that begin with "To:".


class Rest(Sequence[Item], Generic[Item]):
    """A list of which a tail ``octets[n:]`` is a view instead of a copy."""

    def __init__(self, items: list[Item], begin: int = 0) -> None:
        self._items, self._begin = items, begin

    def as_list(self) -> list[Item]:
        """This object, typed as a list, for code that only reads."""
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
