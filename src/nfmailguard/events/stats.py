"""The last ``stats`` event of a log file: a gateway's counters without asking the gateway.

Promises: however long the file is, only its end is read. Does not know what is counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nfmailguard.errors import ConfigError
from nfmailguard.reading import open_regular

__all__ = ["last_profile", "last_stats"]

_BLOCK = 1 << 16
_MOST = 64 << 20  # Most bytes read backwards from the file's end before giving up.
_LONGEST = 1 << 20  # Longest event line in bytes.


def last_stats(path: Path) -> dict[str, int]:
    """Counters by name. ConfigError for a file that cannot be read, or has no such event in its last 64 MiB."""
    try:
        event = next(_backwards(path, b'"event_type":"stats"'), None)
        if event is not None:
            return {str(name): int(count) for name, count in event["stats"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: its last stats event cannot be read: {error}") from error
    raise ConfigError(f"{path}: no stats event; a gateway writes one every log.stats seconds and when it ends")


def last_profile(path: Path) -> str | None:
    """The profile named by the last event that names one; None: no event names one."""
    try:
        event = next(_backwards(path, b'"profile":"'), None)
        profile = None if event is None else event["mailguard"]["profile"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return profile if isinstance(profile, str) else None


def _backwards(path: Path, sign: bytes) -> Iterator[Any]:
    """Events whose line contains ``sign``, the last one first."""
    try:
        with open_regular(path) as file:
            at = end = file.seek(0, os.SEEK_END)
            text = b""
            while at > 0 and end - at < _MOST:
                step = min(_BLOCK, at)
                at -= step
                file.seek(at)
                # The first line of the block may have begun in the block before it.
                *lines, last = (file.read(step) + text).split(b"\n")
                for line in reversed([*lines, last] if at == 0 else [*lines[1:], last]):
                    if sign in line:
                        yield json.loads(line)
                text = lines[0] if lines else last
                if len(text) > _LONGEST:
                    text = b""  # A line this long is no event of the gateway, whatever it began with.
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
