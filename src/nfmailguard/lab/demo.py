"""``lab demo``: one mail dialogue under no gateway, monitor, enforce pix63 and enforce asa, side by side.

Promises: everything shown went through real sockets and, but for the first run, a
real queue; nothing it made is left. Does not know how the gateway decides.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nfmailguard.lab.clients import Client, Exchange
from nfmailguard.lab.namespaces import enter_private, inside, run_private
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.reports.console import Console

__all__ = ["main"]

MAIL = (
    b"From: alice@example.net\r\nTo: bob@example.com\r\nSubject: Through the gateway\r\n\r\n"
    b"EHLO in a message is text.\r\n"
)


class Scenario(NamedTuple):
    """One run: its title and the options of ``nfmailguard run``; None: no gateway."""

    title: str
    options: tuple[str, ...] | None


SCENARIOS = (
    Scenario("no gateway", None),
    Scenario("monitor (pix63): changes nothing, reports", ("--mode", "monitor", "--profile", "pix63")),
    Scenario("enforce pix63: PIX 6.3 Mailguard", ("--mode", "enforce", "--profile", "pix63")),
    Scenario("enforce asa: ASA inspect esmtp", ("--mode", "enforce", "--profile", "asa")),
)


class Step(NamedTuple):
    """One exchange, seen from both ends."""

    client_sent: bytes
    server_saw: bytes
    server_said: bytes
    client_saw: bytes
    secured: bool


class Run(NamedTuple):
    """What one scenario gave."""

    scenario: Scenario
    steps: list[Step]
    findings: list[dict[str, Any]]
    delivered: bool
    esmtp: bool
    secured: bool


def converse(address: str) -> tuple[list[Exchange], bool]:
    """The dialogue of the demo; its record, and whether EHLO was accepted."""
    with Client(address) as client:
        esmtp = client.hello("client.example.net")
        if client.start_tls():
            client.hello("client.example.net")
        client.command("VRFY postmaster")
        client.command("MAIL FROM:<alice@example.net>")
        client.command("RCPT TO:<|prog@example.com>")
        client.command("RCPT TO:<bob@example.com>")
        client.message(MAIL)
        client.command("QUIT")
        return client.exchanges, esmtp


def pair(exchanges: Sequence[Exchange], server: MailServer, connection: int = 1) -> Iterator[Step]:
    """Both ends' records side by side: the gateway never changes a length, so they cut alike."""
    dialogue = server.dialogue(connection)
    read = b"".join(said.octets for said in dialogue if said.read)
    wrote = b"".join(said.octets for said in dialogue if not said.read)
    for exchange in exchanges:
        saw, read = read[: len(exchange.sent)], read[len(exchange.sent) :]
        said, wrote = wrote[: len(exchange.read)], wrote[len(exchange.read) :]
        yield Step(exchange.sent, saw, said, exchange.read, exchange.secured)


def play(topology: Topology, scenario: Scenario, directory: Path, family: int) -> Run:
    """Runs one scenario on hosts of its own."""
    with ExitStack() as stack:
        server = stack.enter_context(MailServer(topology, directory / "mail"))
        gateway = None
        if scenario.options is not None:
            gateway = stack.enter_context(Gateway(topology, directory / "gateway", *scenario.options))
        with topology.enter(CLIENT):
            exchanges, esmtp = converse(topology.address(SERVER, family=family))
        steps = list(pair(exchanges, server))
        mails = server.mails()
    findings = gateway.events() if gateway is not None else []
    return Run(scenario, steps, findings, MAIL in mails, esmtp, any(step.secured for step in steps))


def printable(octets: bytes) -> list[str]:
    """One string an octet, so that two streams of equal length can be compared place by place."""
    return [chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}" for octet in octets]


def lines(octets: bytes) -> list[bytes]:
    """Lines without their CRLF."""
    return [line.rstrip(b"\r\n") for line in octets.splitlines()]


def marked(octets: bytes, other: bytes, style: str) -> Text:
    """``octets``, those that differ from ``other`` in ``style``."""
    text = Text(overflow="fold")
    changed = len(octets) != len(other)
    for place, shown in enumerate(printable(octets)):
        differs = changed or octets[place] != other[place]
        blanked = " reverse" if differs and octets[place] == 32 else ""  # a space has no colour of its own
        text.append(shown, style=style + blanked if differs else "")
    return text


def transcript(run: Run) -> Table:
    """Client on the left, server on the right; what the gateway changed in colour, where it arrived."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("client", ratio=1)
    table.add_column("", width=1)
    table.add_column("server", ratio=1)
    for step in run.steps:
        arrow = Text("⇒" if step.secured else "→", style="green" if step.secured else "dim")
        for sent, saw in zip(lines(step.client_sent), lines(step.server_saw), strict=False):
            table.add_row(marked(sent, sent, ""), arrow, marked(saw, sent, "bold red"))
        arrow = Text("⇐" if step.secured else "←", style="green" if step.secured else "dim")
        for said, read in zip(lines(step.server_said), lines(step.client_saw), strict=False):
            table.add_row(marked(read, said, "bold yellow"), arrow, marked(said, said, "dim"))
    return table


def findings(run: Run) -> RenderableType:
    """The gateway's own events, in order."""
    if run.scenario.options is None:
        return Text("no gateway on the path, nothing reported", style="dim")
    if not run.findings:
        return Text("nothing reported", style="dim")
    table = Table(box=None, pad_edge=False, expand=True)
    for title in ("finding", "action"):
        widest = max(len(event["mailguard"][title]) for event in run.findings)
        table.add_column(title, header_style="dim", no_wrap=True, min_width=max(widest, len(title)))
    for title in ("before", "after"):
        table.add_column(title, header_style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for event in run.findings:
        mailguard = event["mailguard"]
        table.add_row(
            Text(mailguard["finding"]),
            Text(mailguard["action"]),
            Text(mailguard.get("before", "")),
            Text(mailguard.get("after", "")),
        )
    return table


def panel(run: Run) -> Panel:
    """One scenario."""
    verdict = "mail delivered" if run.delivered else "mail NOT delivered"
    under = f"{verdict}, {'under TLS' if run.secured else 'in clear text'}"
    style = "green" if run.delivered else "red"
    body = Group(transcript(run), Text("findings", style="bold"), findings(run))
    return Panel(body, title=f"[bold]{run.scenario.title}", subtitle=f"[{style}]{under}", padding=(0, 1))


def count(runs: Sequence[Run], what: Sequence[bool]) -> str:
    return f"{sum(what)} of {len(runs)}"


def show(console: Console, runs: Sequence[Run]) -> None:
    """Two panels a row where there is room, else one."""
    console.print(
        "[bold]One dialogue, four paths.[/] A client sends a mail through a gateway in three network namespaces.\n"
        "What the gateway changed is coloured where it arrives: [bold red]commands at the server[/], "
        "[bold yellow]replies at the client[/]; [green]⇒ ⇐[/] is inside TLS.\n",
        highlight=False,
    )
    panels = [panel(run) for run in runs]
    if console.width >= 150:
        console.print(Columns(panels, width=console.width // 2 - 1, equal=True))
    else:
        for one in panels:
            console.print(one)
    console.print(
        f"\n[bold]Delivered in {count(runs, [run.delivered for run in runs])} runs;[/] "
        f"EHLO accepted in {count(runs, [run.esmtp for run in runs])}; "
        f"TLS in {count(runs, [run.secured for run in runs])}; "
        f"{sum(len(run.findings) for run in runs)} findings.",
        highlight=False,
    )


def demonstrate(record: Path | None, family: int) -> int:
    """The demo, inside a private world; its exit code."""
    console = Console(record=record is not None)
    progress = Console(stderr=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, Topology() as topology:
        for number, scenario in enumerate(SCENARIOS):
            with progress.status(f"{number + 1} of {len(SCENARIOS)}: {scenario.title}"):
                runs.append(play(topology, scenario, Path(scratch, str(number)), family))
    show(console, runs)
    if record is not None:
        if record.suffix == ".svg":
            console.save_svg(str(record), title="nfmailguard lab demo")
        elif record.suffix == ".html":
            console.save_html(str(record))
        else:
            console.save_text(str(record))
    return 0 if all(run.delivered for run in runs) else 1


def main(record: Path | None = None, family: int = 4) -> int:
    """Runs the demo in a world of its own; its exit code, 1 when a mail was not delivered.

    ``record`` is written as SVG, HTML or text, by its suffix. Raises LabError where
    no namespaces can be made.
    """
    if not inside():
        return run_private([sys.executable, "-m", "nfmailguard", *sys.argv[1:]])
    enter_private()
    try:
        return demonstrate(record, family)
    except KeyboardInterrupt:
        return 130
