"""``lab evade``: tries techniques to evade an inline filter, live against a running gateway, and prints a table.

Promises: the outcome is judged by what a real kernel delivered to a server (lab/oracle.py); exit code 1 if a technique
got past or an honest mail was affected, 3 if one could not be tried. Does not know the techniques, nor how the gateway
decides.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nfmailguard import config
from nfmailguard.errors import ConfigError
from nfmailguard.lab.evasions import TECHNIQUES
from nfmailguard.lab.evasions.technique import Technique
from nfmailguard.lab.namespaces import enter_private, inside, run_private
from nfmailguard.lab.readers import SERVERS
from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.testbed import DROPPED, GOT_PAST, HELD, MASKED, NO_EFFECT, NOT_TRIED, RESET, Testbed, Trial
from nfmailguard.lab.topology import Topology
from nfmailguard.plain import json_safe
from nfmailguard.policy.model import Policy
from nfmailguard.reports.console import Console, save

__all__ = ["Choice", "Result", "chosen", "main", "show_list"]

SHOWN = 56
#: A CRLF as it is shown in the table of results.
CRLF = "\\r\\n"
#: Longest command line or answer that is shown, in characters.
LONGEST = 160
#: Number of topologies used in parallel; a technique spends most of its time waiting to see that nothing arrives.
LANES = 3
#: Most techniques that are tried one after the other through the same gateway process.
GROUP = 30
STYLES = {GOT_PAST: "bold red", NOT_TRIED: "bold yellow", NO_EFFECT: "dim"}
#: How it was judged whether a technique got past the gateway: by a real server's own log (False) or by the recorder
#: (True).
JUDGED = {
    False: "Got past is what the server's own log has as a command line and the profile denies, or what the client was"
    " not to hear. `read`: its last command line; `said`: its answer. An honest mail had to arrive beside each.",
    True: "Got past is a denied verb that any server could read in the octets its kernel delivered where it read"
    " commands, an end of data that only some see, or what the client was not to hear. `read`: the last command line;"
    " `said`: the answer. An honest mail had to arrive beside each, octet for octet both ways.",
}
OUTCOMES = (GOT_PAST, RESET, MASKED, HELD, DROPPED, NO_EFFECT, NOT_TRIED)


class Choice(NamedTuple):
    """The gateway to be tried, and the techniques."""

    mode: str = "enforce"
    profile: str = "pix63"
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    family: int = 4
    #: Value of net.ipv4.tcp_syncookies on the server.
    cookies: int = 1
    #: Only techniques whose name contains this text are tried; empty: all.
    like: str = ""
    #: Name of the server used: one of SERVERS in lab/readers.py.
    server: str = SERVERS[0]

    def options(self) -> list[str]:
        """The options for ``nfmailguard run``."""
        return [
            "--mode",
            self.mode,
            "--profile",
            self.profile,
            *chain.from_iterable(("--set", text) for text in self.overrides),
        ]


class Result(NamedTuple):
    """One row of the table."""

    name: str
    kind: str
    why: str
    outcome: str
    received: str
    faults: tuple[str, ...]
    findings: tuple[str, ...]
    control_mail: str
    #: For each connection: the lines the server read as commands, and its answer to each.
    dialogues: tuple[tuple[tuple[str, str], ...], ...] = ()
    notes: tuple[str, ...] = ()


def chosen(choice: Choice) -> list[Technique]:
    """The techniques to run, in the table's order. Raises ConfigError for an unknown name."""
    names = {technique.name for technique in TECHNIQUES}
    unknown = [name for name in choice.only if name not in names]
    if unknown:
        raise ConfigError(*(f"--only {name}: no such technique; `lab evade --list` has them" for name in unknown))
    found = [
        technique
        for technique in TECHNIQUES
        if choice.family in technique.families
        and (not choice.only or technique.name in choice.only)
        and choice.like in technique.name
        # Real servers do not listen for Multipath TCP, only the recorder does.
        and (technique.kind != "multipath" or choice.server == SERVERS[0])
    ]
    if not found:
        raise ConfigError("no technique is of all that; `lab evade --list` has them")
    return found


def evade(choice: Choice, progress: Callable[[int, int, str], None]) -> list[Result]:
    """Runs them inside private namespaces, on several topologies at once. ``progress``: number, total, name."""
    techniques = chosen(choice)
    place = {technique.name: number for number, technique in enumerate(techniques)}
    work = Work(choice, techniques, progress)
    lanes = min(LANES if choice.server == SERVERS[0] else 2, len(work.groups))
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, ThreadPoolExecutor(lanes) as pool:
        running = [pool.submit(work.lane, Path(scratch), number) for number in range(lanes)]
        try:
            results = [result for lane in running for result in lane.result()]
        except BaseException:
            work.stopped.set()
            raise
    return sorted(results, key=lambda result: place[result.name])


class Work:
    """The techniques in groups, each of which shares a gateway; worker threads take groups one by one."""

    def __init__(
        self, choice: Choice, techniques: Sequence[Technique], progress: Callable[[int, int, str], None]
    ) -> None:
        self.choice, self.progress = choice, progress
        self.count, self.done = len(techniques), 0
        # A technique that opens a connection before the gateway starts gets a gateway of its own.
        ordered = sorted(techniques, key=_gateway_of)
        alike = [list(group) for _, group in groupby(ordered, key=_gateway_of)]
        self.groups = [group[at : at + GROUP] for group in alike for at in range(0, len(group), GROUP)]
        self.stopped = threading.Event()
        self._left = deque(sorted(self.groups, key=len, reverse=True))
        self._lock = threading.Lock()

    def lane(self, scratch: Path, number: int) -> list[Result]:
        """Takes groups until none is left, on a topology of its own."""
        results: list[Result] = []
        with (
            Topology(f"{number}-") as topology,
            self._ground(topology, scratch / f"server-{number}") as ground,
        ):
            while not self.stopped.is_set():
                with self._lock:
                    if not self._left:
                        break
                    group = self._left.popleft()
                results += self._play(topology, ground, group, scratch / group[0].name)
        return results

    def _ground(self, topology: Topology, scratch: Path) -> Testbed:
        choice = self.choice
        return Testbed(topology, choice.family, choice.cookies, choice.server, scratch)

    def _play(self, topology: Topology, ground: Testbed, group: list[Technique], directory: Path) -> Iterator[Result]:
        options = [*self.choice.options(), *group[0].options]
        policy = _policy(options)
        attacks = [ground.attack(technique, policy) for technique in group]
        for technique, attack in zip(group, attacks, strict=True):
            if technique.before is not None:
                attack.early = technique.before(attack)
        trials = []
        with Gateway(topology, directory, *options) as gateway:
            for technique, attack in zip(group, attacks, strict=True):
                if self.stopped.is_set():
                    break
                self._tell(technique.name)
                trials.append(ground.play(technique, attack))
        events = gateway.events()
        for trial in trials:
            yield _result(trial, (one for one in events if {one["src_port"], one["dest_port"]} & trial.ports))

    def _tell(self, name: str) -> None:
        with self._lock:
            self.done += 1
            self.progress(self.done, self.count, name)


def _gateway_of(technique: Technique) -> tuple[str, ...]:
    return (*technique.options, technique.name if technique.before else "")


def _policy(options: Sequence[str]) -> Policy:
    """The policy of a gateway with these options."""
    pairs = list(pairwise(options))
    overrides = [value for flag, value in pairs if flag == "--set"]
    profile = [value for flag, value in pairs if flag == "--profile"][-1]
    return config.load(None, overrides, profile=profile).flow_rules()[-1].policy


def _result(trial: Trial, events: Iterable[dict[str, Any]]) -> Result:
    technique = trial.technique
    findings = dict.fromkeys(event["mailguard"]["finding"] for event in events)
    return Result(
        technique.name,
        technique.kind,
        technique.why,
        trial.outcome,
        repr(trial.received)[2:-1],
        trial.faults,
        tuple(findings),
        trial.control_mail,
        tuple(tuple((_readable(line), _readable(answer)) for line, answer in one) for one in trial.dialogues),
        trial.notes,
    )


def _readable(octets: bytes) -> str:
    text = repr(octets)[2:-1]
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def shown(octets: str) -> str:
    """The end of the received data; what came before it only leads up to it."""
    return octets if len(octets) <= SHOWN else "…" + octets[1 - SHOWN :]


def last_exchange(result: Result) -> Iterator[tuple[str, str]]:
    """The command the server read last, over all connections, and its answer."""
    for dialogue in reversed(result.dialogues):
        if dialogue:
            yield dialogue[-1]
            return


def table(results: Sequence[Result]) -> Table:
    """The table, one row per technique."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    made.add_column("technique", ratio=4, overflow="fold")
    made.add_column("received", ratio=4, overflow="fold")
    made.add_column("outcome", no_wrap=True)
    made.add_column("findings", ratio=2, overflow="fold")
    made.add_column("honest mail", max_width=11, overflow="fold")
    kind = ""
    for result in results:
        if result.kind != kind:
            kind = result.kind
            made.add_section()
            made.add_row(Text(kind, style="bold underline"))
        name = Text(result.name, style="bold")
        name.append(f"\n{result.why}", style="dim not bold")
        outcome = Text(result.outcome, style=STYLES.get(result.outcome, "green"))
        received = Text(shown(result.received))
        for line, answer in last_exchange(result):
            received.append(f"\nread: {shown(line)}\nsaid: {shown(answer.removesuffix(CRLF))}", style="dim")
        if result.faults:
            received.append(f"\n{result.faults[0]}", style="red")
        control_mail = Text(result.control_mail, style="green" if result.control_mail == "ok" else "bold red")
        # Every connection has the finding banner.masked, since every greeting is masked, so it is not shown.
        findings = [finding for finding in result.findings if finding != "banner.masked"]
        made.add_row(name, received, outcome, Text("\n".join(findings)), control_mail)
    return made


def closing_line(results: Sequence[Result]) -> str:
    """A sentence that sums up the results."""
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in OUTCOMES}
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == GOT_PAST]
    control_mail = sum(result.control_mail == "ok" for result in results)
    return (
        f"{len(results)} techniques: {', '.join(parts)}; honest mail beside them: {control_mail} of {len(results)} ok"
    )


def exit_code(results: Sequence[Result]) -> int:
    """0 nothing got past and no honest mail suffered, 1 otherwise, 3 when something could not be tried."""
    if any(result.outcome == GOT_PAST or result.control_mail != "ok" for result in results):
        return 1
    return 3 if any(result.outcome == NOT_TRIED for result in results) else 0


def show(console: Console, choice: Choice, results: Sequence[Result]) -> None:
    """Prints the table and its summary."""
    console.print(
        "[bold]Ways round an inline filter[/], sent as live packets through `nfmailguard run "
        f"{escape(' '.join(choice.options()))}` over IPv{choice.family}, the server {choice.server} with tcp_syncookies"
        f" {choice.cookies}.\n{JUDGED[choice.server == SERVERS[0]]}",
        highlight=False,
    )
    console.print(table(results))
    style = "bold red" if exit_code(results) else "bold green"
    console.print(Text(closing_line(results), style=style))


def show_list(console: Console) -> None:
    """Prints every technique with what it exploits."""
    width = max(len(technique.name) for technique in TECHNIQUES)
    for kind, group in groupby(TECHNIQUES, key=lambda technique: technique.kind):
        console.print(f"[bold]{kind}[/]")
        for technique in group:
            note = "" if technique.families == (4, 6) else f" (IPv{technique.families[0]})"
            text = textwrap.fill(
                technique.why + note,
                max(console.width, width + 40),
                initial_indent=f"  {technique.name:{width}}  ",
                subsequent_indent=" " * (width + 4),
            )
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def _progress(console: Console, status: Any) -> Callable[[int, int, str], None]:
    # On a terminal the progress line is updated in place; elsewhere a plain line is printed now and then.
    def tell(number: int, count: int, name: str) -> None:
        if console.is_terminal:
            status.update(f"{number} of {count}: {name}")
        elif number % 20 == 1 or number == count:
            console.print(f"{number} of {count}: {name}", highlight=False)

    return tell


def main(choice: Choice, record: Path | None = None, *, as_json: bool = False) -> int:
    """Runs the techniques in namespaces of their own; the exit code.

    ``record``: also written, as SVG, HTML or text by its suffix. Raises LabError where no namespaces can be made,
    ConfigError for what cannot be run.
    """
    chosen(choice)
    config.load(None, choice.overrides, mode=choice.mode, profile=choice.profile)
    if not inside():
        return run_private([sys.executable, "-m", "nfmailguard", *sys.argv[1:]])
    enter_private()
    aside = Console(stderr=True)
    try:
        with aside.status("starting") as status:
            results = evade(choice, _progress(aside, status))
    except KeyboardInterrupt:
        return 130
    if as_json:
        import msgspec

        rows = [result._asdict() for result in results]
        sys.stdout.write(json_safe(msgspec.json.format(msgspec.json.encode(rows), indent=2)).decode() + "\n")
    if not as_json or record is not None:
        console = Console(record=record is not None, quiet=as_json)
        show(console, choice, results)
        if record is not None:
            save(console, record, "nfmailguard lab evade")
    return exit_code(results)
