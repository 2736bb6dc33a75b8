"""``bench``: what inspection costs on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfmailguard.cli.common import cli, echo, options

if TYPE_CHECKING:
    from nfmailguard.bench.results import Benchmark, Report

__all__: list[str] = []

Measure = Callable[[int], "list[Benchmark]"]
TOLERANCE = 0.1
#: Width in columns of the output when it does not go to a terminal.
WIDTH = 180
output_options = options(
    click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                 help="Every value of every round."),
    click.option("--plot", "plots", type=click.Path(path_type=Path), metavar="FILE",
                 help="A picture, .png or .svg by its name; without a suffix, a folder of both."),
    click.option("--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                 help="One page with figures, pictures and the machine's facts."),
    click.option("--compare", "old", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="OLD.json",
                 help=f"Exit with 1 where a ratio is worse than in OLD by more than {TOLERANCE:.0%}."),
)  # fmt: skip
rounds_option = click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Pairs of each.")


@cli.group()
def bench() -> None:
    """Measure what inspection costs here, compared with no inspection and with Suricata.

    Each configuration is run alternately, and compared with its neighbour in time. Figures are medians with their
    range; "x 0.97" is 97 % of what stands beside it. All but `engine`, `flows` and `attach` make network namespaces,
    and need root; `queue` needs Postfix's smtp-source. A round of `engine` takes some ten seconds, of `all` minutes.

    \b
      nfmailguard bench engine                        no root, some minutes
      nfmailguard bench all --html bench.html         everything, and the targets
      nfmailguard bench attach --queue 0 --seconds 60 this machine, under a load from outside
    """


def tell(text: str) -> None:
    """Prints progress on standard error, apart from the figures."""
    echo(text, err=True)


def gathered(found: list[Benchmark], *, judged: bool = False) -> Report:
    """A report with the present time and machine; ``judged``: with the targets."""
    import time

    from nfmailguard import __version__
    from nfmailguard.bench.machine import facts
    from nfmailguard.bench.results import Report
    from nfmailguard.bench.targets import answers

    report = Report(__version__, time.strftime("%Y-%m-%d %H:%M %z"), facts(), found)
    report.answers = answers(report) if judged else []
    return report


def finish(
    report: Report,
    *,
    json_path: Path | None,
    plots: Path | None,
    html_path: Path | None,
    old: Path | None,
) -> int:
    """Shows and writes what was found; the exit code."""
    from nfmailguard.bench import report as shown
    from nfmailguard.bench.results import compare, load, save
    from nfmailguard.reports.console import Console

    found = report.benchmarks
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for one in found:
        shown.show(one, console)
    if report.answers:
        shown.show_answers(report.answers, console)
    if json_path:
        save(report, json_path)
    if plots:
        shown.write_plots(report, plots)
    if html_path:
        shown.write_page(report, html_path)
    worse = compare(load(old), report, TOLERANCE) if old else []
    for line in worse:
        echo(f"worse: {line}")
    if old and not worse:
        echo(f"no ratio is worse than in {old}")
    return int(bool(worse))


def command(name: str, summary: str) -> Callable[[Measure], Measure]:
    """Makes a command of a benchmark: its number of rounds, and what is done with the figures."""

    def decorate(measure: Measure) -> Measure:
        @bench.command(name, help=summary)
        @rounds_option
        @output_options
        @click.pass_context
        def run(context: click.Context, /, rounds: int, **output: Any) -> None:
            context.exit(finish(gathered(measure(rounds), judged=name == "all"), **output))

        return measure

    return decorate


@command("engine", "Packets a second from memory and from a capture file, by kind of traffic.")
def _engine(rounds: int) -> list[Benchmark]:
    from nfmailguard.bench import engine

    found = engine.engine(rounds, tell)
    engine.instructions(found, tell)
    return [found, engine.files(rounds, tell)]


@command("flows", "Cost of a packet and size of a flow, with a thousand to a million of them.")
def _flows(rounds: int) -> list[Benchmark]:
    from nfmailguard.bench.flows import flows

    return [flows(rounds, tell)]


@command("queue", "Mails and packets a second through a real queue; what each setting does (root).")
def _queue(rounds: int) -> list[Benchmark]:
    from nfmailguard.bench import queue

    few = max(1, rounds // 3)
    return [queue.queue(rounds, tell), queue.flood(few, tell), queue.sweeps(few, tell)]


@command("latency", "Round trips of a command, with and without bulk mail beside (root).")
def _latency(rounds: int) -> list[Benchmark]:
    from nfmailguard.bench.latency import latency

    return [latency(rounds, tell)]


@command("start", "Start to first packet, memory, and losses with a small socket buffer (root).")
def _start(rounds: int) -> list[Benchmark]:
    from nfmailguard.bench import start

    return [start.start(rounds, tell), start.unprivileged(rounds, tell)]


@command("all", "All of them, and each target with its figure and yes or no (root; half an hour).")
def _all(rounds: int) -> list[Benchmark]:
    from nfmailguard.errors import BenchError

    found: list[Benchmark] = []
    for part in (_engine, _flows, _start, _latency, _queue):
        try:
            found += part(rounds)
        except BenchError as error:  # A benchmark that fails is reported, and the others are still run.
            tell(f"nfmailguard: {error}")
    return found


@bench.command("attach")
@click.option("--queue", "number", type=click.IntRange(0, 0xFFFF), default=0, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=10.0, show_default=True)
@output_options
@click.pass_context
def _attach(context: click.Context, /, number: int, seconds: float, **output: Any) -> None:
    """Watch a queue of this machine while a load comes from outside: rate, CPU, depth, losses.

    For real network cards: start the gateway, send mail through it from other machines, and
    let this look on. It changes nothing. The reader may be nfmailguard or anything else.
    """
    from nfmailguard.bench.attach import attach

    context.exit(finish(gathered([attach(number, seconds, tell)]), **output))


@bench.command("report")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json")
@output_options
@click.pass_context
def _report(context: click.Context, /, path: Path, **output: Any) -> None:
    """Show, draw or compare what `--json` kept."""
    from nfmailguard.bench.results import load

    context.exit(finish(load(path), **output))
