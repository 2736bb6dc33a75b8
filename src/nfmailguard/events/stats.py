"""The last ``stats`` event of a file: where a gateway stands, for whoever asks beside it.

Promises: however long the file is, only its end is read. Does not know what is counted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nfmailguard.errors import ConfigError
from nfmailguard.reading import open_regular

__all__ = ["last_stats"]

_BLOCK = 1 << 16
_MOST = 64 << 20  # octets read backwards before giving up
_LONGEST = 1 << 20  # octets of an event


def last_stats(path: Path) -> dict[str, int]:
    """Counters by name. ConfigError for a file that cannot be read, or has no such event in its last 64 MiB."""
    try:
        with open_regular(path) as file:
            at = end = file.seek(0, os.SEEK_END)
            text = b""
            while at > 0 and end - at < _MOST:
                step = min(_BLOCK, at)
                at -= step
                file.seek(at)
                # The first line may have begun before.
                *lines, last = (file.read(step) + text).split(b"\n")
                for line in reversed([*lines, last] if at == 0 else [*lines[1:], last]):
                    if b'"event_type":"stats"' in line:
                        return {str(name): int(count) for name, count in json.loads(line)["stats"].items()}
                text = lines[0] if lines else last
                if len(text) > _LONGEST:
                    text = b""  # no event of ours, whatever it began with
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: its last stats event cannot be read: {error}") from error
    raise ConfigError(f"{path}: no stats event; a gateway writes one every log.stats seconds and when it ends")
