"""``lab restore``: a firewall's profile between two restoring gateways, on one path: what is put right, what stays.

    client ── before (restore, client) ── firewall (enforce) ── behind (restore, server) ── server

Promises: real mail over real sockets and three real queues; what was damaged, restored and left is counted
by comparing both ends, and held against what the reference model says each of the three does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from nfmailguard.lab.clients import Client, Exchange
from nfmailguard.lab.demo import Run, Scenario, Step, dialogue, pair
from nfmailguard.lab.namespaces import enter_private, inside, run_private
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import CLIENT, SERVER, Topology
from nfmailguard.plain import json_safe
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.policy.model import Offer, Policy, Restore, RestoreScope, RestoreSide
from nfmailguard.reports import pages
from nfmailguard.reports.console import Console, save
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn

__all__ = ["BEFORE", "BEHIND", "FIREWALL", "Outcome", "compare", "main"]

BEFORE, FIREWALL, BEHIND = "before", "firewall", "behind"
MAIL = (
    b"From: alice@example.net\r\nTo: bob@example.com\r\nSubject: Caf\xc3\xa9\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"EHLO in a message is text, XXXX too. \xe2\x82\xac\r\n"
)
#: Extensions that mail software uses if the server offers them (RFC 1870, 6152, 3461).
WANTED = ("SIZE", "8BITMIME", "DSN")
HEADS = ("profile", "EHLO", "commands", "replies", "else", "mail", "with", "left")


@dataclass(frozen=True)
class Direction:
    """Bytes on their way to one end: ``damaged`` by the firewall, ``left`` damaged, changed ``otherwise``.

    ``expected``: what the model of the three gateways leaves damaged; it must equal ``left``.
    """

    damaged: int
    left: int
    otherwise: int
    expected: bool


@dataclass(frozen=True)
class Outcome:
    """The outcome for one profile."""

    profile: str
    ehlo: bool
    extensions: tuple[str, ...]
    commands: Direction
    replies: Direction
    delivered: bool
    not_recoverable: tuple[str, ...]

    @property
    def good(self) -> bool:
        """True if everything recognisable is restored, nothing else has changed, and mail uses the extensions."""
        sides = (self.commands, self.replies)
        whole = not any(side.otherwise for side in sides) and all(side.expected for side in sides)
        return whole and self.delivered and (not self.ehlo or self.extensions == WANTED)


def converse(address: str) -> tuple[list[Exchange], bool, tuple[str, ...]]:
    """Sends a mail using all offered extensions of WANTED; the record, whether EHLO was accepted, what was offered."""
    with Client(address) as client:
        ehlo = client.hello("client.example.net")
        reply = client.exchanges[1].read.decode("latin-1").upper()
        words = {line[4:].split(" ")[0] for line in reply.splitlines()[1:]} if ehlo else set()
        offered = tuple(word for word in WANTED if word in words)
        client.command("VRFY postmaster")
        size = f" SIZE={len(MAIL)}" if "SIZE" in offered else ""
        body = " BODY=8BITMIME" if "8BITMIME" in offered else ""
        client.command(f"MAIL FROM:<alice@example.net>{size}{body}" + " RET=HDRS ENVID=c0ffee" * ("DSN" in offered))
        client.command("RCPT TO:<bob@example.com>" + " NOTIFY=SUCCESS" * ("DSN" in offered))
        client.message(MAIL)
        client.command("HELP")
        client.command("QUIT")
        return client.exchanges, ehlo, offered


def learn(address: str) -> Offer:
    """What the server sends if nothing is masked."""
    with Client(address) as client:
        client.hello("learner.example.net")
        client.command("QUIT")
        greeting, reply = (exchange.read.decode("latin-1") for exchange in client.exchanges[:2])
    return Offer((), tuple(line[4:] for line in reply.splitlines()[1:]), greeting[4:].rstrip())


def _turns(exchanges: Sequence[tuple[bytes, bytes]]) -> list[Turn]:
    # Within an exchange the server's part comes after the client's; the greeting is an exchange in which the client's
    # part is empty.
    pairs = [(Turn(True, sent), Turn(False, said)) for sent, said in exchanges]
    return [turn for both in pairs for turn in both if turn.data]


def _through(turns: Sequence[Turn], after: Sequence[Turn], to_server: bool) -> list[Turn]:
    """``turns`` with one direction as it came out of a gateway."""
    return [new if old.to_server is to_server else old for old, new in zip(turns, after, strict=True)]


def _stream(turns: Sequence[Turn], to_server: bool) -> bytes:
    return b"".join(turn.data for turn in turns if turn.to_server is to_server)


def _places(before: bytes, after: bytes) -> set[int]:
    if len(before) != len(after):
        return set(range(max(len(before), len(after))))
    return {place for place, octets in enumerate(zip(before, after, strict=True)) if octets[0] != octets[1]}


def judge(
    policy: Policy, offer: Offer, exchanges: Sequence[tuple[bytes, bytes]], ends: tuple[bytes, bytes]
) -> Iterator[Direction]:
    """First commands, then replies: ``exchanges`` as both sides sent them, ``ends`` what server and client read."""
    said = _turns(exchanges)
    masked = translate(policy, said).turns
    for to_server, side, read in ((True, RestoreSide.SERVER, ends[0]), (False, RestoreSide.CLIENT, ends[1])):
        came = _through(said, masked, to_server)
        restored = translate(policy, came, restore=restoring(side, offer)).turns
        true, seen = _stream(said, to_server), _stream(restored, to_server)
        damaged, left = _places(true, _stream(came, to_server)), _places(true, read)
        yield Direction(len(damaged), len(left), len(left - damaged), left == _places(true, seen))


def restoring(side: RestoreSide, offer: Offer) -> Restore:
    return Restore(side, RestoreScope.ALL, starttls=True, offers=(offer,))


def _options(profile: str, side: RestoreSide, offer: Offer, directory: Path) -> list[str]:
    # A server's texts may contain commas, so they are passed in a configuration file instead of with --set.
    path = directory / f"{side}.toml"
    keywords, banner = (msgspec.json.encode(value).decode() for value in (offer.keywords, offer.banner))
    path.write_text(
        f'[restore]\nside = "{side}"\nscope = "all"\nstarttls = true\nkeywords = {keywords}\nbanner = {banner}\n'
    )
    return ["-c", str(path), "--mode", "restore", "--profile", profile]


def compare(
    topology: Topology,
    profile: str,
    directory: Path,
    family: int = 4,
    watch: Callable[[list[Step]], None] | None = None,
) -> Outcome:
    """Runs one profile on hosts of its own; ``topology`` has the gateways BEFORE, FIREWALL and BEHIND.

    ``watch`` is called with what both ends sent and read.
    """
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        server = stack.enter_context(MailServer(topology, directory / "mail", "--dsn"))
        address = topology.address(SERVER, family=family)
        with topology.enter(BEHIND):
            offer = learn(address)
        near = _options(profile, RestoreSide.CLIENT, offer, directory)
        far = _options(profile, RestoreSide.SERVER, offer, directory)
        gateways = [
            stack.enter_context(Gateway(topology, directory / host, *options, host=host))
            for host, options in (
                (BEHIND, far),
                (FIREWALL, ["--mode", "enforce", "--profile", profile]),
                (BEFORE, near),
            )
        ]
        with topology.enter(CLIENT):
            exchanges, ehlo, extensions = converse(address)
        steps = list(pair(exchanges, server, connection=2))
        mails = server.mails()
    if watch is not None:
        watch(steps)
    ends = b"".join(step.server_saw for step in steps), b"".join(step.client_saw for step in steps)
    said = [(step.client_sent, step.server_said) for step in steps]
    commands, replies = judge(load_profile(profile), offer, said, ends)
    left = [
        event["mailguard"].get("before", "")
        for gateway in (gateways[0], gateways[2])
        for event in gateway.events()
        if event["mailguard"]["finding"] == "restore.not_recoverable"
    ]
    return Outcome(profile, ehlo, extensions, commands, replies, MAIL in mails, tuple(dict.fromkeys(left)))


def table(outcomes: Sequence[Outcome]) -> Table:
    """The table, one row per profile."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in HEADS:
        made.add_column(title, no_wrap=title != "left", overflow="fold")
    for one in outcomes:
        name, *others = cells(one)
        made.add_row(Text(name, style="green" if one.good else "bold red"), *map(Text, others))
    return made


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Prints the table and its summary."""
    console.print(
        "[bold]A firewall between two restoring gateways.[/] Octets it masked and octets put back, by\n"
        f"comparing what each end said with what the other read. The mail: with {', '.join(WANTED)} where offered.\n",
        highlight=False,
    )
    console.print(table(outcomes))
    good = sum(one.good for one in outcomes)
    console.print(
        f"{good} of {len(outcomes)} profiles: all that can be told is restored, nothing else is changed, mail arrives.",
        highlight=False,
    )


def cells(one: Outcome) -> list[str]:
    """A profile's row."""
    sides = (one.commands, one.replies)
    counts = [f"{side.damaged - side.left} of {side.damaged}" if side.damaged else "-" for side in sides]
    otherwise = sum(side.otherwise for side in sides)
    missing = [word for word in WANTED if word not in one.extensions]
    used = "-" if not one.ehlo else "all" if not missing else f"no {', '.join(missing)}"
    return [
        one.profile,
        "accepted" if one.ehlo else "-",
        *counts,
        str(otherwise) if otherwise else "nothing",
        "delivered" if one.delivered else "LOST",
        used,
        ", ".join(one.not_recoverable) or "-",
    ]


def report(path: Path, outcomes: Sequence[Outcome], played: Sequence[list[Step]]) -> None:
    """Writes the table and each profile's dialogue as one page. Raises ConfigError when that fails."""
    shown = []
    for one, steps in zip(outcomes, played, strict=True):
        title = f"{one.profile}, between two restoring gateways"
        scenario = Scenario(title, ())
        shown.append(dialogue(Run(scenario, steps, [], one.delivered, one.ehlo, False, "client", "server")))
    facts = pages.Facts("Bytes masked by the firewall that were put back", HEADS, list(map(cells, outcomes)))
    lead = "A firewall between two restoring gateways: what reached the other end changed is marked."
    pages.write(path, pages.page("nfmailguard lab restore", shown, lead=lead, facts=[facts]))


def run(profiles: Sequence[str], family: int, record: Path | None, *, as_json: bool, page: Path | None = None) -> int:
    """The comparison, inside private namespaces; its exit code."""
    played: list[list[Step]] = []
    console, progress = Console(record=record is not None), Console(stderr=True)
    outcomes = []
    hosts = (BEFORE, FIREWALL, BEHIND)
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch, Topology(gateways=hosts) as topology:
        for number, name in enumerate(profiles, start=1):
            told = f"{number} of {len(profiles)}: {name}"
            if not progress.is_terminal:  # Not on a terminal: a status line that is updated in place would not be seen.
                progress.print(told, highlight=False)
            with progress.status(told):
                outcomes.append(compare(topology, name, Path(scratch, str(number)), family, played.append))
    if as_json:
        rows = [asdict(outcome) | {"good": outcome.good} for outcome in outcomes]
        sys.stdout.write(json_safe(msgspec.json.format(msgspec.json.encode(rows), indent=2)).decode() + "\n")
    else:
        show(console, outcomes)
    if record is not None:
        save(console, record, "nfmailguard lab restore")
    if page is not None:
        report(page, outcomes, played)
    return 0 if all(outcome.good for outcome in outcomes) else 1


def main(
    profiles: Sequence[str],
    family: int = 4,
    record: Path | None = None,
    *,
    as_json: bool = False,
    page: Path | None = None,
) -> int:
    """Runs it in namespaces of its own; its exit code, 1 when something recoverable was not restored.

    Raises LabError where no namespaces can be made, ConfigError for a profile that does not exist.
    """
    names = list(profiles) or profile_names()
    for name in names:
        load_profile(name)
    if not inside():
        return run_private([sys.executable, "-m", "nfmailguard", *sys.argv[1:]])
    enter_private()
    try:
        return run(names, family, record, as_json=as_json, page=page)
    except KeyboardInterrupt:
        return 130
