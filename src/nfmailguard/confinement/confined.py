"""A gateway's confinement: which privileges it keeps once its queues are bound, and which files it can reach.

Promises: entered once, before any thread is started, so that it holds for every thread; what cannot be given up is
reported in a line, or with ``require`` ends the program. Does not know packets, nor clients.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nfmailguard
from nfmailguard.confinement import landlock, privileges, systemcalls
from nfmailguard.confinement.landlock import Reachable
from nfmailguard.errors import ConfigError
from nfmailguard.events.targets import file_of
from nfmailguard.settings import Config, Confine

__all__ = ["Confinement", "reachable"]

#: Directories shared with other programs: if a file of the gateway is in one of them, only the file itself is made
#: accessible.
_WIDE = frozenset(map(Path, ("/", "/etc", "/dev", "/root", "/home", "/var", "/var/log", "/run", "/proc", "/sys")))
#: Files and directories that Python, its libraries and the C library read; of /etc only the files listed.
_SYSTEM = (
    *("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64", "/proc"),
    *("/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group"),
    *("/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/resolv.conf", "/etc/services"),
    *("/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"),
)
_DNS, _SYSLOG = 53, 514


def _place(path: Path) -> Path:
    """The directory of a file that may be created anew."""
    path = Path(os.path.normpath(path.absolute()))
    return path if path.parent in _WIDE else path.parent


def _places(paths: Iterable[Path]) -> Iterator[Path]:
    """The places of the given files and of the files their symbolic links point to."""
    for path in paths:
        yield _place(path)
        yield _place(path.resolve())


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    """The log files, by the settings that name them."""
    for key, target in (("log.eve", config.log.eve), ("syslog.target", config.syslog.target)):
        found = file_of(target)
        if found is not None:
            yield key, found


def _profiles(config: Config) -> Iterator[Path]:
    names = (config.gateway.profile, *(rule.profile for rule in config.rule if rule.profile))
    return (Path(name) for name in names if "/" in name)


def _ports(config: Config) -> Iterator[int]:
    url = urlsplit(config.syslog.target or "")
    if url.scheme not in ("udp", "tcp"):
        return
    if url.scheme == "tcp":
        yield url.port or _SYSLOG
    with suppress(ValueError):
        ip_address(url.hostname or "")
        return
    yield _DNS  # DNS uses TCP for long answers.


def reachable(config: Config, source: Path | None, *, abstract: bool = False) -> Reachable:
    """The files and ports that a gateway of ``config``, which was read from ``source``, opens after its start."""
    ours = (
        Path(nfmailguard.__file__).parent,
        *(Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path),
    )
    read = [path for path in (*ours, *map(Path, _SYSTEM)) if path.is_absolute() and path not in _WIDE - {Path("/proc")}]
    read += _places([*((source,) if source else ()), *_profiles(config)])
    control = (_place(Path(config.service.control)),) if config.service.control else ()
    written = tuple(_places(path for _, path in _files(config)))
    return Reachable(tuple(read), written, control, tuple(_ports(config)), abstract)


class Confinement:
    """The confinement of a gateway of ``config``, which was read from ``source``. Raises ConfigError for a user that
    does not exist, and if ``service.confine`` requires what this machine does not have.
    """

    def __init__(self, config: Config, source: Path | None) -> None:
        self._config = config
        self._source = source
        self._entered = False
        self._reach = Reachable()
        self._landlock: int | None = None
        self._calls: int | None = None
        self._library: Any = None
        #: Restrictions that could not be applied, one line each.
        self.missing: list[str] = []
        #: What the user that the gateway becomes will not be able to do, one line each.
        self.notes: list[str] = []
        self.account = privileges.account(config.service.user) if config.service.user else None
        if config.service.confine is Confine.NO:
            return
        try:
            # Loaded before confinement: libseccomp's bindings search for the C library in ways that are no longer
            # allowed afterwards.
            self._library = systemcalls.library()
        except ConfigError as error:
            self._miss(f"confinement: {error}; until then system calls are not restricted")
        if not landlock.abi():
            self._miss(
                "confinement: no Landlock in this kernel, or it is off (lsm=landlock,...); files are not restricted"
            )

    def _miss(self, line: str) -> None:
        if self._config.service.confine is Confine.REQUIRE:
            raise ConfigError(f'{line}; service.confine = "try" does without')
        self.missing.append(line)

    def enter(self, *, nice: int = 0, abstract: bool = False) -> None:
        """Gives up what is no longer needed. Raises ConfigError. ``nice``: the nice value to which the process may
        return; ``abstract``: systemd listens at an abstract Unix socket.
        """
        if threading.active_count() > 1:
            raise RuntimeError("confinement is entered before threads are started")
        if self._config.service.confine is Confine.NO:
            if self.account:
                self._drop(nice)
            return
        self._entered = True
        self._reach = reachable(self._config, self._source, abstract=abstract)
        self._drop(nice)
        try:
            if landlock.abi():
                self._landlock = landlock.restrict(self._reach)
        except OSError as error:
            self._miss(f"confinement: Landlock: {error.strerror}; files are not restricted")
        try:
            if self._library:
                systemcalls.allow_only(self._library, systemcalls.CALLS)
                self._calls = len(systemcalls.CALLS)
        except OSError as error:
            self._miss(f"confinement: seccomp: {error.strerror}; system calls are not restricted")

    def _drop(self, nice: int) -> None:
        try:
            privileges.drop(privileges.KEPT, to=self.account, nice=nice)
        except OSError as error:
            if self.account:
                raise ConfigError(
                    f"service.user: {self.account.name}: {error.strerror}; start as root, or with CAP_SETUID and"
                    " CAP_SETGID"
                ) from error
            self._miss(f"confinement: {error.filename or 'capabilities'}: {error.strerror}; privileges are kept")
        if self.account:
            self._look_at_logs(self.account.name)

    def _look_at_logs(self, user: str) -> None:
        """Checks that the user may write the log files, now and after a rotation has moved them. Raises ConfigError."""
        for key, path in _files(self._config):
            makes = os.access(path.absolute().parent, os.W_OK | os.X_OK)
            if not (os.access(path, os.W_OK) if path.exists() else makes):
                where = path if path.exists() else path.absolute().parent
                raise ConfigError(f"{key}: {path}: user {user} (service.user) cannot write it; `chown {user} {where}`")
            if not makes and (path.is_file() or not path.exists()):
                self.notes.append(
                    f"{key}: {path}: user {user} cannot make it anew when a rotation has moved it away;"
                    f" `chown {user} {path.absolute().parent}`"
                )

    def outside(self, config: Config) -> list[str]:
        """What another configuration needs that the confined process cannot reach, one line each."""
        if self._landlock is None:
            return []
        had = self._reach
        found = [
            f"{key}: {path}: outside the directories this gateway is confined to; needs a restart"
            for key, path in _files(config)
            if not _reached(_place(path), had.written)
        ]
        found += [
            f"syslog.target: port {port} over TCP: this gateway is confined to those it started with; needs a restart"
            for port in _ports(config)
            if port not in (*had.ports, _DNS)
        ]
        return found

    def standing(self) -> dict[str, Any]:
        """What is left of its privileges, as values."""
        held = privileges.held()
        return {
            "confined": self._entered and not self.missing,
            "user": held.user,
            "capabilities": list(held.permitted),
            "bounding": list(held.bounding),
            "no_new_privileges": held.no_new_privileges,
            "system_calls": self._calls,
            "landlock": self._landlock,
            "missing": self.missing,
        }


def _reached(path: Path, places: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(place) for place in places)
