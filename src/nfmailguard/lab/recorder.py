"""A server that records every byte its kernel delivered: lab/lenient_server.py on real sockets.

Promises: runs as one thread of the calling process on a host of the lab, so that its record can be read while a
connection is open; if it fails, the next call reports that. Accepts data on a SYN (TCP Fast Open) from any client, and
speaks Multipath TCP if asked to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nfmailguard.errors import LabError
from nfmailguard.lab.lenient_server import HOST, TEXT, Conversation, Personality, Session
from nfmailguard.lab.topology import SERVER, Topology

__all__ = ["Recorder"]

TCP_FASTOPEN = 23
IPPROTO_MPTCP = 262
#: Bits of net.ipv4.tcp_fastopen: server side on, data on a SYN accepted without a cookie, for every listener
#: (ip-sysctl.rst).
FASTOPEN_FOR_ALL = 0x1 | 0x2 | 0x200 | 0x400
BACKLOG = 64


def _knows_multipath() -> bool:
    # EPROTONOSUPPORT: Multipath TCP is not built into the kernel; ENOPROTOOPT: it is switched off (net.mptcp.enabled).
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL):
            return False
        raise
    return True


@dataclass
class _Connection:
    session: Session
    out: bytearray
    stalled: bool = False


class Recorder:
    """The server, on ``host``'s port 25 of both families. A context manager: listens on entry."""

    def __init__(
        self, topology: Topology, host: str = SERVER, port: int = 25, *, multipath: Iterable[str] = ()
    ) -> None:
        self._topology, self._host, self._port = topology, host, port
        self._multipath_addresses = tuple(multipath)
        #: True if the kernel has Multipath TCP, so that the recorder listens for it at the given addresses.
        self.multipath = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._stop = os.pipe()
        self._lock = threading.Lock()
        self._conversations: list[Conversation] = []
        self._personalities: dict[tuple[str, int], Personality] = {}
        self._stalled: list[tuple[float, socket.socket, _Connection]] = []
        self._thread = threading.Thread(target=self._serve, name="recorder", daemon=True)
        self.failure: BaseException | None = None

    def expect(self, address: str, port: int, personality: Personality) -> None:
        """Sets the server's behaviour for connections from there; for all others it is ``Personality()``."""
        with self._lock:
            self._personalities[address, port] = personality

    def conversations(self, address: str, port: int | None = None) -> list[Conversation]:
        """Connections from that address so far, in order."""
        if self.failure is not None:
            raise LabError(f"lab: the recording server has ended: {self.failure!r}")
        with self._lock:
            return [one for one in self._conversations if one.peer[0] == address and port in (None, one.peer[1])]

    def compare(self, address: str, port: int, sent: bytes, seen: Sequence[bytes], mail: bytes) -> str:
        """``ok`` if an honest connection from there was carried byte for byte both ways; otherwise what went wrong."""
        records = self.conversations(address, port)
        if not records:
            return "the server knows nothing of it"
        record = records[-1]
        if bytes(record.received) != sent:
            return "other octets arrived"
        replies, greeting = b"".join(seen[1:]), seen[0]
        if len(greeting) + len(replies) != len(record.sent) or greeting[:3] != record.sent[:3]:
            return "another greeting came"
        if replies != record.sent[len(greeting) :]:
            return "other replies came"
        if [reply[:3] for reply in seen[-2:]] != [b"250", b"221"]:
            return "the mail was refused"
        return "ok"

    def __enter__(self) -> Self:
        try:
            with self._topology.enter(self._host):
                Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(FASTOPEN_FOR_ALL))
                for family in (4, 6):
                    listener = self._listen(self._topology.address(self._host, family=family), socket.IPPROTO_TCP)
                    listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, BACKLOG)
                self.multipath = bool(self._multipath_addresses) and _knows_multipath()
                for address in self._multipath_addresses if self.multipath else ():
                    self._listen(address, IPPROTO_MPTCP)
        except OSError as error:
            raise LabError(f"lab: the recording server cannot listen: {error.strerror or error}") from error
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def _listen(self, address: str, protocol: int) -> socket.socket:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(kind, socket.SOCK_STREAM, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, self._port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.write(self._stop, b"x")
        self._thread.join(5)
        open_ones = [key.fileobj for key in self._selector.get_map().values()]
        for one in [*open_ones, *(accepted for _, accepted, _ in self._stalled)]:
            if isinstance(one, socket.socket):
                one.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._stop)

    def _serve(self) -> None:
        try:
            while True:
                for key, events in self._selector.select(0.02):
                    if key.fileobj == self._wake:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    if key.data is None:
                        self._accept(key.fileobj)
                    else:
                        self._serve_connection(key.fileobj, key.data, events)
                self._wake_stalled()
        # The error is raised again by ``conversations``: a recorder that stopped would make the gateway look good.
        except BaseException as error:
            self.failure = error
            raise

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, peer = listener.accept()
        except OSError:  # The connection was closed before it was accepted.
            return
        accepted.setblocking(False)
        address = (peer[0], peer[1])
        with self._lock:
            personality = self._personalities.get(address, Personality())
            conversation = Conversation(address, personality, changed=time.monotonic())
            self._conversations.append(conversation)
        out = bytearray()
        connection = _Connection(Session(conversation, out.extend), out)
        connection.session.say(f"220 {HOST} ESMTP 8.12.10")
        self._flush(accepted, connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _wake_stalled(self) -> None:
        for stalled in self._stalled.copy():
            if time.monotonic() >= stalled[0]:
                self._stalled.remove(stalled)
                self._selector.register(stalled[1], selectors.EVENT_READ, stalled[2])

    def _flush(self, accepted: socket.socket, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while connection.out:
                del connection.out[: accepted.send(connection.out)]

    def _serve_connection(self, accepted: socket.socket, connection: _Connection, events: int) -> None:
        conversation = connection.session.conversation
        ended = ""
        if events & selectors.EVENT_READ:
            try:
                octets = accepted.recv(65536)
                ended = "" if octets else "fin"
            except BlockingIOError:
                return
            except OSError:
                octets, ended = b"", "reset"
            with self._lock:
                connection.session.feed(octets)
                conversation.changed = time.monotonic()
                conversation.ended = ended
        self._flush(accepted, connection)
        stalled = conversation.personality.stalled
        if stalled and connection.session.kind == TEXT and not connection.stalled and not ended:
            connection.stalled = True
            self._selector.unregister(accepted)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self._stalled.append((time.monotonic() + stalled, accepted, connection))
        elif ended or (connection.session.closing and not connection.out):
            conversation.ended = ended or "quit"
            self._selector.unregister(accepted)
            accepted.close()
        else:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
            self._selector.modify(accepted, wanted, connection)
