"""Where packets come from and go to: one protocol, three drivers.

A driver feeds one core and carries out its operations. It knows packets and verdicts,
and nothing of SMTP.
"""

from typing import Protocol

__all__ = ["LiveDriver", "QueueDriver"]


class QueueDriver(Protocol):
    """One source of packets, with its engine; used once: open, run, close."""

    def open(self) -> None:
        """Takes the queue or file; packets are queued from here on. Raises QueueError or CaptureError."""

    def run(self) -> None:
        """Blocks the calling thread until ``stop`` or the end of the input; held packets are answered then."""

    def stop(self) -> None:
        """Ends ``run`` soon; from any thread, and from a signal handler."""

    def close(self) -> None:
        """Gives everything back; after ``run`` has returned, or without it. Idempotent."""

    def counters(self) -> dict[str, int]:
        """What happened so far, by name; still there after ``close``."""
        ...


class LiveDriver(QueueDriver, Protocol):
    """One that goes on and on, and may be told something meanwhile; from any thread."""

    @property
    def clock(self) -> int:
        """The engine's time, in nanoseconds."""
        ...

    def turn(self) -> None:
        """Has a batch begin soon, packets or none: new rules are taken up."""

    def treat(self, *, fail_open: bool, connection_mark: int) -> None:
        """As the constructor was told, otherwise from now on. Raises QueueError."""
