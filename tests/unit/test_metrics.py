"""The metrics are what the gateway counts, in Prometheus' conventions, whoever answers and whoever asks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.config import load
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError
from nfmailguard.events.counters import COUNTERS
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.sinks import open_sink
from nfmailguard.queues.tap import Tap
from nfmailguard.service import exporter
from nfmailguard.service.control import ControlSocket, Request
from nfmailguard.service.health import COUNTED, QUEUE_REASONS, TROUBLES
from nfmailguard.service.metrics import FAMILIES, LEFT_OUT, Answers, Sample, samples
from tests.support.prometheus import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "nfmailguard.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "nfmailguard.json"
NAME = re.compile(r"\bnfmailguard_[a-z_]+")

STATUS: dict[str, Any] = {
    "state": "degraded",
    "reasons": [
        {"reason": "queue 7 full", "text": "4000 of 4096 packets wait for a verdict", "since": 1.5, "count": None},
        {"reason": "records_lost", "text": "events lost: written too slowly", "since": 1.5, "count": 9},
    ],
    "version": "0.1.0",
    "started": 1_790_000_000.25,
    "policies": [{"mode": "monitor", "profile": "asa"}, {"mode": "enforce", "profile": 'a"\\\nb'}],
    "rules": "in place",
    "queues": [
        {
            "number": 7,
            "packets": 40,
            "waiting": 4000,
            "length": 4096,
            "held": 3,
            "most_held": 1024,
            "flows": 5,
            "most_flows": 131072,
            "memory": 1680,
            "most_memory": 268435456,
            "kernel_queue_dropped": 11,
            "kernel_user_dropped": 12,
        }
    ],
}
STATS = {name: place for place, name in enumerate(COUNTERS, 1)}


def engine() -> Engine:
    config = load()
    return Engine(config.flow_rules(), ports=config.ports(), limits=config.engine_limits())


def found(status: Any = STATUS, stats: Any = STATS) -> dict[str, dict[tuple[str, ...], float]]:
    by_name: dict[str, dict[tuple[str, ...], float]] = {}
    for name, labels, value in samples(Answers(status, stats)):
        assert labels not in by_name.setdefault(name, {}), (name, labels)
        by_name[name][labels] = value
    return by_name


def test_every_counter_of_a_core_and_of_what_writes_is_in_the_table() -> None:
    core = engine()
    assert {name for name in core.counters() if name not in COUNTERS} == set()
    writer = EveWriter(core.rules, open_sink("-"))
    assert {name for name in writer.counters() if name not in COUNTERS} == set()
    names = {name for name in COUNTERS if name.startswith(("drop.", "finding.", "records_lost."))}
    assert names == {name for name in core.counters() if name.startswith(("drop.", "finding.", "records_lost."))}


def test_a_tap_is_counted_too(tmp_path: Path) -> None:
    tap = Tap(str(tmp_path / "in"), str(tmp_path / "out"))
    tap.open()
    assert {f"queue.{name}" for name in tap.counters()} <= COUNTERS.keys()
    tap.close()


def test_what_ends_in_now_is_a_gauge_and_all_has_unit_and_meaning() -> None:
    for name, (unit, meaning, gauge) in COUNTERS.items():
        assert unit
        assert meaning
        assert gauge or not name.endswith("_now"), name


def test_each_counter_is_in_one_metric_or_left_out_on_purpose() -> None:
    used = Counter(name for family in FAMILIES.values() for name in family.members)
    assert max(used.values()) == 1
    assert used.keys() | LEFT_OUT == COUNTERS.keys()
    assert used.keys() & LEFT_OUT == set()
    for name, family in FAMILIES.items():
        kinds = {COUNTERS[member].gauge for member in family.members}
        assert not kinds or kinds == {not name.endswith("_total")}, name


def test_all_that_is_answered_is_told() -> None:
    told = found()
    assert told.keys() == FAMILIES.keys()
    assert told["nfmailguard_up"] == {(): 1}
    assert told["nfmailguard_packets_total"] == {(): STATS["packets"]}
    assert told["nfmailguard_findings_total"]["command.denied",] == STATS["finding.command.denied"]
    assert told["nfmailguard_mails_total"]["accepted",] == STATS["mails.accepted"]
    assert told["nfmailguard_flows_begun_total"] == {
        ("syn",): STATS["flows_opened"],
        ("midstream",): STATS["flows_midstream"],
    }
    assert told["nfmailguard_queue_packets_dropped_total"] == {("7", "queue_full"): 11, ("7", "user"): 12}
    assert told["nfmailguard_rule_info"] == {("1", "monitor", "asa"): 1, ("gateway", "enforce", 'a"\\\\x0ab'): 1}
    assert told["nfmailguard_start_time_seconds"] == {(): 1_790_000_000.25}
    assert told["nfmailguard_unknown_counters"] == {(): 0}


def test_reasons_are_those_of_status_each_there_from_the_start() -> None:
    reasons = found()["nfmailguard_degraded_reason"]
    known = {*COUNTED, *TROUBLES, *(f"queue 7 {what}" for what in QUEUE_REASONS), "other"}
    assert {reason for (reason,) in reasons} == known
    assert {reason for (reason,), value in reasons.items() if value} == {"queue 7 full", "records_lost"}
    other = found({**STATUS, "reasons": [{"reason": "of a later version"}]})["nfmailguard_degraded_reason"]
    assert {reason for (reason,), value in other.items() if value} == {"other"}


@pytest.mark.sources
def test_the_reasons_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "daemon.md").read_text().partition("## Degraded")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == {*COUNTED, *TROUBLES, *(f"queue N {what}" for what in QUEUE_REASONS), "event_flows_forgotten",
                     "records_lost"}  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "in_place", "bypass"),
    [
        ("in place", {(): 1}, 0),
        ("gone", {(): 0}, 0),
        ("away: bypass is on", {(): 0}, 1),
        ("the operator's own", None, 0),
    ],
)
def test_rules_of_the_operators_own_are_not_said_to_be_gone(rules: str, in_place: Any, bypass: int) -> None:
    told = found({**STATUS, "rules": rules})
    assert told.get("nfmailguard_rules_in_place") == in_place
    assert told["nfmailguard_bypass"] == {(): bypass}


def test_a_gateway_of_another_version_is_told_as_far_as_it_is_known() -> None:
    told = found({"state": "healthy"}, {"packets": 5, "of.a.later.version": 7})
    assert told["nfmailguard_packets_total"] == {(): 5}
    assert told["nfmailguard_unknown_counters"] == {(): 1}
    assert "nfmailguard_queue_length" not in told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(STATUS, JSON))
    | st.fixed_dictionaries({"queues": st.lists(st.fixed_dictionaries({"number": JSON, "waiting": JSON}), max_size=3)}),
    st.dictionaries(st.sampled_from(sorted(COUNTERS)) | st.text(), JSON, max_size=8),
)
def test_whatever_is_answered_nothing_raises(status: dict[str, Any], stats: dict[str, Any]) -> None:
    for name, labels, value in samples(Answers(status, stats)):
        assert isinstance(value, float | int)
        assert len(labels) == len(FAMILIES[name].labels)
        assert all(label.isprintable() for label in labels)


def answer(request: Request) -> None:
    request.reply({"status": STATUS, "stats": STATS}[request.command])


def healthy(request: Request) -> None:
    request.reply({"status": {**STATUS, "state": "healthy", "reasons": []}, "stats": STATS}[request.command])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


class Process:
    """``nfmailguard exporter`` at an address of its own."""

    def __init__(self, path: Path, listen: str = "127.0.0.1:0") -> None:
        argv = [sys.executable, "-m", "nfmailguard", "exporter", "--socket", str(path), "--listen", listen]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.first = self.process.stdout.readline()
        self.base = self.first.split()[-1].removesuffix("/metrics") if self.first else ""

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        try:
            wanted = urllib.request.Request(self.base + path, headers=headers)
            with urllib.request.urlopen(wanted, timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        assert self.process.stdout
        assert self.process.stderr
        self.process.send_signal(number)
        code = self.process.wait(60)
        with self.process.stdout, self.process.stderr:  # `communicate` knows nothing of what was read ahead
            return code, self.process.stdout.read(), self.process.stderr.read()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.base.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)


@pytest.fixture
def process(path: Path) -> Iterator[Process]:
    made = Process(path)
    yield made
    if made.process.poll() is None:
        assert made.end()[2] == ""


def test_promtool_finds_nothing_to_say(process: Process, path: Path) -> None:
    down = process.get("/metrics")
    text = "# HELP nfmailguard_up 1: the gateway has answered.\n# TYPE nfmailguard_up gauge\nnfmailguard_up 0.0\n"
    assert down == (200, text)
    server = ControlSocket(str(path), "", answer)
    server.start()
    up = process.get("/metrics")
    server.close()
    assert up[0] == 200
    assert {line.split()[2] for line in up[1].splitlines() if line.startswith("# TYPE")} == FAMILIES.keys()
    for text in (down[1], up[1]):
        done = promtool("check", "metrics", stdin=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_gateway_that_goes_comes_and_hangs_is_told_as_it_is(process: Process, path: Path) -> None:
    assert process.get("/healthz") == (503, f"down\nno gateway answers at {path}: No such file or directory\n")
    server = ControlSocket(str(path), "", answer)
    server.start()
    reasons = ["queue 7 full: 4000 of 4096 packets wait for a verdict", "records_lost: events lost: written too slowly"]
    assert process.get("/healthz") == (503, "\n".join(["degraded", *reasons, ""]))
    server.close()
    server = ControlSocket(str(path), "", healthy)
    server.start()
    assert process.get("/healthz") == (200, "healthy\n")
    server.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hung:
        hung.bind(str(path))
        hung.listen()
        began = time.monotonic()
        assert process.get("/healthz") == (503, f"down\nthe gateway at {path} does not answer: timed out\n")
        assert time.monotonic() - began < 10  # as long as Prometheus waits
        path.unlink()
    assert "\nnfmailguard_up 0.0\n" in process.get("/metrics")[1]
    code, out, err = process.end()
    assert (code, err) == (0, "")
    told = [line.removeprefix("nfmailguard: exporter: ").partition(": ")[0] for line in out.splitlines()]
    assert told == [f"no gateway answers at {path}", "the gateway answers again",
                    f"the gateway at {path} does not answer"]  # fmt: skip


@pytest.mark.parametrize("reply", [b"\n", b"[]\n", b'{"v":1,"ok":true,"answer":7}\n', b"\xff" * 3000, b"{" * 9000])
def test_what_is_no_gateway_is_down(process: Process, path: Path, reply: bytes) -> None:
    process.get("/")  # it has asked once, to tell how it begins
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()

        def serve() -> None:
            link, _ = other.accept()
            with link, suppress(OSError):  # it may have heard enough
                link.settimeout(60)
                while link.recv(4096):
                    link.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        status, text = process.get("/healthz")
        thread.join(60)
    assert (status, text.startswith("down\n"), text.count("\n")) == (503, True, 2)


@pytest.mark.parametrize("sent", [b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000, b"GET / HTTP/9.9\r\n\r\n",
                                  b"POST /metrics HTTP/1.0\r\n\r\n", b"GET /metrics HTTP/1.0\r\nA", b""])  # fmt: skip
def test_whatever_a_client_says_it_goes_on_and_says_nothing(process: Process, sent: bytes) -> None:
    for _ in range(3):
        with socket.create_connection(process.address, timeout=60) as link:
            link.sendall(sent)
    assert process.get("/") == (200, "nfmailguard: /metrics and /healthz\n")
    assert process.get("/other")[0] == 404
    _, out, err = process.end()
    assert err == ""
    assert "Traceback" not in out
    assert "internal" not in out


@pytest.mark.parametrize("begins", [b"", b"GET / HTTP/1.0\r\nA: "])
def test_clients_that_drip_an_octet_keep_nobody_out(process: Process, begins: bytes) -> None:
    with ExitStack() as stack:
        began = time.monotonic()
        while time.monotonic() - began < 1.2 * exporter.SLOWEST:
            clients = [stack.enter_context(socket.create_connection(process.address)) for _ in range(exporter.MOST)]
            for client in clients:
                client.sendall(begins)
            for _ in range(3):
                asked = time.monotonic()
                assert process.get("/healthz")[0] == 503
                assert time.monotonic() - asked < 2
                for client in clients:
                    with suppress(OSError):
                        client.send(b"x")
                time.sleep(0.3)


def test_a_request_is_waited_for_as_a_whole(process: Process) -> None:
    began = time.monotonic()
    with socket.create_connection(process.address, timeout=60) as client:
        with suppress(OSError):
            while time.monotonic() - began < 4 * exporter.SLOWEST:
                client.sendall(b"G")
                time.sleep(0.1)
        assert exporter.SLOWEST - 0.5 < time.monotonic() - began < 2 * exporter.SLOWEST


def answered(process: Process, sent: bytes) -> bytes:
    with socket.create_connection(process.address, timeout=60) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize(
    "accept",
    [
        *("text/plain; version=x", "text/plain; version=1." + "9" * 5000, "text/plain; version=\x1b[31m", "\xff,;=,"),
        *("text/plain; version=1.\r\n 0", "application/openmetrics-text; version=7; escaping=x"),
        *(f"application/openmetrics-text; version={version}" for version in ("x", "2.x", "\xb2", "1..0")),
    ],
)  # fmt: skip
def test_whatever_is_accepted_there_are_metrics_and_nothing_is_logged(process: Process, accept: str) -> None:
    process.get("/")
    for _ in range(2):
        head, _, text = answered(
            process, f"GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode("latin-1")
        ).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert all(b": " in line for line in head.split(b"\r\n")[1:])
        assert b"\x1b" not in head
        assert b"\nnfmailguard_up 0.0\n" in text
    _, out, err = process.end()
    assert (out.count("\n"), err) == (1, "")  # that no gateway answers


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET http://[ HTTP/1.0", 400),
        ("GET http://[::x]/metrics HTTP/1.0", 400),
        ("GET http://a]/metrics HTTP/1.0", 400),
        ("GET http://any/metrics HTTP/1.0", 200),  # RFC 9112 3.2.2
        ("GET /metrics?x=[ HTTP/1.0", 200),
        (f"GET /{'a' * 20_000} HTTP/1.0", 414),
        (f"GET / HTTP/1.0\r\nA: {'a' * 20_000}", 431),
        ("GET / HTTP/1.0" + "\r\nA: " * 200, 431),
        ("BREW / HTTP/1.0", 501),
    ],
)
def test_a_request_that_is_none_is_answered_as_such_and_nothing_is_logged(
    process: Process, line: str, status: int
) -> None:
    process.get("/")
    for _ in range(2):
        assert b" %d " % status in answered(process, line.encode() + b"\r\n\r\n").partition(b"\r\n")[0]
    _, out, err = process.end()
    assert (out.count("\n") <= 1, err) == (True, "")


def test_a_fault_of_ours_is_told_once_of_a_kind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    made = exporter.Exporter(exporter.Gateway(str(path), told.append), "127.0.0.1", 0, told.append)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    monkeypatch.setattr(made.gateway, "ask", lambda: 1 / 0)
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError, match="500") as error:
            urllib.request.urlopen(made.url.replace("/metrics", "/healthz"), timeout=60)
        error.value.close()
    made.shutdown()
    thread.join()
    made.server_close()
    assert told == ["nfmailguard: exporter: internal error: ZeroDivisionError: division by zero"]


def test_openmetrics_is_spoken_where_it_is_asked_for(process: Process) -> None:
    text = process.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1]
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_ipv6_is_listened_at(path: Path, number: int) -> None:
    made = Process(path, "[::1]:0")
    assert made.first.startswith("nfmailguard: exporter: ready: http://[::1]:")
    assert made.get("/healthz")[0] == 503
    assert made.end(number)[::2] == (0, "")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "exporter", "-c", os.devnull, *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def test_once_prints_them_and_ends(path: Path) -> None:
    done = command("--once", "--socket", str(path))
    assert done.returncode == 0
    assert done.stdout.endswith("\nnfmailguard_up 0.0\n")
    assert done.stderr == f"nfmailguard: exporter: no gateway answers at {path}: No such file or directory\n"
    server = ControlSocket(str(path), "", answer)
    server.start()
    done = command("--once", "--socket", str(path))
    server.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert 'nfmailguard_rule_info{mode="enforce",profile="a\\"\\\\\\\\x0ab",rule="gateway"} 1.0\n' in done.stdout
    assert promtool("check", "metrics", stdin=done.stdout).stderr == ""


@pytest.mark.parametrize(
    "listen",
    ["", "9786", "127.0.0.1", ":9786", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:9786", "[::1]", "a@b:1",
     "a:1/x", "http://a:1", "[::1:1", "127.0.0.1:-1", "nowhere.invalid:1"],
)  # fmt: skip
def test_an_address_that_is_none_is_one_clear_line(listen: str) -> None:
    done = command("--listen", listen)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("nfmailguard: --listen: ")


def test_an_address_that_is_taken_is_one_clear_line(process: Process) -> None:
    host, port = process.address
    done = command("--listen", f"{host}:{port}")
    assert (done.returncode, done.stderr) == (2, f"nfmailguard: --listen: {host} port {port}: Address already in use\n")


def test_addresses_of_both_families() -> None:
    assert exporter.address("127.0.0.1:9786") == ("127.0.0.1", 9786)
    assert exporter.address("[::1]:9786") == ("::1", 9786)
    assert exporter.address("localhost:1") == ("localhost", 1)
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        exporter.address("::1:9786")


def test_without_a_socket_in_the_configuration_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[service]\ncontrol = ""\n')
    done = command("-c", str(config))
    assert (done.returncode, done.stderr) == (
        2,
        "nfmailguard: service.control: is empty, so this gateway cannot be asked\n",
    )
    config.write_text('[service]\ncontrol = "/run/\\u0000"\n')
    assert "nfmailguard_up 0.0\n" in command("-c", str(config), "--once").stdout


def test_without_the_library_it_says_how_to_get_it() -> None:
    hidden = "import sys; sys.modules['prometheus_client'] = None; sys.argv[1:] = ['exporter']"
    program = f"{hidden}; from nfmailguard.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "nfmailguard: exporter: needs prometheus_client: pip install 'nfmailguard[exporter]'\n",
    )


def test_alerts_and_scrape_configuration_are_what_promtool_takes() -> None:
    for kind, file in (("rules", RULES), ("config", RULES.with_name("prometheus.yml"))):
        done = promtool("check", kind, str(file))
        assert (done.returncode, "FAILED" in done.stdout) == (0, False), done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_else_does_not() -> None:
    cases = Path(__file__).with_name("nfmailguard.rules.test.yml")
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert len(alerts) >= 8
    assert set(re.findall(r'alertname="(\w+)"', cases.read_text())) == alerts
    done = promtool("test", "rules", str(cases))
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """Every query of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    inside = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [*inside, *(one["expr"] for one in board["annotations"]["list"]),
            *(one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query")]  # fmt: skip


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    queries = expressions()
    assert len(queries) >= 20
    for text in (*queries, *re.findall(r"expr: ((?:>-\n(?:          .*\n)+|.*\n))", RULES.read_text())):
        names = set(NAME.findall(text))
        assert names - FAMILIES.keys() == set(), text
        assert names or text.startswith("up{"), text
        for name, braces in re.findall(r"\b(nfmailguard_[a-z_]+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", braces)) - {"instance", "job"}
            assert labels <= set(FAMILIES[name].labels), text


@pytest.mark.sources
def test_every_metric_is_in_the_document() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(nfmailguard_\w+)`", text, re.MULTILINE)) == FAMILIES.keys()


def test_samples_of_a_gateway_that_is_down_are_one() -> None:
    assert list(samples(None)) == [Sample("nfmailguard_up", (), 0)]
