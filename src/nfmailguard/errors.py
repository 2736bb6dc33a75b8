"""Errors for the operator: one line that says what is wrong, where, and what to do.

A peer's bytes never get into them; they become findings. Anything that is not an ``NfmailguardError`` is a bug. File
names, keys and other programs' messages do get into them: what is not printable in a line is escaped here, in one
place.
"""

from nfmailguard.plain import line

__all__ = [
    "BenchError",
    "CaptureError",
    "ConfigError",
    "ControlError",
    "LabError",
    "NfmailguardError",
    "QueueError",
    "RefusedError",
    "RulesetError",
]


class NfmailguardError(Exception):
    """Base of every error meant for the operator; ``str()`` of it is the line to print, or ``lines`` are."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(map(line, lines))
        super().__init__("\n".join(self.lines))


class ConfigError(NfmailguardError):
    """A configuration, profile, override or transcript that cannot be used (exit code 2)."""

    exit_code = 2


class QueueError(NfmailguardError):
    """The kernel refused a queue: taken, no permission, or no NFQUEUE."""


class RulesetError(NfmailguardError):
    """The kernel refused our nftables table."""


class CaptureError(NfmailguardError):
    """A capture file that cannot be read or written."""

    exit_code = 2


class LabError(NfmailguardError):
    """The lab cannot be built here."""


class BenchError(NfmailguardError):
    """A benchmark that cannot be run here, or a report that cannot be used."""


class ControlError(NfmailguardError):
    """No gateway answers at the control socket, or it cannot listen there."""

    exit_code = 2


class RefusedError(NfmailguardError):
    """The gateway's refusal of a request."""
