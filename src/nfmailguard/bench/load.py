"""Mail as a load: a source and a sink that cost little themselves, as processes.

    python -m nfmailguard.bench.load sink ADDRESS PORT
    python -m nfmailguard.bench.load source ADDRESS PORT SESSIONS MESSAGES SIZE
    python -m nfmailguard.bench.load trips ADDRESS PORT COUNT [tls]
    python -m nfmailguard.bench.load flood ADDRESS SECONDS

Promises: the sink says ``ready``, the others print one JSON object; what goes wrong ends
them with a message. The inner loops are ``cext.bench.load_generator``'s. Does not know what is measured.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from nfmailguard.bench.dialogues import Side, prose
from nfmailguard.cext.bench.load_generator import flood, round_trips, send_messages, serve

__all__ = ["main"]

#: Number of different SYNs in a flood; more than any queue of half-open connections holds.
SYNS = 4096


def packed(address: str, port: int) -> bytes:
    """An address in the kernel's format (struct sockaddr_in, sockaddr_in6)."""
    if ":" in address:
        octets = socket.inet_pton(socket.AF_INET6, address)
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + octets + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def sink(address: str, port: int) -> None:
    """Accepts mail until it is ended."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def talk(connection: socket.socket) -> None:
        with connection:
            serve(connection.fileno())

    with socket.create_server((address, port), family=family, backlog=1000) as server:
        print("ready", flush=True)  # noqa: T201
        while True:
            connection, _ = server.accept()
            threading.Thread(target=talk, args=(connection,), daemon=True).start()


def source(address: str, port: int, sessions: int, messages: int, size: int) -> dict[str, float]:
    """Seconds it took to deliver so many messages, each over a connection of its own, ``sessions`` at a time."""
    to, text = packed(address, port), prose(size)
    shares = [messages // sessions + (number < messages % sessions) for number in range(sessions)]
    with ThreadPoolExecutor(sessions) as pool:
        begun = time.perf_counter()
        for done in [pool.submit(send_messages, to, text, share) for share in shares if share]:
            done.result()
        return {"seconds": time.perf_counter() - begun, "messages": messages}


def trips(address: str, port: int, count: int, *, opaque: bool = False) -> dict[str, list[float]]:
    """Microseconds of each round trip; ``opaque``: after STARTTLS."""
    return {"trips": [taken / 1000 for taken in round_trips(packed(address, port), count, opaque)]}


def syns(address: str, seconds: float) -> dict[str, float]:
    """How many SYNs were sent in so many seconds, from different ports of this host's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 25))
        mine = struct.unpack("!I", socket.inet_aton(probe.getsockname()[0]))[0]
    packets = [Side(mine, 10_000 + number).opening()[0][0] for number in range(SYNS)]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.connect((address, 0))
        return {"sent": flood(raw.fileno(), packets, seconds), "seconds": seconds}


def main(arguments: list[str]) -> None:
    what, *rest = arguments
    try:
        if what == "sink":
            sink(rest[0], int(rest[1]))
            return
        if what == "source":
            found: object = source(rest[0], int(rest[1]), *map(int, rest[2:]))
        elif what == "trips":
            found = trips(rest[0], int(rest[1]), int(rest[2]), opaque=rest[3:] == ["tls"])
        else:
            found = syns(rest[0], float(rest[1]))
    except OSError as error:
        sys.exit(f"{what}: {error.strerror or error}")
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
