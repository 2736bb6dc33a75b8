"""An honest mail sent during an attack, which must not be affected.

Promises: a whole mail through the same gateway, compared byte for byte at both ends. Its connection begins before the
attack and its message ends after it; in between it is sent in pieces, by a thread of its own.
"""

from __future__ import annotations

import random
import threading
import time

from nfmailguard.errors import LabError
from nfmailguard.lab.clients import Client
from nfmailguard.lab.readers import Server
from nfmailguard.lab.topology import CLIENT, SERVER, Topology

__all__ = ["ControlMail"]

PIECES = 5
PAUSE = 0.02
LONGEST = 30.0
ENVELOPE = ("MAIL FROM:<alice@example.net>", "RCPT TO:<bob@example.com>")
LETTERS = "abcdefghij KLMNOP .0123 EHLO expn"


def letter(seed: int) -> bytes:
    """About 8 KiB of text with everything that is easily mistaken: dots, commands, long and empty lines."""
    source = random.Random(seed)
    lines = ["".join(source.choices(LETTERS, k=source.randrange(120))) for _ in range(120)]
    lines += [".", "..", "EXPN root", "DATA", "QUIT", "", ".EHLO", "a" * 900]
    source.shuffle(lines)
    return "\r\n".join(["Subject: honest", "", *lines, ""]).encode()


class ControlMail:
    """One mail, sent by a real kernel's TCP. ``result`` is complete after ``join``."""

    def __init__(self, topology: Topology, server: Server, family: int, seed: int) -> None:
        self._server = server
        self._mail = letter(seed)
        self._seen: list[bytes] = []
        self._sent: list[bytes] = []
        self._error = ""
        self._port = 0
        self._address = topology.address(CLIENT, family=family)
        # A socket belongs to the network namespace in which it is created: here the client's.
        with topology.enter(CLIENT):
            try:
                self._client: Client | None = Client(topology.address(SERVER, family=family), timeout=5.0)
            except (LabError, OSError) as error:
                self._client, self._error = None, str(error)
        self._may_end = threading.Event()
        self._thread = threading.Thread(target=self._send, name="honest mail", daemon=True)

    def start(self) -> None:
        """Begins to send; the connection is open already."""
        self._thread.start()

    def _send(self) -> None:
        if self._client is None:
            return
        try:
            with self._client as client:
                self._port = client.local_port
                for line in ("HELO honest.example", *ENVELOPE, "DATA"):
                    client.command(line)
                stuffed = self._mail.replace(b"\r\n.", b"\r\n..") + b".\r\n"
                size = len(stuffed) // PIECES + 1
                pieces = [stuffed[at : at + size] for at in range(0, len(stuffed), size)]
                for piece in pieces[:-1]:
                    client.send(piece)
                    time.sleep(PAUSE)
                self._may_end.wait(LONGEST)
                client.say(pieces[-1])
                client.command("QUIT")
                self._sent = [exchange.sent for exchange in client.exchanges]
                self._seen = [exchange.read for exchange in client.exchanges]
        except (LabError, OSError) as error:
            self._error = str(error) or type(error).__name__

    def result(self, timeout: float = 10.0) -> str:
        """Completes the message; ``ok``, or what went wrong."""
        self._may_end.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return "not sent in time"
        if self._error:
            return self._error
        return self._server.compare(self._address, self._port, b"".join(self._sent), self._seen, self._mail)
