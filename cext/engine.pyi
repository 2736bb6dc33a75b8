from typing import Any, Self

#: Memory a flow takes, in octets, without what its streams keep.
FLOW_OCTETS: int

class Engine:
    """The core as an extension type; ``nfmailguard.engine.Engine`` is what to use."""

    def __new__(cls, tables: dict[str, object]) -> Self: ...
    def process(
        self,
        data: bytes | bytearray | memoryview,
        now: int,
        id: int = 0,
        length: int = 0,
        in_interface: int = 0,
        out_interface: int = 0,
        flags: int = 0,
    ) -> list[tuple[int, int, bytes | None, bool]]: ...
    def expire(self, now: int) -> list[tuple[int, int, bytes | None, bool]]: ...
    def finish(self, now: int) -> list[tuple[int, int, bytes | None, bool]]: ...
    @property
    def next_deadline(self) -> int | None: ...
    def drain(self, most: int = 4096) -> list[tuple[Any, ...]]: ...
    def core_counters(self) -> tuple[dict[str, int], list[int]]: ...
