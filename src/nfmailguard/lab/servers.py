"""Servers and gateways as processes on the lab's hosts, and what they recorded.

Promises: each is ready when its constructor returns, or LabError contains what it printed; each ends with its context,
at the latest with the topology.
"""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from nfmailguard.errors import LabError
from nfmailguard.lab.topology import GATEWAY, SERVER, Topology

__all__ = ["Gateway", "MailServer", "Process", "Said"]


class Said(NamedTuple):
    """Bytes the server read, or wrote, at once."""

    read: bool
    octets: bytes


class Process:
    """A program on a host, started and waited for: it is ready when it has printed ``ready_word``."""

    def __init__(self, topology: Topology, host: str, argv: Sequence[str], log: Path, ready_word: str) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = topology.popen(host, argv, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        self._wait_until_ready(argv[0], ready_word.encode(), time.monotonic() + 60)

    def _wait_until_ready(self, name: str, ready_word: bytes, deadline: float) -> None:
        pipe = self.process.stdout
        assert pipe is not None
        printed = b""
        while ready_word not in printed:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.stop()
                raise LabError(f"lab: {name} is not ready after 60 s: {self.printed(printed)}")
            octets = pipe.read(4096)
            if not octets:
                self.stop()
                raise LabError(f"lab: {name} did not start: {self.printed(printed)}")
            printed += octets

    def printed(self, output: bytes = b"") -> str:
        """The last line the program wrote to standard error, or ``output``."""
        text = (self.log.read_bytes() or output).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "no output"

    def stop(self) -> int:
        """Ends the program as an operator would (SIGTERM) and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class MailServer(Process):
    """aiosmtpd on ``addresses``, by default the server host's addresses of both families, port 25."""

    def __init__(
        self,
        topology: Topology,
        directory: Path,
        *options: str,
        host: str = SERVER,
        port: int = 25,
        addresses: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        own = addresses or [topology.address(host, family=family) for family in (4, 6)]
        listen = [f"--listen={address}" for address in own]
        module = [sys.executable, "-m", "nfmailguard.lab.mailserver", str(directory), f"--port={port}"]
        super().__init__(topology, host, [*module, *listen, *options], directory / "server.log", "ready")

    def dialogue(self, connection: int) -> list[Said]:
        """What the server read and wrote on its ``connection``-th connection, counted from 1."""
        lines = (self.directory / f"{connection}.dialogue").read_text().splitlines()
        return [Said(line[0] == ">", ast.literal_eval(line[2:])) for line in lines]

    def mails(self) -> list[bytes]:
        """Every mail so far, as received."""
        return [path.read_bytes() for path in sorted(self.directory.glob("[0-9]*-*.eml"))]


class Gateway(Process):
    """``nfmailguard run`` on a gateway, with its events in a file."""

    def __init__(self, topology: Topology, directory: Path, *options: str, host: str = GATEWAY) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.eve = directory / "eve.json"
        argv = [sys.executable, "-m", "nfmailguard", "run", "-c", os.devnull, "--set", f"log.eve={self.eve}"]
        # No control socket, so that `nfmailguard status` on this machine still asks the machine's own gateway.
        argv += ["--set", "service.control=", *options]
        super().__init__(topology, host, argv, directory / "gateway.log", "ready")

    def events(self, kind: str = "mailguard") -> list[dict[str, Any]]:
        """The events of one type written so far; complete once the gateway has been stopped."""
        if not self.eve.exists():
            return []
        events = [json.loads(line) for line in self.eve.read_text().splitlines()]
        return [event for event in events if event["event_type"] == kind]
