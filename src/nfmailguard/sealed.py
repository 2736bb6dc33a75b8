"""Memory files that cannot be changed any more, for another process to read (memfd_create(2), F_ADD_SEALS).

Promises: a sealed file is complete. Does not know what is in a file, nor who gets it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable

__all__ = ["is_sealed", "sealed_file"]

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_file(name: str, parts: Iterable[bytes | bytearray]) -> int:
    """A file with the ``parts``, one after the other; the caller closes the descriptor. Raises OSError."""
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def is_sealed(file: int) -> bool:
    """Whether the file cannot be changed any more. Raises OSError if it is no memory file."""
    return fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
