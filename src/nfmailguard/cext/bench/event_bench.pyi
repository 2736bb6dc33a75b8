from typing import Any

from nfmailguard.cext.engine import Engine

class Feed:
    lost: int
    def __init__(self, engine: Engine, records: list[tuple[Any, ...]], open: int) -> None: ...
    def push(self, now: int) -> int: ...
