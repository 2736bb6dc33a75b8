"""A gateway whose log goes where nobody reads, or nothing fits: it starts, guards, counts, and ends when told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_router import Router, router_or_skip
from test_gateway import Gateway, dialogue, tables

pytestmark = pytest.mark.live


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


@pytest.mark.parametrize("key", ["log.eve", "syslog.target"])
@pytest.mark.parametrize("target", ["fifo", "/dev/full", "removed"])
def test_a_log_that_takes_nothing(router: Router, tmp_path: Path, key: str, target: str) -> None:
    path = Path(target) if target.startswith("/") else tmp_path / "log" / "file"
    (tmp_path / "log").mkdir()
    if target == "fifo":
        os.mkfifo(path)
    options = ["--mode", "enforce", "--profile", "asa", "--set", f"{key}={path}"]
    with Gateway(
        router, *options, "--set", "actions.command.too_long=log", "--set", "commands.line_length=20"
    ) as gateway:
        assert "ready" in gateway.first_line
        if target == "removed":
            path.unlink()
            path.parent.rmdir()
        assert dialogue(router, b"EHLO me\r\n", b"NOOP " + b"x" * 30 + b"\r\n")[1]
        code, out, err = gateway.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "could not be" in out
    assert tables(router) == ""
