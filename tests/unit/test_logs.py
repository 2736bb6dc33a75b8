"""A gateway's logs: what a server has not taken is told, whatever ends the connection to it."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from nfmailguard import config
from nfmailguard.events.cisco import Message
from nfmailguard.service.logs import Logs
from nfmailguard.service.worker import QueueWorker

LINES = [(0, Message(108007, "x" * 1000, "ASA"))] * 100


@pytest.mark.parametrize("how", ["reload", "end"])
def test_lines_that_wait_for_a_server_are_counted_when_it_is_none_any_more(tmp_path: Path, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        target = f"syslog.target=tcp://127.0.0.1:{server.getsockname()[1]}"
        old = config.load(None, [target])
        logs = Logs(old, lambda lines: None)
        workers = [QueueWorker(old, old.flow_rules(), 5, None)]
        logs.open(workers, stack)
        cisco = workers[0].cisco
        assert cisco
        sent = 0
        while not logs.counters()["log_lines_lost"]:
            cisco._sink.send(LINES)
            sent += len(LINES)
        connection, _ = server.accept()
        with connection:
            if how == "end":
                logs.end()
            else:
                new = config.load(None, [f"syslog.target={tmp_path / 'log'}"])
                logs.change(new, logs.prepare(new), workers)
            read = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert read.count(b"x\n") + logs.counters()["log_lines_lost"] == sent
        assert how == "reload" or logs.last_words()
