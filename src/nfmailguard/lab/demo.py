"""``lab demo``: one mail dialogue without a gateway, and under monitor, enforce pix63 and enforce asa, side by side.

Promises: everything shown went through real sockets and, except in the first run, a real queue; nothing is left behind.
Does not know how the gateway decides.
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
from nfmailguard.policy.load import load_profile
from nfmailguard.reports import pages
from nfmailguard.reports.console import Console, save
from nfmailguard.reports.ladder import CHANGED
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.transcripts.reasons import note
from nfmailguard.transcripts.translated import about

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


#: Width in columns of a recorded screen.
WIDTH = 160


def chosen(profiles: Sequence[str]) -> Sequence[Scenario]:
    """A run without a gateway, then each of these profiles enforced; the usual four if none is given. Raises
    ConfigError.
    """
    if not profiles:
        return SCENARIOS
    found = [SCENARIOS[0]]
    for name in profiles:
        title = load_profile(name).title or name
        found.append(Scenario(f"enforce {name}: {title}", ("--mode", "enforce", "--profile", name)))
    return found


class Step(NamedTuple):
    """One exchange, seen from both ends."""

    client_sent: bytes
    server_saw: bytes
    server_said: bytes
    client_saw: bytes
    secured: bool


class Run(NamedTuple):
    """The result of one scenario."""

    scenario: Scenario
    steps: list[Step]
    findings: list[dict[str, Any]]
    delivered: bool
    esmtp: bool
    secured: bool
    #: The client's and the server's addresses.
    client: str = ""
    server: str = ""


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
    """Both ends' records side by side: the gateway never changes a length, so both split at the same places."""
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
    secured = any(step.secured for step in steps)
    ends = [topology.address(host, family=family) for host in (CLIENT, SERVER)]
    return Run(scenario, steps, findings, MAIL in mails, esmtp, secured, *ends)


def printable(octets: bytes) -> list[str]:
    """One string per byte, so that two streams of equal length can be compared position by position."""
    return [chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}" for octet in octets]


def lines(octets: bytes) -> list[bytes]:
    """Lines without their CRLF."""
    return [line.rstrip(b"\r\n") for line in octets.splitlines()]


def marked(octets: bytes, other: bytes, style: str) -> Text:
    """``octets`` as text, with bytes that differ from ``other`` in ``style``."""
    text = Text(overflow="fold")
    changed = len(octets) != len(other)
    for place, shown in enumerate(printable(octets)):
        differs = changed or octets[place] != other[place]
        # A changed byte that became a space is shown in reverse video, because a space shows no text colour.
        blanked = " reverse" if differs and octets[place] == 32 else ""
        text.append(shown, style=style + blanked if differs else "")
    return text


def transcript(run: Run) -> Table:
    """Client on the left, server on the right; what the gateway changed is underlined and marked on the side where it
    arrived.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("", width=1)
    table.add_column("client", ratio=1)
    table.add_column("", width=1)
    table.add_column("server", ratio=1)
    secured = False
    for step in run.steps:
        if step.secured and not secured:
            secured = True
            table.add_row("", Text("TLS from here on", style="bold green"), Text("⇔", style="green"), "")
        arrow = Text("⇒" if step.secured else "→", style="green" if step.secured else "dim")
        for sent, saw in zip(lines(step.client_sent), lines(step.server_saw), strict=False):
            table.add_row(changed(sent, saw), marked(sent, sent, ""), arrow, marked(saw, sent, CHANGED[True]))
        arrow = Text("⇐" if step.secured else "←", style="green" if step.secured else "dim")
        for said, read in zip(lines(step.server_said), lines(step.client_saw), strict=False):
            table.add_row(changed(said, read), marked(read, said, CHANGED[False]), arrow, marked(said, said, "dim"))
    return table


def changed(sent: bytes, seen: bytes) -> Text:
    """The mark of a changed line, visible without colour too."""
    return Text("≠" if sent != seen else "", style="bold")


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
        table.add_column(title, header_style="dim", overflow="fold", ratio=1)
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
    """Prints two panels side by side if there is room, else one per row."""
    untouched = sum("enforce" not in (run.scenario.options or ()) for run in runs)
    free = f"The first {'two paths change' if untouched == 2 else 'path changes'} nothing.\n"
    console.print(
        f"[bold]One dialogue, {len(runs)} paths.[/] A client sends a mail through a gateway, in network namespaces.\n"
        "What the gateway changed is underlined where it arrives, and its line marked ≠: "
        f"[{CHANGED[True]}]commands at the server[/], [{CHANGED[False]}]replies at the client[/]; "
        f"[green]⇒ ⇐[/] is inside TLS.\n{free}",
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


def dialogue(run: Run) -> Dialogue:
    """The run as both ends saw it, with the gateway's findings at the lines they are about."""
    made = Dialogue(run.scenario.title, run.client, run.server, [])
    at = {True: 0, False: 0}
    hello = False
    for step in run.steps:
        if step.secured and not hello:
            hello = True
            made.lines.append(Line(True, b"", b"", None, [], "TLS: the lines below are encrypted on the way"))
        for to_server, sent, seen in (
            (True, step.client_sent, step.server_saw),
            (False, step.server_said, step.client_saw),
        ):
            begin = 0
            for line in sent.splitlines(keepends=True):
                got = seen[begin : begin + len(line)] or None
                made.lines.append(Line(to_server, line, got, None, [], offset=at[to_server] + begin))
                begin += len(line)
            at[to_server] += len(sent)
    for event in run.findings:
        body, to_server = event["mailguard"], event["direction"] == "to_server"
        about_line = next((one for one in reversed(made.lines) if one.to_server is to_server and not one.what
                     and one.offset <= body.get("offset", 0)), None)  # fmt: skip
        if about_line is not None:
            what = about(body["finding"], body.get("verb", ""), about_line.sent)
            told = {"what": what, "applied": body["applied"], "doubt": body.get("hypothetical", False)}
            about_line.notes.append(note(body["finding"], body["action"], body["profile"], **told))
    delivered = "the mail was delivered" if run.delivered else "the mail was NOT delivered"
    made.ended = f"{delivered}{', under TLS' if run.secured else ', in clear text'}"
    return made


def report(path: Path, runs: Sequence[Run]) -> None:
    """Writes the runs as one page. Raises ConfigError when that fails."""
    rows = [
        (
            run.scenario.title,
            "accepted" if run.esmtp else "refused",
            "yes" if run.secured else "no",
            "yes" if run.delivered else "NO",
            str(len(run.findings)),
        )
        for run in runs
    ]
    facts = pages.Facts(f"One mail, {len(runs)} paths", ("path", "EHLO", "TLS", "delivered", "findings"), rows)
    lead = "A client sends the same mail through a gateway in network namespaces, each time on another path."
    pages.write(path, pages.page("nfmailguard lab demo", list(map(dialogue, runs)), lead=lead, facts=[facts]))


def demonstrate(
    record: Path | None, family: int, page: Path | None = None, scenarios: Sequence[Scenario] = SCENARIOS
) -> int:
    """Runs the demo inside private namespaces; its exit code."""
    # A recording shows two panels side by side and has a fixed width, however narrow the terminal is.
    console = Console(record=record is not None, width=WIDTH if record is not None else None)
    progress = Console(stderr=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, Topology() as topology:
        for number, scenario in enumerate(scenarios):
            with progress.status(f"{number + 1} of {len(scenarios)}: {scenario.title}"):
                runs.append(play(topology, scenario, Path(scratch, str(number)), family))
    show(console, runs)
    if record is not None:
        save(console, record, "nfmailguard lab demo")
    if page is not None:
        report(page, runs)
    return 0 if all(run.delivered for run in runs) else 1


def main(record: Path | None = None, family: int = 4, page: Path | None = None, profiles: Sequence[str] = ()) -> int:
    """Runs the demo in namespaces of its own; its exit code, 1 when a mail was not delivered.

    ``record`` is written as SVG, HTML or text, by its suffix, ``page`` as a page of both sides; ``profiles``: without a
    gateway and with each of these enforced, instead of the usual four. Raises LabError where no namespaces can be made,
    ConfigError for a file of another kind or an unknown profile.
    """
    scenarios = chosen(profiles)
    if not inside():
        return run_private([sys.executable, "-m", "nfmailguard", *sys.argv[1:]])
    enter_private()
    try:
        return demonstrate(record, family, page, scenarios)
    except KeyboardInterrupt:
        return 130
