"""``lab talk``: SMTP by hand, line by line, as with telnet.

Run on a host of the lab as ``python -m nfmailguard.lab.talk ADDRESS``. Each line of standard input is sent with a CRLF,
and the whole reply is waited for; a mail's text is sent up to its final dot without waiting. Prints both sides as
``translate`` reads them (``C: ``, ``S: ``), with unprintable characters escaped.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

from nfmailguard.plain import octets

__all__ = ["main"]

_PATIENCE = 30.0  # Seconds to wait for a reply of the server.


class _Server:
    def __init__(self, link: socket.socket) -> None:
        self._file = link.makefile("rb")

    def reply(self) -> Iterator[bytes]:
        """The lines of a reply; none after the connection has ended."""
        while line := self._file.readline(65536):
            yield line
            if line[3:4] != b"-":
                return


def _say(side: str, line: bytes) -> None:
    said = octets(line.rstrip(b"\r\n"))
    _print(f"{side}: {said}")


def _print(line: str) -> None:
    """Prints an escaped line; ends the program if the output is no longer read, as with `head`."""
    try:
        print(line, flush=True)  # noqa: T201
    except BrokenPipeError:
        # Standard output becomes /dev/null, or Python would report the broken pipe once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None


def _hear(server: _Server) -> bytes:
    code = b""
    for line in server.reply():
        _say("S", line)
        code = line[:3]
    if not code:
        _print("# the connection has ended")
    return code


def main(address: str, port: int = 25) -> int:
    """The exit code: 1 if there is no connection, or it ended early."""
    try:
        link = socket.create_connection((address, port), _PATIENCE)
    except OSError as error:
        print(f"no connection to {address} port {port}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    with link:
        server = _Server(link)
        code = _hear(server)
        try:
            for line in sys.stdin.buffer:
                said = line.rstrip(b"\r\n")
                link.sendall(said + b"\r\n")
                if not sys.stdin.isatty():
                    _say("C", said)
                if code == b"354" and said != b".":
                    continue  # Lines of a message get no reply.
                code = _hear(server)
                if not code:
                    return 1
                if code in (b"221", b"421"):
                    return 0
        except OSError as error:
            _print(f"# the connection has ended: {error.strerror or error}")
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
