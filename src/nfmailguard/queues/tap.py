"""The tap: a capture of what a live driver received, and one of what left.

Promises: the first file, replayed through the capture driver, gives the second. A driver opens its tap and closes it; a
full disk never disturbs a packet and is reported on closing. Does not know which driver it serves.
"""

from __future__ import annotations

import os

from nfmailguard.cext.drivers.tap import TapWriter
from nfmailguard.errors import CaptureError

__all__ = ["Tap"]


class Tap:
    """Raw-IP pcap files with nanosecond times; ``out_path`` None writes only what came in. Serves one queue."""

    def __init__(self, in_path: str, out_path: str | None = None) -> None:
        self.in_path = in_path
        self.out_path = out_path
        self.writer: TapWriter | None = None

    def open(self) -> TapWriter:
        """Makes the files, readable by their owner alone: they hold mail."""
        try:
            self.writer = TapWriter(self.in_path, self.out_path)
        except OSError as error:
            raise CaptureError(f"{error.filename}: cannot write the tap's capture: {error.strerror}") from error
        return self.writer

    def close(self) -> None:
        """Writes out what is buffered. Raises CaptureError if a file is incomplete; may be called repeatedly."""
        if self.writer is None or not (failure := self.writer.close()):
            return
        lost = self.writer.counters()["tap_lost"]
        names = " or ".join(filter(None, (self.in_path, self.out_path)))
        raise CaptureError(f"{names}: the tap's capture is incomplete, {lost} packets lost: {os.strerror(failure)}")

    def counters(self) -> dict[str, int]:
        """Counters of packets: ``tap_incoming``, ``tap_outgoing``, ``tap_lost``."""
        return self.writer.counters() if self.writer else {}
