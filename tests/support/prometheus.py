"""Prometheus and promtool for the tests: the machine's, or what ``deploy/setup test`` has unpacked."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["Prometheus", "promtool", "tool"]

UNPACKED = Path(__file__).parents[2] / "build" / "prometheus" / "usr" / "bin"


def tool(name: str) -> str:
    """The program; skips where there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        pytest.skip(f"{name} is not installed; `deploy/setup test` unpacks it")
    return found


def promtool(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *words], check=False, input=stdin, capture_output=True, text=True, timeout=60
    )


class Prometheus:
    """A Prometheus on this machine's loopback that scrapes ``target`` each second, with ``rules``."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._base = f"http://127.0.0.1:{port}"
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n"
            f"scrape_configs: [{{job_name: nfmailguard, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        options = {
            "config.file": config,
            "storage.tsdb.path": folder / "data",
            "web.listen-address": f"127.0.0.1:{port}",
        }
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [tool("prometheus"), *(f"--{name}={value}" for name, value in options.items())],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(self._log.read_text(errors="replace"))
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query; AssertionError for one that Prometheus does not take."""
        wanted = urllib.parse.urlencode({"query": expression})
        return list(self._asked(f"query?{wanted}")["result"])

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are pending or fire, with their words."""
        return list(self._asked("alerts")["alerts"])

    def _asked(self, what: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self._base}/api/v1/{what}", timeout=20) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{what}: {error.read().decode(errors='replace')}") from error
        assert told["status"] == "success", told
        return dict(told["data"])

    def until(self, expression: str, value: float) -> dict[str, str]:
        """The labels of the one series of the query, once it has that value."""
        deadline = time.monotonic() + 60
        while True:
            found = self.query(expression)
            if [float(one["value"][1]) for one in found] == [value]:
                return dict(found[0]["metric"])
            assert time.monotonic() < deadline, (expression, found)
            time.sleep(0.2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
