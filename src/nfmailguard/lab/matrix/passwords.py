"""The lab's mail account, for Postfix: the server side of Dovecot's authentication protocol.

Promises: PLAIN with the right name and password is accepted, everything else refused. Knows version 1.1 of the protocol
as Postfix speaks it (Dovecot's "Authentication Protocol"), and no more.
"""

from __future__ import annotations

import base64
import binascii
import os
import socketserver
import threading
from pathlib import Path

from nfmailguard.lab.account import PASSWORD, USER

__all__ = ["PasswordServer", "answer"]

_MOST = 8192
_GREETING = (
    "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\n"
    f"SPID\t{os.getpid()}\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n"
)


def answer(line: str) -> str:
    """The reply to one line of a client; empty for lines that want none."""
    words = line.rstrip("\n").split("\t")
    if words[0] not in ("AUTH", "CONT") or len(words) < 3:
        return ""
    number = words[1]
    if words[0] == "CONT":
        given: str | None = words[2]
    else:
        given = next((word.removeprefix("resp=") for word in words if word.startswith("resp=")), None)
    if given is None:
        return f"CONT\t{number}\t\n"  # the client waits to be asked for its credentials
    try:
        parts = base64.b64decode(given, validate=True).split(b"\0")
    except binascii.Error:
        parts = []
    if parts[1:] == [USER.encode(), PASSWORD.encode()]:
        return f"OK\t{number}\tuser={USER}\n"
    return f"FAIL\t{number}\tuser={USER}\n"


class _Link(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(_GREETING.encode())
        while line := self.rfile.readline(_MOST):
            if reply := answer(line.decode("ascii", "replace")):
                self.wfile.write(reply.encode())


class PasswordServer(socketserver.ThreadingUnixStreamServer):
    """Answers on a socket that every process may connect to, in a thread, until it is closed."""

    daemon_threads = True
    block_on_close = False  # Postfix keeps its connection open as long as it runs, so closing must not wait for it.

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Link)
        path.chmod(0o666)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends the server."""
        self.shutdown()
        self.server_close()
