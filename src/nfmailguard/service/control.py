"""The control socket: requests as JSON lines, answered by a thread that processes no packets.

    {"v": 1, "command": "status"}\\n          {"v": 1, "ok": true, "answer": {...}}\\n
    anything else                            {"v": 1, "ok": false, "error": "..."}\\n

Promises: no thread that works on packets waits for a client; a client that does not read, does not
finish its line or sends nothing is disconnected after a moment, and costs a bounded buffer until then; an
invalid request gets one line that says why, and the connection ends. Only root, the gateway's own user and
the configured group may connect. Does not know what is asked: ``answer`` does.
"""

from __future__ import annotations

import errno
import grp
import json
import os
import selectors
import socket
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nfmailguard.errors import ControlError, NfmailguardError
from nfmailguard.service.signals import masked

__all__ = ["VERSION", "Asker", "ControlSocket", "Request"]

VERSION = 1
_LONGEST_REQUEST = 4096
_MOST_CLIENTS = 32
#: _PATIENCE: seconds a client may take to finish a request line or to read an answer. _IDLE: seconds until its next
#: request.
_PATIENCE, _IDLE = 5.0, 300.0
#: Most bytes of events that may wait for one following client, and, before they are handed out, for all of them.
_MOST_WAITING = 1 << 20
_SO_PEERGROUPS = 59
_ENCODE = msgspec.json.Encoder().encode


class Asker(NamedTuple):
    """Who asks: the same in all requests of one connection."""

    connection: object
    user: int
    #: Returns whether the asking client is still connected.
    waits: Callable[[], bool]


class Request:
    """One request; ``reply`` or ``fail`` answers it, once, now or later, from any thread."""

    def __init__(
        self,
        command: str,
        arguments: dict[str, Any],
        send: Callable[[bytes, bool, Sequence[int]], None],
        asker: Asker,
    ) -> None:
        self.command = command
        self.arguments = arguments
        self.asker = asker
        self._send = send

    def reply(self, answer: object) -> None:
        self._send(_ENCODE({"v": VERSION, "ok": True, "answer": answer}) + b"\n", False, ())

    def reply_with(self, answer: object, files: Sequence[int]) -> None:
        """Answers with file descriptors, which are duplicated and stay open until the client sends something, or
        disconnects.
        """
        self._send(_ENCODE({"v": VERSION, "ok": True, "answer": answer}) + b"\n", False, files)

    def follow(self) -> None:
        """From now on the client receives every event."""
        self._send(_ENCODE({"v": VERSION, "ok": True, "answer": {"following": True}}) + b"\n", True, ())

    def fail(self, *lines: str) -> None:
        self._send(_refusal(*lines), False, ())


def _refusal(*lines: str) -> bytes:
    return _ENCODE({"v": VERSION, "ok": False, "error": "\n".join(lines)}) + b"\n"


class _Client:
    def __init__(self, link: socket.socket, user: int) -> None:
        self.link = link
        self.user = user
        self.read = b""
        self.waiting = bytearray()
        self.since = time.monotonic()  # Time of the client's last action, or of the last data sent to it.
        self.asked = False  # True while the answer to the client's request is being made.
        self.follows = False
        self.lost = 0  # Number of events that the following client did not read in time.
        self.ending = False  # The connection is closed once the waiting data has been sent.

    @property
    def deadline(self) -> float:
        """Time at which the client is disconnected."""
        if self.waiting or self.read:
            return self.since + _PATIENCE
        return float("inf") if self.asked or self.follows else self.since + _IDLE


class ControlSocket:
    """Listens at ``path`` for members of ``group`` (empty: for root and this user alone); ``answer`` gets each request.

    ``owner``: the user that owns the socket file, if not this one. ``listener``: the listening socket of the previous
    gateway, which is closed with this object. Raises ControlError where it cannot listen. ``answer`` may raise
    NfmailguardError; it is called from the socket's own thread, and must not take long.
    """

    def __init__(
        self, path: str, group: str, answer: Callable[[Request], None], owner: int = -1, listener: int = -1
    ) -> None:
        self._path = Path(path)
        self._answer = answer
        self._group = _group(group)
        self._owner = owner
        self._clients: dict[int, _Client] = {}
        self._lock = threading.Lock()
        # Answers made by other threads, to be sent by the socket's own thread.
        self._done: deque[tuple[_Client, bytes, bool, Sequence[int]]] = deque()
        self._published: deque[bytes] = deque()
        self._published_octets = 0
        self._published_lost = 0
        self._followers = 0
        self._stopping = False
        self._left = False  # True once another gateway process has taken over the listening socket.
        self._listener = socket.socket(fileno=listener) if listener >= 0 else self._listen()
        self._awake, self._wake = socket.socketpair()
        self._inode = _inode(self._path)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        for end in (self._awake, self._wake, self._listener):
            end.setblocking(False)
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Stops listening and closes all connections. May be called repeatedly."""
        if not self._stopping:
            self._stopping = True
            self._rouse()
            if self._thread.ident is not None:
                self._thread.join(_PATIENCE)
            with suppress(OSError):
                # A socket file with another inode belongs to another gateway and is not removed.
                if not self._left and _inode(self._path) == self._inode:
                    self._path.unlink()
            for end in (self._listener, self._awake, self._wake, *(client.link for client in self._clients.values())):
                end.close()

    def fileno(self) -> int:
        """The listening socket's descriptor."""
        return self._listener.fileno()

    def leave(self) -> None:
        """From now on another process accepts connections here."""
        self._left = True
        self._rouse()

    def publish(self, lines: Iterable[bytes]) -> None:
        """Queues events for the clients that follow; events they do not read in time are counted, and the client is
        informed.
        """
        if not self._followers:
            return
        with self._lock:
            for line in lines:
                if self._published_octets + len(line) > _MOST_WAITING:
                    self._published_lost += 1
                else:
                    self._published.append(line)
                    self._published_octets += len(line)
        self._rouse()

    def _rouse(self) -> None:
        with suppress(OSError):
            self._wake.send(b"x")

    def _listen(self) -> socket.socket:
        path, fresh = self._path, self._path.with_name(f".{self._path.name}.{os.getpid()}")
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileExistsError):
                path.parent.mkdir(0o755)
                os.chown(path.parent, self._owner, -1)
            _refuse_taken(path)
            with suppress(FileNotFoundError):
                fresh.unlink()
            # Mode 0600 for the new socket file, so that nobody else can connect before its group is set.
            os.fchmod(link.fileno(), 0o600)
            link.bind(str(fresh))
            if self._group is not None or self._owner >= 0:
                os.chown(fresh, self._owner, -1 if self._group is None else self._group)
            if self._group is not None:
                fresh.chmod(0o660)
            link.listen(_MOST_CLIENTS)
            fresh.rename(path)
        except (OSError, ValueError) as error:
            link.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ControlError(f"service.control: {path}: {reason}") from error
        except BaseException:
            link.close()
            raise
        return link

    def _run(self) -> None:
        masked()
        while not self._stopping:
            deadline = min((client.deadline for client in self._clients.values()), default=float("inf"))
            wait = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            for key, events in self._selector.select(wait):
                if key.fileobj is self._awake:
                    with suppress(OSError):
                        while self._awake.recv(4096):
                            pass
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.data, events)
            self._hand_out()
            if self._left and self._listener in self._selector.get_map():
                self._selector.unregister(self._listener)
            now = time.monotonic()
            for client in [one for one in self._clients.values() if one.deadline <= now]:
                self._give_up(client)

    def _accept(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                # The listener stays readable while file descriptors are short: wait a little instead of looping.
                time.sleep(0.05)
            return
        link.setblocking(False)
        refusal = self._refused(link)
        if refusal:
            with suppress(OSError):
                link.send(_refusal(refusal))
            link.close()
            return
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(min(self._clients.values(), key=lambda client: (client.asked or client.follows, client.since)))
        client = self._clients[link.fileno()] = _Client(link, _user(link))
        self._selector.register(link, selectors.EVENT_READ, client)

    def _refused(self, link: socket.socket) -> str | None:
        _, user, group = _peer(link)
        if user in (0, os.geteuid()):
            return None
        if self._group is not None and self._group in (group, *_groups(link)):
            return None
        return f"permission: user {user} may not ask; root, user {os.geteuid()} and service.group may"

    def _serve(self, client: _Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._write(client)
            if client.lost and not client.waiting:
                self._events(client, [], 0)
            if client.link.fileno() in self._clients:
                self._ask(client)
        if events & selectors.EVENT_READ and client.link.fileno() in self._clients:
            self._read(client)

    def _read(self, client: _Client) -> None:
        try:
            octets = client.link.recv(_LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._drop(client)
        elif not client.ending:
            if not client.read:
                client.since = time.monotonic()
            client.read += octets
            self._ask(client)
            if client.waiting and client.link.fileno() in self._clients:
                self._want(client)

    def _ask(self, client: _Client) -> None:
        """Passes on the client's next whole line, if no other request is being answered and the last answer has been
        read.
        """
        while not (client.asked or client.follows or client.ending or client.waiting):
            line, end, rest = client.read.partition(b"\n")
            if not end or len(line) > _LONGEST_REQUEST:
                break
            client.read, client.since = rest, time.monotonic()
            self._request(client, line)
        if len(client.read) > _LONGEST_REQUEST and not (client.waiting and b"\n" in client.read[:_LONGEST_REQUEST]):
            self._end(client, _refusal(f"a request is a line of at most {_LONGEST_REQUEST} octets"))

    def _request(self, client: _Client, line: bytes) -> None:
        try:
            command, arguments = _parsed(line)
        except ValueError as error:
            self._end(client, _refusal(str(error)))
            return
        client.asked = True
        request = Request(
            command,
            arguments,
            lambda octets, follows, files: self._reply(client, octets, follows, files),
            Asker(client, client.user, lambda: self._clients.get(client.link.fileno()) is client),
        )
        try:
            self._answer(request)
        except NfmailguardError as error:
            request.fail(*error.lines)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs an answer, not the socket
            request.fail(f"internal error: {type(error).__name__}: {error}")
        self._hand_out()

    def _reply(self, client: _Client, octets: bytes, follows: bool, files: Sequence[int]) -> None:
        with self._lock:
            self._done.append((client, octets, follows, files))
        self._rouse()

    def _hand_out(self) -> None:
        """Hands out answers that have been made, and events."""
        with self._lock:
            done, self._done = list(self._done), deque()
            lines, lost = list(self._published), self._published_lost
            self._published.clear()
            self._published_octets = self._published_lost = 0
        for client in [one for one in self._clients.values() if one.follows]:
            self._events(client, lines, lost)
        for client, octets, follows, files in done:
            if self._clients.get(client.link.fileno()) is client:
                client.asked, client.follows = False, follows
                if files:
                    self._send_files(client, octets, files)
                else:
                    self._send(client, octets)
                self._ask(client)
        self._followers = sum(client.follows for client in self._clients.values())

    def _events(self, client: _Client, lines: list[bytes], lost: int) -> None:
        client.lost += lost
        for line in lines:
            if len(client.waiting) + len(line) > _MOST_WAITING:
                client.lost += 1
                continue
            self._tell_lost(client)
            client.waiting += line
        if len(client.waiting) < _MOST_WAITING // 2:
            self._tell_lost(client)
        if client.waiting:
            self._write(client)

    @staticmethod
    def _tell_lost(client: _Client) -> None:
        if client.lost:
            client.waiting += _ENCODE({"v": VERSION, "lost": client.lost}) + b"\n"
            client.lost = 0

    def _end(self, client: _Client, octets: bytes) -> None:
        client.ending, client.read = True, b""
        self._send(client, octets)

    def _send(self, client: _Client, octets: bytes) -> None:
        if not client.waiting:
            client.since = time.monotonic()
        client.waiting += octets
        self._write(client)

    def _send_files(self, client: _Client, octets: bytes, files: Sequence[int]) -> None:
        """Sends an answer with descriptors all at once; otherwise the client is disconnected."""
        client.since = time.monotonic()
        try:
            sent = socket.send_fds(client.link, [octets], files)
        except OSError:
            sent = 0
        if sent != len(octets):
            self._drop(client)

    def _write(self, client: _Client) -> None:
        try:
            while client.waiting:
                sent = client.link.send(client.waiting[: 1 << 16])
                del client.waiting[:sent]
                client.since = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.ending and not client.waiting:
            self._drop(client)
            return
        self._want(client)

    def _want(self, client: _Client) -> None:
        """Reads no further requests of a client that has not read its last answer."""
        wanted = selectors.EVENT_WRITE if client.waiting else 0
        if not client.waiting or len(client.read) <= _LONGEST_REQUEST:
            wanted |= selectors.EVENT_READ
        self._selector.modify(client.link, wanted, client)

    def _give_up(self, client: _Client) -> None:
        if client.read and not client.waiting:
            with suppress(OSError):
                client.link.send(_refusal(f"a request ends with a line feed; nothing came for {_PATIENCE:.0f} s"))
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.link.fileno(), None):
            self._selector.unregister(client.link)
        client.link.close()


def _parsed(line: bytes) -> tuple[str, dict[str, Any]]:
    """Command and arguments; ValueError says what is wrong with the line."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError('no JSON object; write {"v": 1, "command": "status"}') from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise ValueError('no command; write {"v": 1, "command": "status"}')
    if request.pop("v", None) != VERSION:
        raise ValueError(f"this gateway speaks version {VERSION} of the control protocol")
    return request.pop("command"), request


def _refuse_taken(path: Path) -> None:
    """Raises ControlError if a program listens there, or if it is no socket. A socket left by a crash is replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"service.control: {path}: is there, and no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.setblocking(False)
            with suppress(ConnectionRefusedError):
                # The other socket's queue of connections is full, so a program listens there.
                with suppress(BlockingIOError):
                    link.connect(str(path))
                raise ControlError(f"service.control: {path}: another gateway answers there; give each its own")


def _inode(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None


def _group(name: str) -> int | None:
    if not name:
        return None
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ControlError(f"service.group: there is no group {name!r}") from None


def _peer(link: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the other end."""
    process, user, group = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return process, user, group


def _user(link: socket.socket) -> int:
    return _peer(link)[1]


def _groups(link: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the other end."""
    with suppress(OSError):
        # The largest buffer that Python accepts here.
        octets = link.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return struct.unpack(f"{len(octets) // 4}I", octets)
    return ()
