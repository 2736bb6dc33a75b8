"""Restricts system calls: a seccomp filter, by libseccomp (seccomp(2), its Python bindings' interface).

Promises: a call that is not in ``CALLS`` fails with EPERM, in all threads of the process and for good. For each entry
the table says what a gateway needs it for; tests/live/test_confined.py removes each one and checks that this fails.
Does not know what else is given up.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from nfmailguard.errors import ConfigError

__all__ = ["CALLS", "ELSEWHERE", "TOLERATED", "Call", "allow_only", "library"]

#: Netlink protocols and an ioctl, from linux/netlink.h and asm-generic/ioctls.h.
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_FIONBIO = 0x5421
_TYPE = 0xF  # Mask for a socket's type, without the flags SOCK_CLOEXEC and SOCK_NONBLOCK.
_THREAD = 0x00010000  # The flag CLONE_THREAD of clone(2).
_WORD = 0xFFFFFFFF


class Call(NamedTuple):
    """A permitted system call. ``only``: permitted only with one of these sets of arguments, each (place, mask, value);
    none: any.
    """

    what_for: str
    only: tuple[tuple[tuple[int, int, int], ...], ...] = ()


def _sockets() -> Iterator[tuple[tuple[int, int, int], ...]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            yield (0, _WORD, family), (1, _TYPE, kind)
    yield (0, _WORD, socket.AF_UNIX), (1, _TYPE, socket.SOCK_DGRAM)
    for protocol in (_NETLINK_ROUTE, _NETLINK_NETFILTER):
        yield (0, _WORD, socket.AF_NETLINK), (2, _WORD, protocol)


_THREADS = (((0, _THREAD, _THREAD),),)
_NOT_WRITTEN_AND_RUN = (((2, mmap.PROT_EXEC, 0),), ((2, mmap.PROT_WRITE, 0),))
_NOT_RUN = (((2, mmap.PROT_EXEC, 0),),)
_OF_DESCRIPTORS = tuple(((1, _WORD, command),) for command in (fcntl.F_DUPFD_CLOEXEC, fcntl.F_ADD_SEALS))

#: The system calls that a running gateway may make, each with what it is needed for.
CALLS: Mapping[str, Call] = {
    # Section: system calls that receive packets and send verdicts.
    "recvmmsg": Call("packets of a queue"),
    "sendto": Call("verdicts, netlink"),
    "recvfrom": Call("netlink, requests at the control socket"),
    "recvmsg": Call("the names of interfaces"),
    "sendmsg": Call("verdicts of the netfilterqueue driver, entries of the journal"),
    "ppoll": Call("a queue's loop"),
    "pselect6": Call("the netfilterqueue driver's loop"),
    "clock_nanosleep": Call("the events' loop"),
    "futex": Call("threads that wait for each other"),
    # Section: system calls on files.
    "openat": Call("log files, configuration, profiles"),
    "read": Call("configuration, profiles"),
    "write": Call("events, lines for the operator"),
    "pread64": Call("whether a log's last line is whole, the kernel's counters of its queues"),
    "close": Call("log files that are opened anew"),
    "newfstatat": Call("whether a log was moved away"),
    "getdents64": Call("the list of profiles"),
    "unlink": Call("the control socket, at the end"),
    "memfd_create": Call("long entries of the journal"),
    "fcntl": Call("netlink sockets, long entries of the journal", _OF_DESCRIPTORS),
    # Section: system calls on sockets.
    "socket": Call("log servers, the journal, systemd, netlink", tuple(_sockets())),
    "socketpair": Call("pyroute2's event loops"),
    "bind": Call("netlink"),
    "connect": Call("log servers, systemd"),
    "accept4": Call("whoever asks"),
    "getsockname": Call("netlink"),
    "getsockopt": Call("who asks"),
    "setsockopt": Call("netlink"),
    "ioctl": Call("sockets that do not wait", (((1, _WORD, _FIONBIO),),)),
    "poll": Call("log files, log servers"),
    "sendmmsg": Call("the address of a log server's name"),
    "epoll_create1": Call("pyroute2's event loops"),
    "epoll_ctl": Call("the control socket"),
    "epoll_wait": Call("the control socket"),
    # Section: system calls for threads, signals and memory.
    "clone": Call("threads: the queues', the control socket's; no process", _THREADS),
    "exit": Call("their ends"),
    "exit_group": Call("the end, also of threads that still wait for an answer"),
    "rt_sigaction": Call("signals as they were, at the end"),
    "rt_sigprocmask": Call("threads that get no signal"),
    "rt_sigreturn": Call("SIGHUP, SIGTERM"),
    "restart_syscall": Call("waiting, after SIGSTOP and SIGCONT"),
    "mmap": Call("memory, libraries", _NOT_WRITTEN_AND_RUN),
    "mprotect": Call("stacks of threads", _NOT_RUN),
    "getpid": Call("status, netlink"),
    "gettid": Call("the events' priority"),
    "geteuid": Call("who may ask"),
    "getpriority": Call("the events' priority"),
    "setpriority": Call("the events' priority"),
    "sched_setaffinity": Call("queue.cpus"),
    "sched_getaffinity": Call("a configuration's check of queue.cpus"),
    "getcwd": Call("relative paths of a configuration"),
    "uname": Call("this machine's name in log lines"),
}
#: System calls that the C library and Python can do without, but then run slower or use more memory.
TOLERATED: tuple[str, ...] = ("brk", "munmap", "mremap", "madvise", "lseek", "rseq", "set_robust_list", "getrandom")
#: System calls used in place of some of CALLS on machines other than x86-64, or by other library versions.
ELSEWHERE: tuple[str, ...] = ("epoll_pwait", "epoll_pwait2", "fstat", "lstat", "stat", "statx", "unlinkat")


def library() -> Any:
    """The bindings of libseccomp: its own, or pyseccomp's. Raises ConfigError."""
    for name in ("seccomp", "pyseccomp"):
        try:
            return import_module(name)
        except (ImportError, RuntimeError):  # RuntimeError: pyseccomp is installed, but not libseccomp.
            continue
    raise ConfigError(
        "no library for system call filters; `apt install python3-seccomp`, or `pip install pyseccomp` and libseccomp2"
    )


def allow_only(made: Any, calls: Mapping[str, Call], others: Sequence[str] = (*TOLERATED, *ELSEWHERE)) -> None:
    """Refuses all other system calls from now on, in every thread; ``made``: the ``library``. Raises OSError."""
    refusing = made.SyscallFilter(made.ERRNO(errno.EPERM))
    refusing.set_attr(made.Attr.CTL_TSYNC, 1)
    # The C library starts threads with clone3 and falls back to clone on ENOSYS. A filter cannot examine clone3's
    # flags, which are in memory, so clone3 is refused.
    refusing.add_rule(made.ERRNO(errno.ENOSYS), "clone3")
    try:
        for name, call in calls.items():
            for arguments in call.only or ((),):
                refusing.add_rule(
                    made.ALLOW,
                    name,
                    *(made.Arg(place, made.MASKED_EQ, mask, value) for place, mask, value in arguments),
                )
        for name in others:
            # This machine or this version of the library may not know the system call.
            with suppress(OSError, RuntimeError, ValueError):
                refusing.add_rule(made.ALLOW, name)
        refusing.load()
    except (RuntimeError, ValueError) as error:
        raise OSError(errno.EINVAL, str(error)) from error
