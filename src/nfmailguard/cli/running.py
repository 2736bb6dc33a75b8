"""Commands to a gateway that runs, over its control socket."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfmailguard.cli.common import DEFAULT_CONFIG, cli, echo, echo_text, file_option, json_option, options, print_json
from nfmailguard.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from nfmailguard.service.asking import Asking

__all__: list[str] = []

Command = TypeVar("Command", bound=Callable[..., Any])

socket_options = options(
    file_option,
    click.option("--socket", "control", metavar="PATH", help="The gateway's control socket; else service.control."),
)


def _socket(path: Path | None, control: str | None) -> str:
    from nfmailguard.config import control_path

    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    return control or control_path(path)


def _asking(path: Path | None, control: str | None, patience: float = 10) -> Asking:
    from nfmailguard.service.asking import Asking

    return Asking(_socket(path, control), patience)


@cli.command()
@socket_options
@json_option
@click.pass_context
def status(context: click.Context, /, path: Path | None, control: str | None, as_json: bool) -> None:
    """Say how the running gateway is, and why.

    Exit code 0: healthy; 1: degraded; 2: none runs, or it does not answer.
    """
    from nfmailguard.reports import standing

    with _asking(path, control) as asking:
        answer = asking.ask("status")
    if as_json:
        print_json(answer)
    else:
        for line in standing.render(answer):
            echo(line)
    context.exit(0 if answer["state"] == "healthy" else 1)


@cli.command()
@socket_options
@json_option
def stats(path: Path | None, control: str | None, as_json: bool) -> None:
    """The running gateway's counters, as they are now (`counters` reads those of the last `stats` event)."""
    with _asking(path, control) as asking:
        answer = asking.ask("stats")
    if as_json:
        print_json(answer)
        return
    for name, count in answer.items():
        echo(f"{count:>16} {name}")


@cli.command()
@socket_options
@json_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The oldest so many.")
@click.option("--client", metavar="NET", help="Of clients in this network, or of this one.")
@click.option("--state", metavar="STATE", help="embryonic, unconfirmed, one_sided, greeted, established or closing.")
def flows(
    path: Path | None, control: str | None, as_json: bool, limit: int, client: str | None, state: str | None
) -> None:
    """The running gateway's flows, the oldest first: whose, under which rule, and what each waits for.

    PACKETS and BYTES are to the server / to the client. Asking costs no packet: flows are counted out a few at a time,
    between two batches of packets; of a million that takes some seconds.

    \b
      nfmailguard flows --client 192.0.2.0/24 --state greeted
      nfmailguard flows --json --limit 10000 | jq '.flows[] | select(.held > 0)'
    """
    from nfmailguard.reports import flows as report

    with _asking(path, control, 120) as asking:
        answer = asking.ask("flows", limit=limit, client=client, state=state)
    if as_json:
        print_json(answer)
        return
    for line in report.render(answer):
        echo(line)


@cli.command()
@socket_options
def events(path: Path | None, control: str | None) -> None:
    """Events as they are written, a JSON object a line, until interrupted.

    A reader that is too slow loses some, and is told by a line {"v":1,"lost":N}.

    \b
      nfmailguard events | jq 'select(.event_type == "mailguard") | .mailguard'
    """
    from nfmailguard.plain import json_safe

    with _asking(path, control) as asking:
        for line in asking.follow("events"):
            sys.stdout.buffer.write(json_safe(line))
            sys.stdout.flush()


@cli.command()
@socket_options
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def reload(path: Path | None, control: str | None, dry_run: bool) -> None:
    """Have the running gateway read its configuration anew, and open its log files anew, as SIGHUP does.

    It reads the file, and has the options, that it was started with. Open connections keep the rules they began under,
    new ones come under the new ones; no packet is lost. A file with a mistake changes nothing: exit code 2, and a line
    for each. With --dry-run nothing changes anyway: what is checked is the same.
    """
    with _asking(path, control) as asking:
        try:
            answer = asking.ask("reload", dry_run=True) if dry_run else asking.ask("reload")
        except RefusedError as error:
            raise ConfigError(*error.lines) from error
    for line in answer["changed"]:
        echo(line)
    if dry_run:
        echo("nothing was changed" if answer["changed"] else "nothing would change")
        return
    echo(
        f"generation {answer['generation']}" if answer["changed"] else "nothing has changed", "; log files opened anew"
    )
    for note in answer["notes"]:
        echo(f"note: {note}")


@cli.command()
@click.argument("what", type=click.Choice(["on", "off"]))
@socket_options
def bypass(what: str, path: Path | None, control: str | None) -> None:
    """Take the running gateway out of the path, or back in; no connection breaks.

    on: the rules go, and mail flows on uninspected. off: they are back; connections that are open then go on
    uninspected (on.midstream_at_start), new ones are inspected.
    """
    with _asking(path, control) as asking:
        echo(f"rules: {asking.ask('bypass', on=what == 'on')['rules']}")


@cli.command()
@socket_options
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One screen, and end; so it is where there is no terminal.")
def top(path: Path | None, control: str | None, interval: float, once: bool) -> None:
    """Watch the running gateway: state, rates, queues, findings, losses; Ctrl-C ends it."""
    from rich.live import Live

    from nfmailguard.reports.console import Console
    from nfmailguard.reports.top import Sample, render

    console = Console()
    with _asking(path, control) as asking:

        def sample() -> Sample:
            return Sample(time.monotonic(), asking.ask("status"), asking.ask("stats"))

        before = sample()
        if once or not console.is_terminal:
            time.sleep(interval)
            console.print(render(sample(), before))
            return
        live = Live(render(before, None), console=console, screen=True, auto_refresh=False)
        with suppress(KeyboardInterrupt), live:
            while True:
                time.sleep(interval)
                now = sample()
                live.update(render(now, before), refresh=True)
                before = now


@cli.command()
@socket_options
@click.option("--listen", default="127.0.0.1:9786", show_default=True, metavar="HOST:PORT", help="IPv6: [::1]:9786.")
@click.option("--once", is_flag=True, help="Print the metrics, and end.")
def exporter(path: Path | None, control: str | None, listen: str, once: bool) -> None:
    """Serve the running gateway's counters to Prometheus: /metrics, and /healthz (200 healthy, 503 not, and why).

    A process of its own, which needs to be in service.group and no more. While no gateway answers, nfmailguard_up is
    0. There is no password: whoever reaches the address may read.

    \b
      nfmailguard exporter --listen 127.0.0.1:9786
      nfmailguard exporter --once | promtool check metrics
    """
    try:
        from nfmailguard.service import exporter as service
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise ConfigError("exporter: needs prometheus_client: pip install 'nfmailguard[exporter]'") from None

    def tell(line: str) -> None:
        with suppress(OSError, ValueError):  # The terminal or pipe may have been closed.
            echo(line, err=once)

    host, port = service.address(listen)
    where = _socket(path, control)
    if not where:
        raise ConfigError("service.control: is empty, so this gateway cannot be asked")
    gateway = service.Gateway(where, tell)
    if once:
        echo_text(service.text(gateway))
        return
    server = service.Exporter(gateway, host, port, tell)
    tell(f"nfmailguard: exporter: ready: {server.url}")
    gateway.ask()
    server.run()
