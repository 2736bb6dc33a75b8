"""Where packets come from and go to: one protocol, three drivers.

A driver feeds one core and carries out its operations. It knows packets and verdicts, and nothing of SMTP.
"""

from typing import Protocol

__all__ = ["LiveDriver", "QueueDriver"]


class QueueDriver(Protocol):
    """One source of packets, with its engine; used once: open, run, close."""

    def open(self) -> None:
        """Takes the queue or file; packets are queued from here on. Raises QueueError or CaptureError."""

    def run(self) -> None:
        """Blocks the calling thread until ``stop`` or the end of the input; then held packets get a verdict."""

    def stop(self) -> None:
        """Ends ``run`` soon; from any thread, and from a signal handler."""

    def close(self) -> None:
        """Releases everything; after ``run`` has returned, or without it. May be called repeatedly."""

    def counters(self) -> dict[str, int]:
        """Counters by name; still available after ``close``."""
        ...


class LiveDriver(QueueDriver, Protocol):
    """A driver that runs without end, and whose settings may be changed meanwhile, from any thread."""

    @property
    def clock(self) -> int:
        """The engine's time, in nanoseconds."""
        ...

    def turn(self) -> None:
        """Makes the loop begin a batch soon, with or without packets, so that new rules are taken up."""

    def treat(self, *, fail_open: bool, connection_mark: int) -> None:
        """Changes these settings of the constructor from now on. Raises QueueError."""
