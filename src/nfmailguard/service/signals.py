"""What each signal does to a running gateway.

Promises: no signal that can be caught ends the process with the rules left behind, except those of a crash; whatever
signals the parent process ignored or blocked, the gateway can be ended. Handlers only note a request; the main thread
carries it out. Does not know what a request means.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["CRASHES", "ENDING", "Signals", "inherited", "masked"]

#: Signals that end a gateway, with its exit code. SIGTERM and SIGINT from an operator are a success; the other codes,
#: as in a shell 128 plus the signal number, say that the end was not intended.
ENDING: dict[int, int] = {
    signal.SIGTERM: 0,
    signal.SIGINT: 0,
    signal.SIGQUIT: 128 + signal.SIGQUIT,
    signal.SIGABRT: 128 + signal.SIGABRT,
    signal.SIGXCPU: 128 + signal.SIGXCPU,
}
#: Signals of a fault in machine code, which would occur again at once if caught. As with SIGKILL, the kernel's rules
#: stay in place.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS})
#: Signals that are not handled: they cannot be caught, are harmless, or report a child's end.
_LEFT = CRASHES | {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH}
#: A shell without job control ignores these signals for background processes, because Ctrl-C and Ctrl-\\ on its
#: terminal are not meant for them. A signal ignored at the start therefore stays ignored (POSIX 2.12).
_FOREGROUND = (signal.SIGINT, signal.SIGQUIT)


class Signals:
    """What has been requested by signals since ``caught`` began."""

    def __init__(self) -> None:
        self.stopping = False
        self._exit_code = 0
        self._reload = False

    @property
    def exit_code(self) -> int:
        """The exit code for the signal that ended it; 0: no signal did."""
        return self._exit_code

    def take_reload(self) -> bool:
        """Whether the configuration is to be read again; the request is cleared."""
        asked, self._reload = self._reload, False
        return asked

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, every signal is handled. Signals that would stop the process (a terminal's Ctrl-Z) are ignored: mail
        would wait.
        """
        handlers: dict[int, Any] = dict.fromkeys(signal.valid_signals() - _LEFT, signal.SIG_IGN)
        heard = {signal.SIGHUP, *ENDING} - {number for number in _FOREGROUND if _is_ignored(number)}
        handlers |= dict.fromkeys(heard, self._note)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, signal.SIG_DFL if action is None else action)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        elif not self.stopping:
            self.stopping = True
            self._exit_code = ENDING[number]


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def inherited() -> None:
    """Restores signals that a parent ignored or blocked, once at the start, so that SIGTERM ends this process and its
    children.

    An ignored SIGCHLD would make every child's end a success. SIGHUP stays as it is, for nohup(1).
    """
    for number in (signal.SIGTERM, signal.SIGCHLD):
        if _is_ignored(number):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def masked() -> None:
    """Blocks signals in a thread that works on packets: they are for the main thread, whose waiting they interrupt."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - CRASHES)
