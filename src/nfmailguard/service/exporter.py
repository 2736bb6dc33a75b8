"""The metrics of a running gateway over HTTP: ``/metrics`` for Prometheus, ``/healthz`` for whoever balances load.

Promises: needs no privilege but to connect to the control socket, and asks it anew for each answer: a gateway that
has ended, hangs or has begun again is told as it is. A peer that is slow or talks nonsense costs a thread for a
moment, of a few; nothing it says ends the exporter. Does not know what is counted.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from nfmailguard.errors import ConfigError, NfmailguardError
from nfmailguard.plain import printable
from nfmailguard.service.asking import Asking
from nfmailguard.service.metrics import FAMILIES, Answers, samples

__all__ = ["Exporter", "Gateway", "address", "text"]

#: Seconds the gateway has to answer (Prometheus waits for 10), and a client to say what it wants.
PATIENCE, SLOWEST = 4.0, 5.0
#: Clients at a time; who comes beyond is not heard.
MOST = 16
_HELP = "nfmailguard: /metrics and /healthz\n"


class Gateway:
    """The gateway at a control socket. ``tell`` hears when it answers no longer, and when it does again."""

    def __init__(self, control: str, tell: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._control = control
        self._tell = tell
        self._patience = patience
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def ask(self) -> Answers | str:
        """Its answers; or why there are none, in a line."""
        try:
            with Asking(self._control, self._patience) as asking:
                status, stats = asking.ask("status"), asking.ask("stats")
            if not isinstance(status, dict) or not isinstance(stats, dict):
                raise ConfigError(f"what answers at {self._control} is no gateway")
        except NfmailguardError as error:
            self._heard(str(error))
            return str(error)
        self._heard(None)
        return Answers(status, stats)

    def _heard(self, trouble: str | None) -> None:
        with self._lock:
            before, self._trouble = self._trouble, trouble
            if trouble is not None and before is None:
                self._tell(f"nfmailguard: exporter: {trouble}")
            elif trouble is None and before is not None:
                self._tell("nfmailguard: exporter: the gateway answers again")


class _Gathered(Collector):
    """What prometheus_client asks for metrics."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        answers = self._gateway.ask()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, labels, value in samples(None if isinstance(answers, str) else answers):
            if name not in families:
                family = FAMILIES[name]
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                families[name] = kind(name.removesuffix("_total"), family.help, labels=family.labels)
            families[name].add_metric(labels, value)
        yield from families.values()


def _registry(gateway: Gateway) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Gathered(gateway))
    return registry


def text(gateway: Gateway) -> str:
    """The metrics once, in Prometheus' text format."""
    return generate_latest(_registry(gateway)).decode()


def health(gateway: Gateway) -> tuple[HTTPStatus, str]:
    """Whether it is well, and why it is not, a line each."""
    answers = gateway.ask()
    if isinstance(answers, str):
        return HTTPStatus.SERVICE_UNAVAILABLE, f"down\n{answers}\n"
    if answers.status.get("state") == "healthy":
        return HTTPStatus.OK, "healthy\n"
    reasons = answers.status.get("reasons")
    told = [f"{one.get('reason')}: {one.get('text')}" for one in reasons or () if isinstance(one, dict)]
    return HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{printable(line)}\n" for line in ("degraded", *told))


def address(listen: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[HOST]:PORT``; raises ConfigError for what is none."""
    problem = f"--listen: {listen!r}; write HOST:PORT, as 127.0.0.1:9786 or [::1]:9786"
    try:
        found = urlsplit(f"//{listen}")
        host, port = found.hostname, found.port
    except ValueError:
        raise ConfigError(problem) from None
    if not host or port is None or found.netloc != listen or found.username is not None:
        raise ConfigError(problem)
    return host, port


class _Handler(BaseHTTPRequestHandler):
    timeout = SLOWEST
    server: Exporter
    server_version, sys_version = "nfmailguard", ""

    def do_GET(self) -> None:
        try:
            status, kind, body = self._answer(urlsplit(self.path).path)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs an answer, not the exporter
            self.server.tell(f"nfmailguard: exporter: internal error: {type(error).__name__}: {error}")
            status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"internal error\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            return HTTPStatus.OK, kind, encode(self.server.registry)
        if path == "/healthz":
            status, told = health(self.server.gateway)
            return status, plain, told.encode()
        return HTTPStatus.OK if path == "/" else HTTPStatus.NOT_FOUND, plain, _HELP.encode()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads who asked when."""


class Exporter(ThreadingHTTPServer):
    """Listens at ``host`` and ``port`` (0: any that is free). Raises ConfigError where it cannot."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, gateway: Gateway, host: str, port: int, tell: Callable[[str], None]) -> None:
        self.gateway = gateway
        self.tell = tell
        self.registry = _registry(gateway)
        self._places = threading.BoundedSemaphore(MOST)
        where = f"--listen: {host} port {port}"
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = family
            super().__init__(place, _Handler)  # type: ignore[arg-type]  # of four parts for IPv6
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ConfigError(f"{where}: {reason}") from error

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look our own name up
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/metrics"

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""

        def end(*_: object) -> None:
            threading.Thread(target=self.shutdown, daemon=True).start()  # `shutdown` waits for `serve_forever`

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        with self:
            self.serve_forever(poll_interval=0.2)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client has gone, or was too slow: nothing to tell."""
