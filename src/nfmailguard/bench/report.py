"""Shows a report: text for a terminal, a plot per benchmark, and one page with everything.

Promises: the page is one file, complete without the network. Does not measure.
"""

from __future__ import annotations

import base64
import html
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nfmailguard.bench.results import Answer, Benchmark, Report, spread
from nfmailguard.errors import BenchError
from nfmailguard.reports.console import Console

__all__ = ["page", "plot", "show", "show_answers", "write_page", "write_plots"]

#: Colours of the bars: nfmailguard blue, cases that do no work grey, other programs orange.
OURS, IDLE, PEER = "#2f6f9f", "#9a9a9a", "#d9822b"
DIGITS = {"million/s": 2, "Gbit/s": 1, "ns a packet": 0, "mails/s": 0, "MB/s": 0, "us": 0, "s": 2}
#: Terminal width in columns that is needed to show every range.
WIDE = 150
MET = {True: "yes", False: "no", None: "not measured"}
NOISY = "too noisy to say"


def digits(unit: str) -> int:
    """Number of digits after the decimal point."""
    return DIGITS.get(unit, 1 if "us" in unit or "switches" in unit else 0)


def colour(case: str) -> str:
    """The colour of a case's bar, by whose program it is."""
    if case.startswith(("enforce", "monitor", "restore", "replay", "nfmailguard")):
        return OURS
    idle = ("copy", "no queue", "accept-all", "as it is", "libpcap", "no GSO", "batch", "busy", "length")
    return IDLE if case.startswith(idle) else PEER


def _rows(found: Benchmark, group: str, *, brief: bool = False) -> Iterator[list[str]]:
    # `brief`: show ranges only for the first figure and for the ratio.
    for case, figures in found.groups[group].items():
        row = [case]
        for figure, unit in found.units.items():
            values = figures.get(figure)
            if values and brief and figure != found.figure:
                values = [statistics.median(values)]
            row.append(spread(values).text(digits(unit)) if values else "")
        ratios = found.ratios(group, case) if case != found.base else []
        yield [*row, f"x {spread(ratios).text(2)}" if ratios else ""]


def _heads(found: Benchmark) -> list[str]:
    heads = [unit if figure == "rate" else f"{figure}, {unit}" for figure, unit in found.units.items()]
    return ["", *heads, f"of {found.base}" if len(found.cases()) > 1 else ""]


def show(found: Benchmark, console: Console) -> None:
    """Every value as median and range."""
    console.print(f"\n{found.title}", style="bold", markup=False, highlight=False)
    for group in found.groups:
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        heads = _heads(found)
        table.add_column(group, no_wrap=True)
        for head in heads[1:]:
            table.add_column(head, justify="right", overflow="fold")
        for row in _rows(found, group, brief=console.width < WIDE):
            table.add_row(*row)
        console.print(table)
    for note in found.notes:
        console.print(note, style="dim", markup=False, highlight=False)


def met(answer: Answer) -> str:
    """Yes, no, or why neither can be said."""
    return NOISY if answer.noisy else MET[answer.met]


def closing(answers: list[Answer]) -> str:
    """A sentence about all answers together."""
    kept, missed, noisy = (
        sum(test(one) for one in answers)
        for test in (lambda one: one.met is True, lambda one: one.met is False, lambda one: one.noisy)
    )
    rest = len(answers) - kept - missed - noisy
    parts = [f"{kept} of {len(answers)} targets are met, {missed} are missed"]
    parts += [f"{noisy} cannot be told: the rounds differ too much; repeat on a quiet machine"] if noisy else []
    parts += [f"{rest} were not measured here"] if rest else []
    return f"{'; '.join(parts)}."


def show_answers(answers: list[Answer], console: Console) -> None:
    """The targets, each with yes or no."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, title="Targets")
    for head in ("", "target", "found", "met"):
        table.add_column(head, overflow="fold")
    for answer in answers:
        style = {True: "green", False: "bold red", None: "dim"}[answer.met]
        table.add_row(answer.number, answer.target, answer.found, met(answer), style=style)
    console.print(table)
    console.print(closing(answers), highlight=False)


def _rooms(found: Benchmark) -> dict[str, float]:
    """The length of each panel's axis, by the cases that do work; panels within a factor of ten share one scale."""
    rooms = {}
    for group, cases in found.groups.items():
        ends = {case: max(values) for case in cases if (values := found.values(group, case))}
        working = [end for case, end in ends.items() if colour(case) != IDLE]
        rooms[group] = max(working or ends.values(), default=1) or 1
    widest = max(rooms.values(), default=1)
    return {group: widest if room * 10 >= widest else room for group, room in rooms.items()}


def plot(found: Benchmark) -> Any:
    """A figure of matplotlib: bars of medians with their ranges, one panel per group. Raises BenchError without
    matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BenchError("bench: plots need matplotlib: pip install 'nfmailguard[bench]'") from error
    groups = list(found.groups)
    # The panels are stacked vertically, because the names of the cases are long.
    heights = [max(1.1, 0.34 * len(found.groups[group]) + 0.75) for group in groups]
    figure = Figure(figsize=(9, sum(heights) + 0.7), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    unit, rooms = found.units[found.figure], _rooms(found)
    for panel, group in zip(panels[:, 0], groups, strict=True):
        cases = [case for case in found.groups[group] if found.values(group, case)]
        spreads = [spread(found.values(group, case)) for case in cases]
        errors = [[one.median - one.least for one in spreads], [one.most - one.median for one in spreads]]
        medians = [one.median for one in spreads]
        panel.barh(cases, medians, color=[colour(case) for case in cases], xerr=errors, ecolor="#444444", capsize=2)
        panel.invert_yaxis()
        panel.set_title(group, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
        room = rooms[group]
        panel.set_xlim(0, room * 1.22)
        panel.set_xlabel(unit, fontsize=8)
        for place, one in enumerate(spreads):
            ratios = found.ratios(group, cases[place])
            times = f"  x {statistics.median(ratios):.2f}" if ratios and cases[place] != found.base else ""
            cut = "» " if one.median > room * 1.05 else ""  # Mark of a bar that extends beyond the panel.
            said = f"{cut}{one.median:,.{digits(unit)}f}{times}"
            panel.text(
                (one.most if one.most < room * 1.1 else room) + room * 0.01, place, said, va="center", fontsize=8
            )
    panels[-1, 0].set_xlabel(f"{unit}, {'more' if found.more else 'less'} is better", fontsize=9)
    figure.suptitle(found.title, fontsize=11, x=0.01, ha="left")
    return figure


def write_plots(report: Report, target: Path) -> list[Path]:
    """Writes a picture of each benchmark.

    ``target`` with a suffix: that picture, or STEM-NAME if there are several; without: a folder with ``NAME.png`` and
    ``NAME.svg``. Raises BenchError.
    """
    written = []
    several = len(report.benchmarks) > 1
    try:
        if not target.suffix:
            target.mkdir(parents=True, exist_ok=True)
        for found in report.benchmarks:
            figure = plot(found)
            paths = [target.with_stem(f"{target.stem}-{found.name}") if several else target]
            if not target.suffix:
                paths = [target / f"{found.name}.{kind}" for kind in ("png", "svg")]
            for path in paths:
                figure.savefig(path, dpi=130)
            written += paths
    except OSError as error:
        raise BenchError(f"{error.filename or target}: cannot write: {error.strerror}") from error
    except ValueError as error:  # ValueError: matplotlib does not know the file name's suffix.
        raise BenchError(f"{target}: {error}") from error
    return written


def write_page(report: Report, path: Path) -> None:
    """``page`` into a file. Raises BenchError."""
    try:
        path.write_text(page(report))
    except OSError as error:
        raise BenchError(f"{path}: cannot write: {error.strerror}") from error


HOW = (
    "Every figure is a median, its range in brackets. Candidates take turns within a round, and ratios pair"
    " values of the same round: machines wander, ratios do not."
)
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 68em; margin: 2em auto; padding: 0 1em; color: #222 }
h1, h2 { line-height: 1.2 } img { max-width: 100% } table { border-collapse: collapse; font-size: 13px; margin: 1em 0 }
th, td { padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th:first-child, td:first-child, .text td, .text th { text-align: left } .yes { color: #1a7a3c } .no { color: #b3261e;
font-weight: bold } .none { color: #666 } p.note { color: #555; font-size: 13px }
@media (prefers-color-scheme: dark) { body { background: #14191f; color: #dce3ea } th, td { border-color: #39434d }
.yes { color: #7fd6a4 } .no { color: #ff9aa8 } .none, p.note { color: #a3b0bc } img { background: #fff } }"""


def _table(heads: list[str], rows: list[list[str]], kind: str = "") -> str:
    def cells(tag: str, texts: list[str]) -> str:
        return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{cells("th", heads)}</tr>{body}</table>'


def _answers(answers: list[Answer]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(one.number)}</td><td>{html.escape(one.target)}</td><td>{html.escape(one.found)}</td>"
        f'<td class="{"none" if one.met is None else MET[one.met]}">{met(one)}</td></tr>'
        for one in answers
    )
    return f'<table class="text"><tr><th></th><th>target</th><th>found</th><th>met</th></tr>{rows}</table>'


def page(report: Report) -> str:
    """The whole report as HTML, pictures included."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>nfmailguard bench</title><style>{STYLE}</style>",
        f"<h1>nfmailguard {html.escape(report.version)}: benchmarks</h1><p>{html.escape(report.date)}</p>",
        _table(["machine", ""], [list(pair) for pair in report.machine.items()], "text"),
        f"<p>{HOW}</p>",
    ]
    if report.answers:
        parts += ["<h2>Targets</h2>", f"<p>{html.escape(closing(report.answers))}</p>", _answers(report.answers)]
    for found in report.benchmarks:
        picture = io.BytesIO()
        plot(found).savefig(picture, format="svg")
        data = base64.b64encode(picture.getvalue()).decode()
        parts += [f"<h2>{html.escape(found.name)}</h2>", f'<img alt="{html.escape(found.title)}" ']
        parts[-1] += f'src="data:image/svg+xml;base64,{data}">'
        for group in found.groups:
            parts.append(_table([group, *_heads(found)[1:]], list(_rows(found, group))))
        parts += [f'<p class="note">{html.escape(note)}</p>' for note in found.notes]
    return "\n".join(parts) + "\n"
