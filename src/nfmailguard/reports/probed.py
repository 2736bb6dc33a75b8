"""Output of ``probe`` and ``diagnose``."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nfmailguard.plain import block, printable
from nfmailguard.probe.traces import Trace, Traces
from nfmailguard.probe.verdict import Verdict

__all__ = ["render", "render_traces"]


def render(verdict: Verdict, message: str, console: Console) -> None:
    """The verdict in a line, the reasons, what it means, and the message to the firewall's owner."""
    _render_one(verdict, console)
    for other in verdict.others:
        _render_one(other, console)
    if message:
        console.print("\nTo the owner of that firewall:\n", style="bold")
        console.print(message, markup=False, highlight=False, soft_wrap=True, end="")


def _render_one(verdict: Verdict, console: Console) -> None:
    address = f" [{verdict.address}]" if verdict.address not in ("", verdict.host) else ""
    where = f"{verdict.host}{address} port {verdict.port}"
    if verdict.found is None:
        console.print(Text(f"{where}: could not tell", style="bold yellow"))
    elif not verdict.found:
        doubt = "" if verdict.sure == "high" else f", certainty {verdict.sure}"
        console.print(Text(f"{where}: nothing found", style="bold green") + Text(doubt))
    else:
        console.print(Text(f"{where}: {verdict.family}", style="bold red") + Text(f", certainty {verdict.sure}"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    tls = {"stripped": "STARTTLS was stripped on the way", "absent": "STARTTLS is not offered"}
    rows = {
        "seen": "\n".join(verdict.evidence),
        "TLS": tls.get(verdict.tls or "", "") if verdict.found is not False else "",
        "profiles": ", ".join(verdict.candidates),
        "odd": f"the server answers otherwise than expected: {', '.join(verdict.conflicts)}"
        if verdict.conflicts
        else "",
        "breaks": ", ".join(verdict.breaks),
        "restore": verdict.restore,
        "whose": verdict.where,
    }
    if verdict.found and (verdict.sure == "low" or len(verdict.families) > 1):
        rows |= {f"on {family.product}": "\n".join(family.off) for family in verdict.families if family.off}
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(block(value)))
    if table.row_count:
        console.print(table)


#: Sentences that say which peers of the log show a trace, and on which side of the path the firewall therefore is.
_SIDES = {
    "yours": "{all_} of them in the log ({with_} of {seen}) show it: the box is on your side of the path",
    "theirs": "{with_} of {seen} in the log show it: the box is on their side ({peers})",
}
_SOME = "{with_} of {seen} in the log show it: that does not tell on whose side the box is"
_ALONE = "only {peers} is in the log: it does not tell on whose side the box is"


def _where(trace: Trace) -> str:
    if trace.kind == "firewall-log":
        return "the log is that of your own firewall"
    peers = ", ".join(trace.peers[:5]) + (", ..." if len(trace.peers) > 5 else "")
    if trace.side in _SIDES:
        all_ = "all" if trace.peers_with == trace.peers_seen else "nearly all"
        return _SIDES[trace.side].format(with_=trace.peers_with, seen=trace.peers_seen, peers=peers, all_=all_)
    if trace.peers_seen > 1:
        return _SOME.format(with_=trace.peers_with, seen=trace.peers_seen)
    return _ALONE.format(peers=peers) if peers else ""


def render_traces(found: Traces, console: Console) -> None:
    """Each trace with where it was found and on whose side the firewall is; or that there are none."""
    if not found.traces:
        text = "no trace of a Mailguard" if found.of_mail else "tells nothing of mail"
        if found.events:
            text = "events of nfmailguard itself: read them with `nfmailguard report` or `nfmailguard transcript`"
        console.print(f"{found.file}: {text}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("trace", "times", "first seen", "what stands there"):
        table.add_column(title, overflow="fold")
    for trace in found.traces:
        meaning = trace.meaning if trace.sure else f"{trace.meaning} (may have other causes)"
        cells = (meaning, str(trace.count), trace.first, trace.shown)
        table.add_row(*(Text(printable(text)) for text in cells))
    console.print(table)
    for trace in found.traces:
        last = f"last seen: {trace.last}" if trace.count > 1 and trace.last != trace.first else ""
        said = [_where(trace), last, *(f"{what}: {count}" for what, count in trace.details.items()), trace.advice]
        for text in filter(None, said):
            console.print(f"{trace.kind}: {text}", markup=False, highlight=False, soft_wrap=True)
    if found.exit_code == 3:
        console.print("None of this is sure; `nfmailguard probe HOST` asks the path itself.", highlight=False)
    else:
        console.print("`nfmailguard probe HOST` names the box, and what its owner can do.", highlight=False)
