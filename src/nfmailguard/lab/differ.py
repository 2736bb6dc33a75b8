"""``lab diff`` within a lab: runs each dialogue on both paths at the same time.

Run beside the hosts of a lab as ``python -m nfmailguard.lab.differ ASKED``, prints the result as JSON. While it runs,
it receives the connections to the server's port 25 at the two addresses; if it is killed, that ends by itself within
``_ARMED`` seconds. A dialogue that differs is run again; what differs only once is counted, not reported.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import msgspec

from nfmailguard.errors import LabError, NfmailguardError
from nfmailguard.lab.dialogues import DIALOGUES, Dialogue
from nfmailguard.lab.exchanging import play
from nfmailguard.lab.topology import Topology
from nfmailguard.plain import json_safe, printable
from nfmailguard.verify.paths import Played, differences

__all__ = ["Asked", "Both", "main", "run"]

_TABLE = "nfmailguard_diff"
_FIRST_PORT = 2525
_ARMED = 30  # Seconds for which the nftables rule redirects connections to the lab's server.
_AGAIN = 10.0  # Seconds after which the redirection is renewed.
_PATIENCE = 10.0  # Seconds to wait for a connection to be established.


class Asked(msgspec.Struct):
    """The request. ``paths``: the server's address on each path; ``only``: the names of dialogues, or none for all."""

    client: str
    server: str
    paths: tuple[str, str]
    only: tuple[str, ...] = ()


class Both(msgspec.Struct):
    """The results of each dialogue on each path; ``unsteady``: dialogues that differed once and not again."""

    left: list[Played]
    right: list[Played]
    unsteady: list[str]


def _rules(paths: Sequence[str]) -> str:
    """nftables rules that redirect connections to the paths' addresses to this program, while the
    set holds their port.
    """
    lines = [
        f"{'ip6' if ':' in path else 'ip'} daddr {path} tcp dport @armed redirect to :{_FIRST_PORT + number}"
        for number, path in enumerate(paths)
    ]
    chain = "type nat hook prerouting priority dstnat; policy accept;"
    # The first nftables line creates the table, so that deleting it cannot fail where no killed run has left one
    # behind.
    return (
        f"table inet {_TABLE}\ndelete table inet {_TABLE}\ntable inet {_TABLE} {{\n"
        "set armed { type inet_service; flags timeout; }\n"
        f"chain ours {{ {chain}\n" + "\n".join(lines) + "\n}\n}\n"
    )


class Range:
    """Both paths, prepared. A context manager."""

    def __init__(self, topology: Topology, asked: Asked) -> None:
        self._topology, self._asked = topology, asked
        self._stack = ExitStack()
        self._listeners: list[socket.socket] = []
        self._armed = 0.0

    def __enter__(self) -> Self:
        with self._topology.enter(self._asked.server):
            for number, path in enumerate(self._asked.paths):
                family = socket.AF_INET6 if ":" in path else socket.AF_INET
                where = ("::" if ":" in path else "", _FIRST_PORT + number)
                listener = socket.create_server(where, family=family)
                listener.settimeout(_PATIENCE)
                self._listeners.append(self._stack.enter_context(listener))
        self._nft(_rules(self._asked.paths))
        self._stack.callback(self._nft, f"delete table inet {_TABLE}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _nft(self, rules: str) -> None:
        done = self._topology.run(
            self._asked.server, ["nft", "-f", "-"], input=rules, text=True, stderr=subprocess.PIPE
        )
        if done.returncode:
            raise LabError(f"lab: diff: cannot take the server's connections (nft): {done.stderr.strip()}")

    def play(self, dialogue: Dialogue) -> tuple[Played, Played]:
        """Runs one dialogue on both paths. Raises LabError if there is no connection."""
        if time.monotonic() - self._armed > _AGAIN:
            element = f"{{ 25 timeout {_ARMED}s }}"
            self._nft(f"flush set inet {_TABLE} armed\nadd element inet {_TABLE} armed {element}\n")
            self._armed = time.monotonic()
        pairs = [self._connect(number) for number in range(2)]
        with ThreadPoolExecutor(2) as pool:
            left, right = pool.map(lambda pair: play(dialogue, *pair), pairs)
        return left, right

    def _connect(self, number: int) -> tuple[socket.socket, socket.socket]:
        path = self._asked.paths[number]
        try:
            with self._topology.enter(self._asked.client):
                client = socket.create_connection((path, 25), _PATIENCE)
        except OSError as error:
            raise LabError(f"lab: diff: no connection to {path} port 25: {error.strerror or error}") from error
        try:
            server, _ = self._listeners[number].accept()
        except OSError as error:
            client.close()
            raise LabError(f"lab: diff: a connection to {path} port 25 does not come to the lab's server") from error
        return client, server


def run(topology: Topology, asked: Asked) -> Both:
    """Runs all requested dialogues. Raises LabError."""
    chosen = [one for one in DIALOGUES if not asked.only or one.name in asked.only]
    both = Both([], [], [])
    with Range(topology, asked) as here:
        for number, dialogue in enumerate(chosen, start=1):
            _show(f"{number} of {len(chosen)}: {dialogue.name}")
            left, right = here.play(dialogue)
            if before := _keys(left, right):
                left, right = here.play(dialogue)
                if before != _keys(left, right):
                    left, right = here.play(dialogue)
                    both.unsteady.append(dialogue.name)
            both.left.append(left)
            both.right.append(right)
    _show("")
    return both


def _show(progress: str) -> None:
    """Shows the progress on a terminal, in place of what was shown before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)  # noqa: T201


def _keys(left: Played, right: Played) -> list[tuple[object, ...]]:
    return [one.key for one in differences([left], [right]).differences]


def main(argv: list[str]) -> int:
    """The exit code: 3 if the paths cannot be compared, with a line on standard error."""
    try:
        both = run(Topology(), msgspec.json.decode(argv[0], type=Asked))
    except (NfmailguardError, OSError) as error:
        words = error.lines if isinstance(error, NfmailguardError) else (f"lab: diff: {error}",)
        lines = (f"nfmailguard: {printable(line)}\n" for line in words)
        sys.stderr.write("".join(lines))
        return 3
    sys.stdout.write(json_safe(msgspec.json.encode(both)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
