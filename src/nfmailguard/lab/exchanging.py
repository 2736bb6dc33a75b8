"""One dialogue of ``lab diff`` on one path, with both ends in one process, so that each knows what the other has sent.

Promises: a step is over when everything sent has arrived at the other end, or nothing has arrived for ``QUIET``
seconds; nothing a firewall does raises an error. Does not compare.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from nfmailguard.lab.dialogues import Dialogue, Step
from nfmailguard.lab.lenient_server import Conversation, Personality, Session
from nfmailguard.verify.paths import OPEN, Played, Taken

__all__ = ["play"]

#: Seconds within which a firewall on a busy machine reacts if it reacts at all; TCP has retransmitted twice by then.
QUIET = 2.0
#: Seconds to wait between two packets of one step if the first has not arrived; the firewall may be holding it.
_PAUSE = 0.1
#: Seconds to wait for more bytes than were sent, which a firewall may add itself.
_SETTLE = 0.01
#: Most seconds for which a firewall may keep sending.
_LONGEST = 30.0
_MOST = 1 << 20  # Most bytes kept of what each side receives in one step.


class _Exchange:
    def __init__(self, dialogue: Dialogue, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self._poll = select.poll()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(end, select.POLLIN)
        self._answer = bytearray()
        conversation = Conversation(("", 0), Personality(offer=dialogue.offer))
        self._session = Session(conversation, self._answer.extend)
        self._ended = {"client": "", "server": ""}
        self._taken = Taken([], b"", [], b"")
        self._says: bytes | None = None

    def step(self, step: Step) -> Taken:
        """Runs a step. Its ``says`` is the whole answer; without it the server answers to what arrives."""
        self._taken, self._says = Taken(list(step.pieces), b"", [], b""), step.says
        sent = 0
        for number, piece in enumerate(step.pieces, start=1):
            sent += len(piece)
            self._send(self._client, "client", piece)
            self._until_arrived(sent, QUIET if number == len(step.pieces) else _PAUSE)
        if step.says is not None:
            self._reply(step.says)
        self._wait(lambda: len(self._taken.read) >= len(self._taken.said), QUIET)
        self._wait(lambda: False, _SETTLE)
        self._taken.ended = self._ended["client"], self._ended["server"]
        return self._taken

    def _until_arrived(self, length: int, patience: float) -> None:
        self._wait(lambda: len(self._taken.arrived) >= length, patience)

    @property
    def silent(self) -> bool:
        """True if nothing of the last step has arrived."""
        return bool(self._taken.pieces) and not self._taken.arrived and not self._taken.read

    @property
    def over(self) -> bool:
        return self._taken.ended != OPEN or self._session.closing or self.silent

    def _reply(self, reply: bytes) -> None:
        if reply:
            self._taken.replies.append((len(self._taken.arrived), reply))
            self._send(self._server, "server", reply)

    def _send(self, end: socket.socket, name: str, some: bytes) -> None:
        end.settimeout(QUIET)
        try:
            end.sendall(some)
        except OSError:
            self._ended[name] = self._ended[name] or "reset"
        end.setblocking(False)

    def _wait(self, done: Callable[[], bool], patience: float) -> None:
        """Waits until ``done`` is true, an end has closed, or nothing has come for so many seconds."""
        until, last = (time.monotonic() + seconds for seconds in (patience, _LONGEST))
        while not done() and (left := min(until, last) - time.monotonic()) > 0:
            for number, _ in self._poll.poll(max(1, int(left * 1000))):
                if self._take(number):
                    until = time.monotonic() + patience
            if all(self._ended.values()):
                return

    def _take(self, number: int) -> bool:
        name, end = ("client", self._client) if number == self._client.fileno() else ("server", self._server)
        try:
            some = end.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            some, self._ended[name] = b"", "reset"
        if not some:
            self._poll.unregister(end)
            self._ended[name] = self._ended[name] or "closed"
        elif name == "client":
            self._taken.read = (self._taken.read + some)[:_MOST]
        else:
            self._taken.arrived = (self._taken.arrived + some)[:_MOST]
            self._session.feed(some)
            answer = bytes(self._answer)
            self._answer.clear()
            if self._says is None:
                self._reply(answer)
        return bool(some)


def play(dialogue: Dialogue, client: socket.socket, server: socket.socket) -> Played:
    """Runs the dialogue, the greeting first, and returns the result; closes the sockets."""
    with client, server:
        exchange = _Exchange(dialogue, client, server)
        steps = [exchange.step(Step((), dialogue.greeting))]
        for step in dialogue.steps:
            if exchange.over:
                break
            steps.append(exchange.step(step))
        return Played(dialogue.name, steps)
