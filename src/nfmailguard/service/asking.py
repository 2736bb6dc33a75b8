"""The client's end of the control socket: a question to the running gateway, and its answer.

Promises: an error is one line that says who does not answer, and where; nothing is waited for longer than ``timeout``.
Does not know what the answers mean.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Self

from nfmailguard.errors import ControlError, RefusedError
from nfmailguard.service.control import VERSION

__all__ = ["Asking"]

_MOST = 64 << 20  # Largest answer of the gateway that is accepted, in bytes.


class Asking:
    """A connection to the gateway whose control socket is ``path``. Raises ControlError.

    ``timeout``: seconds that an answer may take, from its question to its last byte.
    """

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(timeout)
        try:
            self._link.connect(path)
        # ValueError: the path is not valid, for instance because it contains a NUL character.
        except (OSError, ValueError) as error:
            self._link.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ControlError(f"no gateway answers at {path}: {reason}") from error
        self._read = bytearray()

    def ask(self, command: str, **arguments: object) -> Any:
        """The gateway's answer; raises RefusedError with the gateway's message if it refuses."""
        self._say(command, arguments)
        return self._answer()

    def ask_for_files(
        self, command: str, most: int, size: int, **arguments: object
    ) -> tuple[dict[str, Any], list[int]]:
        """The answer, and file descriptors that come with it, to be closed by the caller; ``size``: most bytes of the
        answer.
        """
        self._say(command, arguments)
        try:
            octets, files, flags, _ = socket.recv_fds(self._link, size, most)
        except OSError as error:
            raise self._silent(error) from error
        self._read += octets
        try:
            if flags & socket.MSG_CTRUNC:
                raise ControlError(f"the gateway at {self._path}: not all of its descriptors have arrived")
            answer = self._answer()
        except BaseException:
            for file in files:
                os.close(file)
            raise
        return dict(answer or {}), list(files)

    def _say(self, command: str, arguments: dict[str, object]) -> None:
        """Sends a request. If the gateway has closed the connection, its reason may still be there to be read."""
        try:
            self._link.settimeout(self._timeout)
            self._link.sendall(json.dumps({"v": VERSION, "command": command, **arguments}).encode() + b"\n")
        except OSError as error:
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise self._silent(error) from error

    def _answer(self) -> Any:
        reply = self._line()
        if not reply.get("ok"):
            raise RefusedError(*str(reply.get("error", "no reason given")).split("\n"))
        return reply.get("answer")

    def follow(self, command: str, **arguments: object) -> Iterator[bytes]:
        """Lines of events as they come, until the gateway ends."""
        self.ask(command, **arguments)
        self._link.settimeout(None)
        while line := self._next():
            yield line

    def _next(self, until: float | None = None) -> bytes:
        """A line, or what came before the connection's end; ``until``: the time by which it has to arrive."""
        seen = 0
        while (end := self._read.find(b"\n", seen) + 1) == 0 and len(self._read) < _MOST:
            seen = len(self._read)
            if until is not None:
                self._link.settimeout(max(0.001, until - time.monotonic()))
            octets = self._link.recv(1 << 16)
            if not octets:
                break
            self._read += octets
        line = bytes(self._read[: end or _MOST])
        del self._read[: len(line)]
        return line

    def _line(self) -> dict[str, Any]:
        try:
            line = self._next(time.monotonic() + self._timeout)
        except OSError as error:
            raise self._silent(error) from error
        try:
            reply = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise ControlError(f"the gateway at {self._path} has ended, or is none")
        return reply

    def _silent(self, error: OSError) -> ControlError:
        return ControlError(f"the gateway at {self._path} does not answer: {error.strerror or error}")

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
