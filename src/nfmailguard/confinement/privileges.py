"""The privileges of a process: capabilities, its user, and that no program it starts gets more.

Promises: what is given up is given up for good, for the calling thread (capabilities belong to a thread, and are
inherited by threads it starts: so it is done before any is started); what could not be given up is in ``held``.
capabilities(7), prctl(2), capset(2). Does not know what a gateway does with them.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nfmailguard.errors import ConfigError

__all__ = ["KEPT", "Account", "Privileges", "account", "drop", "held"]

#: Number of the capability CAP_NET_ADMIN, from linux/capability.h.
_CAP_NET_ADMIN = 12
#: The kernel checks CAP_NET_ADMIN for each message with verdicts or rules. CAP_NET_RAW is not kept: the raw sockets for
#: resets are already open.
KEPT = (_CAP_NET_ADMIN,)
_VERSION_3 = 0x20080522
_NAMES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
#: Options of prctl(2), from linux/prctl.h.
_SET_KEEPCAPS, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _AMBIENT, _AMBIENT_CLEAR_ALL = 8, 24, 38, 47, 4

_LIBC = ctypes.CDLL(None, use_errno=True)


class Account(NamedTuple):
    """A user: the numbers of the user and of its groups, of which the first is the primary group."""

    name: str
    user: int
    groups: tuple[int, ...]


class Privileges(NamedTuple):
    """Privileges of the calling thread: its user, sets of capabilities (``bounding``: what a program it starts could
    get).
    """

    user: str
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    bounding: tuple[str, ...]
    no_new_privileges: bool


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class _Set(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def account(name: str) -> Account:
    """The account for a user's name or number. Raises ConfigError if there is none."""
    try:
        found = pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise ConfigError(
            f'service.user: there is no user {name!r}; `useradd --system {name}`, or service.user = ""'
        ) from None
    groups = dict.fromkeys((found.pw_gid, *os.getgrouplist(found.pw_name, found.pw_gid)))
    return Account(found.pw_name, found.pw_uid, tuple(groups))


def drop(kept: Iterable[int], to: Account | None = None, nice: int = 0) -> None:
    """Keeps only the capabilities ``kept``, as far as they are held, and becomes ``to``; ``nice``: the nice value to
    which the process may return. Raises OSError; what cannot be removed from the bounding set stays there (``held``
    shows it).
    """
    wanted = sum(1 << number for number in kept)
    with suppress(OSError, ValueError):  # On failure the process could not lower its nice value again later.
        resource.setrlimit(resource.RLIMIT_NICE, (20 - nice, 20 - nice))
    _prctl(_SET_NO_NEW_PRIVS, 1)
    for number in range(_word("CapBnd").bit_length()):
        if not wanted >> number & 1:
            # Without CAP_SETPCAP this is not permitted; under systemd it is not needed, as systemd has already reduced
            # the bounding set.
            with suppress(PermissionError):
                _prctl(_CAPBSET_DROP, number)
    _prctl(_AMBIENT, _AMBIENT_CLEAR_ALL)
    if to is not None:
        _prctl(_SET_KEEPCAPS, 1)
        os.setgroups(to.groups)
        os.setresgid(to.groups[0], to.groups[0], to.groups[0])
        os.setresuid(to.user, to.user, to.user)
        _prctl(_SET_KEEPCAPS, 0)
    _capset(wanted & _word("CapPrm"))


def held() -> Privileges:
    """The current privileges."""
    user = os.geteuid()
    with suppress(KeyError):
        return Privileges(pwd.getpwuid(user).pw_name, *_sets())
    return Privileges(str(user), *_sets())


def _sets() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], bool]:
    effective, permitted, bounding = (_named(_word(name)) for name in ("CapEff", "CapPrm", "CapBnd"))
    return effective, permitted, bounding, bool(_word("NoNewPrivs"))


def _named(word: int) -> tuple[str, ...]:
    numbers = (number for number in range(word.bit_length()) if word >> number & 1)
    return tuple(f"CAP_{_NAMES[number].upper()}" if number < len(_NAMES) else f"CAP_{number}" for number in numbers)


def _word(name: str) -> int:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value, 16)
    return 0


def _capset(wanted: int) -> None:
    halves = [wanted & 0xFFFFFFFF, wanted >> 32]
    header, sets = _Header(_VERSION_3, 0), (_Set * 2)(*(_Set(half, half, 0) for half in halves))
    _checked(_LIBC.capset(ctypes.byref(header), sets), "capset")


def _prctl(option: int, argument: int) -> None:
    zeros = (ctypes.c_ulong(0),) * 3
    _checked(_LIBC.prctl(option, ctypes.c_ulong(argument), *zeros), f"prctl {option}")


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
