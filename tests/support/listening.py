"""A server of a few lines for a test: what it says is the test's, and accepting connections is not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["serving"]


@contextmanager
def serving(listener: socket.socket, talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Hands each connection to ``talk``, one at a time, and closes it then; the port. Closes ``listener``."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
