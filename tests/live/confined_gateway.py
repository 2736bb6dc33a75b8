"""A gateway whose confinement lacks an entry, and what such a gateway does: for test_confined.py.

Run as a program it is ``nfmailguard run``, but for what its first argument says: ``without:CALL``, ``without:CALL:N``
(of its alternatives), ``without:CAP_NET_ADMIN``, ``probe`` (what is tried once it runs is a line of JSON) or ``whole``;
and the journal's socket is the second.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from nfmailguard.cli import main
from nfmailguard.confinement import privileges, systemcalls
from nfmailguard.events import journal
from nfmailguard.service.notify import Systemd

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, CLONE_NEWUSER, MS_BIND = 16, 0x10000000, 4096
#: x86-64: of these libc has no function, or one that does not ask the kernel at once.
NUMBERS = {
    "bpf": 321,
    "keyctl": 250,
    "io_uring_setup": 425,
    "perf_event_open": 298,
    "init_module": 175,
    "kexec_load": 246,
}


def called(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def listening() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()


def denied() -> dict[str, Callable[[], object]]:
    """What a gateway must not be able to do."""
    found: dict[str, Callable[[], object]] = {
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "fork": os.fork,
        "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "ptrace": lambda: called(LIBC.ptrace(PTRACE_ATTACH, os.getppid(), 0, 0)),
        "kill": lambda: os.kill(os.getppid(), 0),
        "unshare": lambda: called(LIBC.unshare(CLONE_NEWUSER)),
        "mount": lambda: called(LIBC.mount(b"/tmp", b"/mnt", b"none", MS_BIND, None)),
        "setuid": lambda: os.setuid(0),
        "/etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
        "/root": lambda: list(Path("/root").iterdir()),
        "/proc/1/mem": lambda: Path("/proc/1/mem").read_bytes(),
        "a module of ours": lambda: Path(systemcalls.__file__).touch(),
        "a new file": lambda: Path("/tmp/nfmailguard-confined").write_bytes(b""),
        "AF_PACKET": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "AF_VSOCK": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        "AF_ALG": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
        "another netlink family": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
        "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255),
        "a server": listening,
        "memory that is written and run": lambda: mmap.mmap(-1, 4096, prot=7),
    }
    found |= {name: lambda number=number: called(LIBC.syscall(number, 0, 0, 0)) for name, number in NUMBERS.items()}
    return found


def tried(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return error.strerror or str(error)
    return "done"


def probe(ready: Callable[[Systemd, str], None]) -> Callable[[Systemd, str], None]:
    def before(systemd: Systemd, status: str) -> None:
        sys.stdout.write(json.dumps({name: tried(call) for name, call in denied().items()}) + "\n")
        sys.stdout.flush()
        ready(systemd, status)

    return before


def prepare(what: str) -> None:
    word, _, entry = what.partition(":")
    calls = systemcalls.CALLS
    assert isinstance(calls, dict)
    if word == "probe":
        Systemd.ready = probe(Systemd.ready)  # type: ignore[method-assign]
    elif entry == "CAP_NET_ADMIN":
        privileges.KEPT = ()
    elif word == "without":
        name, _, place = entry.partition(":")
        call = calls.pop(name)
        if place:
            only = tuple(one for number, one in enumerate(call.only) if number != int(place))
            calls[name] = call._replace(only=only)


if __name__ == "__main__":
    prepare(sys.argv.pop(1))
    journal.SOCKET = Path(sys.argv.pop(1))
    journal._SEND_BUFFER = 1  # the least there is: what is long is soon too long for a datagram
    main()
