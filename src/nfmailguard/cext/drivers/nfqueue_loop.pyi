from typing import Any

from nfmailguard.cext.drivers.rawsocket import RawSender
from nfmailguard.cext.drivers.tap import TapWriter
from nfmailguard.cext.engine import Engine

class QueueLoop:
    number: int
    length: int
    copy_range: int
    receive_buffer: int
    wanted_buffer: int
    gso: bool
    fail_open: bool
    portid: int
    def __init__(
        self,
        engine: Engine | None,
        number: int,
        *,
        length: int,
        copy_range: int,
        gso: bool,
        fail_open: bool,
        batch: int,
        busy_poll: int,
        offload_mark: int,
        connection_mark: int,
        most_buffer: int,
        sender: RawSender | None,
        writer: TapWriter | None,
    ) -> None: ...
    def open(self, socket: int = -1, standing: dict[str, Any] | None = None) -> None: ...
    def run(self) -> None: ...
    def set_marks(self, connection_mark: int) -> None: ...
    def set_fail_open(self, fail_open: bool) -> None: ...
    def stop(self) -> None: ...
    def leave(self) -> None: ...
    def come_back(self) -> None: ...
    def standing(self) -> dict[str, Any]: ...
    def nudge(self, *, anew: bool = False) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
