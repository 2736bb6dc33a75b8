"""The page of ``report``: what enforcing would break, on a terminal and as one HTML file.

Promises: the HTML is self-contained, and all text in it is escaped. Does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from rich.table import Table

from nfmailguard.events.outlook import LOST, Outlook
from nfmailguard.plain import printable
from nfmailguard.reports.console import Console

__all__ = ["as_json", "html", "render"]

MOST_SENDERS = 15
#: What can be done about each service that would be lost.
REMEDIES = {
    "STARTTLS": "a profile that lets TLS through: asa-tls",
    "AUTH": 'submission on a port or to an address of its own: [[rule]] mode = "monitor"',
    "CHUNKING": "clients go on with DATA",
    "8BITMIME": "clients encode: longer messages, no loss",
}
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#1c2733;background:#fff}
h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:1.6em 0 .3em}p{margin:.3em 0}
.figures{display:flex;gap:1em;flex-wrap:wrap;margin:1em 0}.figures div{background:#f1f4f7;border-radius:6px;
padding:.6em 1.1em}
.figures b{display:block;font-size:1.6em}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3em .6em;border-bottom:1px solid #dde3e9}td.n,th.n{text-align:right;font-variant-numeric:
tabular-nums}.bar{background:#c9553d;height:.7em;border-radius:2px}.dim{color:#66737f}
@media(prefers-color-scheme:dark){body{background:#14191f;color:#dce3ea}.figures div{background:#222a33}
th,td{border-color:#333d48}.dim{color:#93a1ae}}
""".strip()


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _figures(found: Outlook) -> list[tuple[str, str]]:
    return [
        ("sessions", f"{found.sessions:,}"),
        ("would change", f"{found.changed:,} ({_share(found.changed, found.sessions)})"),
        ("would lose TLS", f"{found.used['STARTTLS']:,}"),
        ("would be cut off", f"{found.cut:,}"),
        ("mails", f"{found.mails:,}"),
    ]


def _services(found: Outlook) -> Iterator[tuple[str, int, int, str]]:
    """For each service: name, sessions it would be hidden in, sessions that used it and would lose it, and a remedy."""
    if found.no_ehlo:
        yield "EHLO, and all it offers", found.no_ehlo, 0, "clients that insist on EHLO do not get through: profile asa"
    for name in {**found.hidden, **found.used}:
        if found.hidden[name] or found.used[name]:
            yield name, found.hidden[name], found.used[name], REMEDIES.get(name, "")


def _senders(found: Outlook) -> list[tuple[str, list[int]]]:
    most = sorted(found.senders.items(), key=lambda one: (-one[1].lost.total(), -one[1].changed, one[0]))
    return [
        (name, [sender.sessions, sender.changed, *(sender.lost[what] for what in LOST)])
        for name, sender in most[:MOST_SENDERS]
        if sender.changed
    ]


def _notes(found: Outlook) -> list[str]:
    notes = []
    if found.applied:
        notes.append(f"{found.applied:,} changes were made: the gateway enforced in this time")
    if found.unreadable:
        notes.append(f"{found.unreadable:,} lines were no events")
    affected = sum(sender.changed > 0 for sender in found.senders.values())
    if affected > MOST_SENDERS:
        notes.append(f"{affected - MOST_SENDERS:,} more senders are affected, less than these")
    return notes


def _span(found: Outlook) -> str:
    return (
        printable(f"{found.first[:19]} to {found.last[:19]}, {found.events:,} events") if found.events else "no events"
    )


def render(found: Outlook, console: Console) -> None:
    """The page on a terminal."""
    console.print(f"What enforcing would break: {_span(found)}", style="bold", markup=False, highlight=False)
    console.print("   ".join(f"{name}: {value}" for name, value in _figures(found)), markup=False, highlight=False)
    services = Table(
        "service", "hidden in sessions", "used there, and lost", "what to do", box=None, padding=(0, 2, 0, 0)
    )
    services.columns[1].justify = services.columns[2].justify = "right"
    for name, hidden, used, remedy in _services(found):
        services.add_row(name, f"{hidden:,}", f"{used:,}", remedy)
    senders = Table("sender", "sessions", "changed", *LOST, box=None, padding=(0, 2, 0, 0))
    for column in senders.columns[1:]:
        column.justify = "right"
    for name, numbers in _senders(found):
        senders.add_row(printable(name), *(f"{number:,}" if number else "." for number in numbers))
    for table in (services, senders):
        if table.row_count:
            console.print()
            console.print(table)
    for note in _notes(found):
        console.print(note, markup=False, highlight=False)


def html(found: Outlook) -> str:
    """The page as one file."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{hidden:,}</td><td class=n>{used:,}</td>"
        f"<td style='width:20%'><div class=bar style='width:{100 * max(hidden, used) / max(1, found.sessions):.1f}%'>"
        f"</div></td><td class=dim>{escape(remedy)}</td></tr>"
        for name, hidden, used, remedy in _services(found)
    )
    senders = "".join(
        f"<tr><td>{escape(printable(name))}</td>"
        + "".join(f"<td class=n>{number:,}</td>" if number else "<td class='n dim'>&middot;</td>" for number in numbers)
        + "</tr>"
        for name, numbers in _senders(found)
    )
    heads = "".join(f"<th class=n>{escape(what)}</th>" for what in ("sessions", "changed", *LOST))
    figures = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in _figures(found))
    notes = "".join(f"<p class=dim>{escape(note)}</p>" for note in _notes(found))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>nfmailguard: what enforcing would break</title><style>{STYLE}</style>"
        f"<h1>What enforcing would break</h1><p class=dim>{escape(_span(found))}</p><div class=figures>{figures}</div>"
        "<h2>Services</h2><table><tr><th>service<th class=n>hidden in sessions<th class=n>used there, and lost<th>"
        f"<th>what to do</tr>{rows}</table>"
        f"<h2>Senders</h2><table><tr><th>sender</th>{heads}</tr>{senders}</table>{notes}</html>\n"
    )


def as_json(found: Outlook) -> dict[str, Any]:
    """Everything that was counted, all senders."""
    return {
        "first": found.first,
        "last": found.last,
        "events": found.events,
        "unreadable": found.unreadable,
        "sessions": found.sessions,
        "changed": found.changed,
        "mails": found.mails,
        "cut_off": found.cut,
        "no_ehlo": found.no_ehlo,
        "hidden": {name: count for name, count in found.hidden.items() if count},
        "lost": dict(found.used),
        "findings": dict(found.findings.most_common()),
        "senders": {
            name: {"sessions": one.sessions, "changed": one.changed, **one.lost} for name, one in found.senders.items()
        },
    }
