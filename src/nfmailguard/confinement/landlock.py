"""Landlock (landlock(7)): limits which files a process may open and which TCP ports it may use.

Promises: the calling thread, and all threads it starts later, can reach nothing else from then on; what the kernel is
too old to restrict stays unrestricted. Uses Landlock's three system calls directly, because no maintained package
exists. Does not know whose files.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Reachable", "abi", "restrict"]

#: Constants from linux/landlock.h; the system call numbers are the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH, _NET_PORT = 1, 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 14)
)
#: _FILE_RIGHTS: number of file rights that each Landlock version knows. _OF_FILES: the rights that apply to a file that
#: is no directory.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
_SINCE_PORTS, _SINCE_SCOPES = 4, 6

_LIBC = ctypes.CDLL(None, use_errno=True)


class Reachable(NamedTuple):
    """What stays accessible. ``written``: files, and directories in which they are created; ``removed``: directories
    whose files may be removed; ``ports``: of servers; ``abstract``: also abstract Unix sockets of processes that are
    not confined.
    """

    read: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()
    ports: tuple[int, ...] = ()
    abstract: bool = False


def abi() -> int:
    """The kernel's Landlock version; 0: there is none, or it is off."""
    version: int = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, version)


def restrict(reachable: Reachable) -> int:
    """From now on this thread can reach only that; the Landlock version. Raises OSError. Needs no_new_privs."""
    version = abi()
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    words = [rights]
    if version >= _SINCE_PORTS:
        words.append(_BIND_TCP | _CONNECT_TCP)
    if version >= _SINCE_SCOPES:
        words.append(_SCOPE_SIGNALS | (0 if reachable.abstract else _SCOPE_ABSTRACT_SOCKETS))
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = _called(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        writing = _READ_FILE | _READ_DIR | _WRITE_FILE | _MAKE_REG | _TRUNCATE
        _allow(ruleset, reachable.read, (_READ_FILE | _READ_DIR) & rights)
        _allow(ruleset, reachable.written, writing & rights)
        _allow(ruleset, reachable.removed, _REMOVE_FILE)
        for port in reachable.ports if version >= _SINCE_PORTS else ():
            _called(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        _called(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in dict.fromkeys(paths):
        # A path that does not exist or cannot be reached needs no rule.
        with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = rights if path.is_dir() else rights & _OF_FILES
                if allowed:
                    _called(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
            finally:
                os.close(place)


def _called(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "Landlock")
    return result
