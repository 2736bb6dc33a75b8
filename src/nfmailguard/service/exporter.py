"""The metrics of a running gateway over HTTP: ``/metrics`` for Prometheus, ``/healthz`` for load balancers.

Promises: needs no privilege except to connect to the control socket, and asks it anew for each answer: a gateway that
has ended, hangs or was restarted is reported as such. A client has a moment for its whole request, and for reading the
answer; if many connect, the one that has kept the exporter waiting longest is disconnected, so that no client is kept
out. Nothing a client sends ends the exporter or is logged. Does not know what is counted.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
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

#: PATIENCE: seconds the gateway has to answer (Prometheus waits for 10). SLOWEST: seconds an HTTP client has to send
#: its request, or to read the answer.
PATIENCE, SLOWEST = 4.0, 5.0
#: Most HTTP clients at a time, and most bytes of a request.
MOST, MOST_OCTETS = 16, 16_384
#: Seconds to wait until the thread of a client that was disconnected to make room has ended; it normally ends at once.
_GIVES_WAY = 0.5
_HELP = "nfmailguard: /metrics and /healthz\n"


class Gateway:
    """The gateway at a control socket. ``tell`` is called when it no longer answers, and when it answers again."""

    def __init__(self, control: str, tell: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._control = control
        self._tell = tell
        self._patience = patience
        self._lock = threading.Lock()
        self._trouble: str | None = None

    def ask(self) -> Answers | str:
        """The gateway's answers; or why there are none, in a line."""
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
    """The collector that prometheus_client asks for metrics."""

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
    """Whether the gateway is healthy, and if not, why, one line for each reason."""
    answers = gateway.ask()
    if isinstance(answers, str):
        return HTTPStatus.SERVICE_UNAVAILABLE, f"down\n{answers}\n"
    if answers.status.get("state") == "healthy":
        return HTTPStatus.OK, "healthy\n"
    reasons = answers.status.get("reasons")
    told = [f"{one.get('reason')}: {one.get('text')}" for one in reasons or () if isinstance(one, dict)]
    return HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{printable(line)}\n" for line in ("degraded", *told))


def address(listen: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[HOST]:PORT``; raises ConfigError for anything else."""
    problem = f"--listen: {listen!r}; write HOST:PORT, as 127.0.0.1:9786 or [::1]:9786"
    try:
        found = urlsplit(f"//{listen}")
        host, port = found.hostname, found.port
    except ValueError:
        raise ConfigError(problem) from None
    if not host or port is None or found.netloc != listen or found.username is not None:
        raise ConfigError(problem)
    return host, port


class _Bounded:
    """Lines of a request, up to a limit in bytes; raises LineTooLong beyond it."""

    def __init__(self, file: BufferedIOBase, most: int) -> None:
        self._file = file
        self._left = most
        self.close = file.close

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line


class _Handler(BaseHTTPRequestHandler):
    timeout = SLOWEST
    server: Exporter
    server_version, sys_version = "nfmailguard", ""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Bounded(self.rfile, MOST_OCTETS)  # type: ignore[assignment]  # all of a file that is used

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except LineTooLong:  # The request line is too long; for a long header field http.server itself sends the error.
            self.requestline = self.request_version = self.command = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def do_GET(self) -> None:
        with self.server.answering(self.connection):
            status, kind, body = self._answered()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _answered(self) -> tuple[HTTPStatus, str, bytes]:
        plain = "text/plain; charset=utf-8"
        try:
            path = urlsplit(self.path).path
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, plain, f"{printable(str(error))}\n".encode()
        try:
            if path == "/metrics":
                return HTTPStatus.OK, *self._metrics()
            if path == "/healthz":
                status, told = health(self.server.gateway)
                return status, plain, told.encode()
        except Exception as error:  # noqa: BLE001 - a fault of ours costs an answer, not the exporter
            self.server.fault(error)
            return HTTPStatus.INTERNAL_SERVER_ERROR, plain, b"internal error\n"
        return HTTPStatus.OK if path == "/" else HTTPStatus.NOT_FOUND, plain, _HELP.encode()

    def _metrics(self) -> tuple[str, bytes]:
        """The metrics in the format that is asked for, or in the usual one if that format is not known (RFC 9110
        12.5.1).
        """
        try:
            encode, kind = choose_encoder(" ".join(self.headers.get("Accept", "").split()))
            return kind, encode(self.server.registry)
        except (TypeError, ValueError):  # The Accept header field has a version that is no number.
            encode, kind = choose_encoder("")
            return kind, encode(self.server.registry)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


class Exporter(ThreadingHTTPServer):
    """Listens at ``host`` and ``port`` (0: any free one). Raises ConfigError where it cannot."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, gateway: Gateway, host: str, port: int, tell: Callable[[str], None]) -> None:
        self.gateway = gateway
        self.tell = tell
        self.registry = _registry(gateway)
        self._places = threading.BoundedSemaphore(MOST)
        self._lock = threading.Lock()
        #: Connections on which the exporter waits for the client to send or to read, each with its deadline.
        self._waiting: dict[socket.socket, float] = {}
        self._faults: set[str] = set()
        where = f"--listen: {host} port {port}"
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = family
            super().__init__(place, _Handler)  # type: ignore[arg-type]  # of four parts for IPv6
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ConfigError(f"{where}: {reason}") from error

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own server_bind would look up the machine's name in DNS.
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/metrics"

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""

        def end(*_: object) -> None:
            # `shutdown` waits for `serve_forever`, which runs in this thread, so another thread calls it.
            threading.Thread(target=self.shutdown, daemon=True).start()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        with self:
            self.serve_forever(poll_interval=0.2)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False) and not (
            self._oldest_gives_way() and self._places.acquire(timeout=_GIVES_WAY)
        ):
            self.shutdown_request(request)
            return
        with self._lock:
            self._waiting[request] = time.monotonic() + SLOWEST
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # The system could not start a thread for the request.
            self._forget(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    @contextmanager
    def answering(self, connection: socket.socket) -> Iterator[None]:
        """While an answer is made the client is not disconnected. Raises ConnectionAbortedError if it already was."""
        with self._lock:
            if self._waiting.pop(connection, None) is None:
                raise ConnectionAbortedError
        yield
        with self._lock:
            self._waiting[connection] = time.monotonic() + SLOWEST

    def fault(self, error: Exception) -> None:
        """Reports an internal error once per kind, because clients may ask any number of times."""
        kind = type(error).__name__
        with self._lock:
            known = kind in self._faults
            self._faults.add(kind)
        if not known:
            self.tell(f"nfmailguard: exporter: internal error: {kind}: {error}")

    def service_actions(self) -> None:
        """Disconnects clients whose time is over; called several times a second."""
        now = time.monotonic()
        with self._lock:
            for connection in [one for one, until in self._waiting.items() if until <= now]:
                self._end(connection)

    def _oldest_gives_way(self) -> bool:
        with self._lock:
            if self._waiting:
                self._end(min(self._waiting, key=lambda one: self._waiting[one]))
                return True
        return False

    def _end(self, connection: socket.socket) -> None:
        """Shuts the connection down, which wakes its thread; the thread closes it."""
        del self._waiting[connection]
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._waiting.pop(connection, None)
        self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnected or was too slow is not reported."""
