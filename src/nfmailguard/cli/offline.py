"""Commands on files: captures replayed, dialogues translated, both sides shown."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfmailguard.cli.common import (
    cli,
    configured,
    echo,
    echo_text,
    json_option,
    policy_options,
    ports_option,
    print_json,
    report_option,
    sides_option,
)
from nfmailguard.errors import ConfigError

if TYPE_CHECKING:
    from nfmailguard.transcripts.model import Dialogue

__all__: list[str] = []


def both_sides(
    found: tuple[list[Dialogue], int], name: str, report: Path | None, *, shown: bool, aside: bool = False
) -> None:
    """Shows dialogues, and how much was left out, on the terminal (``shown``) or as a page. ``aside``: on standard
    error.
    """
    from nfmailguard.reports import ladder, pages
    from nfmailguard.reports.console import Console
    from nfmailguard.transcripts.model import titles

    dialogues, lost = found
    lead = titles(dialogues) + (f"; {lost:,} packets or findings left out for want of room" if lost else "")
    if shown:
        ladder.render(dialogues, Console(stderr=aside))
    if report is not None:
        pages.write(report, pages.page(f"nfmailguard: {name}", dialogues, lead=f"{lead}."))
        echo(f"written: {report}: {lead}", err=True)


@cli.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUT]", type=click.Path(path_type=Path), required=False)
@click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="A gateway's configuration."
)
@policy_options
@click.option("--dry-run", is_flag=True, help="Report what would be done and change no byte.")
@click.option(
    "--checksums",
    type=click.Choice(["verify", "ignore"]),
    default="verify",
    show_default=True,
    help="Of a capture that was edited: ignore them, and write right ones.",
)
@click.option("--events", metavar="FILE|-", help="Append EVE events to a file, or print them.")
@click.option("--transcript", "shown", is_flag=True, help="Print both sides of each dialogue, with the findings.")
@report_option
@json_option
def replay(
    source: Path,
    target: Path | None,
    path: Path | None,
    checksums: str,
    events: str | None,
    shown: bool,
    report: Path | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Send a capture through the engine; OUT is what would have left the gateway.

    Reads pcap and pcapng, also packed with gzip; writes pcap. Needs no root, and no
    configuration: the mode is monitor unless given.

    \b
      nfmailguard replay in.pcap --profile asa                     what would an ASA do?
      nfmailguard replay in.pcap out.pcap --mode enforce --events -
      nfmailguard replay in.pcap --mode enforce --profile asa --report both-sides.html
    """
    import msgspec

    from nfmailguard import config
    from nfmailguard import replay as replaying
    from nfmailguard.errors import CaptureError
    from nfmailguard.policy.model import FlowRule
    from nfmailguard.reports.console import Console
    from nfmailguard.transcripts import recorded
    from nfmailguard.transcripts.recorded import Findings

    # With events on standard output, all other output goes to standard error, so that a program can read the events.
    aside = events == "-"
    made = config.load(path, **choices)
    kept: list[Findings] = []

    def findings(rules: Sequence[FlowRule]) -> Findings:
        kept.append(Findings(rules))
        return kept[0]

    with ExitStack() as stack:
        scratch = target
        if target is None and (shown or report):
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nfmailguard-")), "out.pcap")
        with Console(stderr=True).status("replaying") as status:
            summary = replaying.replay(
                *(made, source, scratch, events),
                progress=lambda packets: status.update(f"{packets} packets"),
                checksums=checksums == "verify",
                findings=findings if shown or report else None,
            )
        if target is None:
            summary = msgspec.structs.replace(summary, output=None)
        if as_json:
            echo_text(replaying.encode(summary).decode(), err=aside)
        else:
            replaying.render(summary, Console(stderr=aside))
        if kept:
            title = f"{summary.mode} {summary.profile}"
            found = recorded.dialogues(source, scratch, kept[0], title=title, ports=made.ports())
            both_sides(found, summary.input, report, shown=shown, aside=aside)
    if summary.fault:
        raise CaptureError(summary.fault)


@cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@policy_options
@click.option("--dry-run", is_flag=True, help="Findings only.")
@click.option("--also", multiple=True, metavar="PROFILE", help="Then the same under this one; may be given again.")
@report_option
@json_option
def translate(
    file: Any, report: Path | None, as_json: bool, mode: str | None, also: tuple[str, ...], **choices: Any
) -> None:
    """Show what each side of a dialogue would see: a transcript in, both ends out.

    FILE has lines that begin with "C: " or "S: ", one packet each ("C| " goes on in the
    same packet); without it, standard input. The mode is enforce unless given.

    \b
      printf 'S: 220 mail ESMTP\\nC: EHLO me\\n' | nfmailguard translate --profile pix63
      nfmailguard translate dialogue.txt --profile asa --report both-sides.html
      nfmailguard translate dialogue.txt --profile pix63 --also asa --also ios-esmtp
    """
    from nfmailguard import config
    from nfmailguard.policy.model import Mode
    from nfmailguard.reading import at_most
    from nfmailguard.smtp import transcript

    if also and as_json:
        raise click.UsageError("--also or --json, not both")
    named = [choices.pop("profile"), *also]
    configs = [config.load(None, mode=mode or "enforce", profile=name, **choices) for name in named]
    rules = [(name or "", one.flow_rules()[-1]) for name, one in zip(named, configs, strict=True)]
    rule = rules[0][1]
    restore = rule.restore if rule.mode is Mode.RESTORE else None
    applies = rule.mode is not Mode.MONITOR and not choices["dry_run"]
    where = getattr(file, "name", "<stdin>")
    try:
        text = at_most(file, transcript.MOST_TEXT * 4, where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text") from error
    turns = transcript.parse(text.replace("\r\n", "\n"), where)
    if report is not None:
        from nfmailguard.smtp.reference import translate as modelled
        from nfmailguard.transcripts.translated import translated

        made = []
        for name, one in rules:
            result = modelled(one.policy, turns, apply=applies, restore=restore)
            made.append(translated(one.policy, turns, result, apply=applies, profile=name))
        both_sides((made, 0), where, report, shown=False)
    if as_json:
        print_json(transcript.as_json(rule.policy, turns, apply=applies, restore=restore))
        return
    from nfmailguard.reports import translation
    from nfmailguard.reports.console import Console

    for name, one in rules:
        if also and not Console().is_terminal:
            echo(f"# {one.policy.name}: {one.policy.title}")
        translation.render(one.policy, turns, Console(), apply=applies, restore=restore, profile=name)


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@ports_option
@sides_option
@report_option
def transcript(files: tuple[Path, ...], ports: tuple[int, ...], sides: bool, report: Path | None) -> None:
    """Both sides of dialogues beside each other, with the findings: of event logs, or of captures.

    FILE is an event log (EVE; several are read as one, "-" is standard input), or a capture: one of what came to a
    box, and, as a second one, of what left it, as `run --tap IN.pcap,OUT.pcap` writes them while it runs. Of one
    capture alone there is one side. An event log has of each line that was changed or told of its beginning.

    \b
      nfmailguard transcript /var/log/nfmailguard/eve.json --report week.html
      nfmailguard transcript in.pcap out.pcap
      nfmailguard transcript --sides client-side.pcap server-side.pcap
      nfmailguard events | nfmailguard transcript -
    """
    from nfmailguard.transcripts import files as reading

    found, name = reading.read(files, ports or (25,), sides=sides)
    both_sides(found, name, report, shown=report is None)


def _known(seen: str, configured_profile: str) -> str:
    """The profile that events name, if the name identifies it: one of the program's, or the gateway's."""
    from nfmailguard.policy.load import profile_names

    return seen if seen in profile_names() and Path(configured_profile).stem != seen else configured_profile


@cli.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="The gateway's.")
@click.option("--events", metavar="FILE", type=click.Path(path_type=Path), help="Its events; else log.eve of FILE.")
@click.option("--cisco", "as_cisco", is_flag=True, help="As `show service-policy inspect esmtp` has them.")
@click.option(
    "--form", type=click.Choice(["8", "9"]), default="8", show_default=True, help="With --cisco: of ASA 8.x or 9.x."
)
@click.option("--profile", metavar="NAME", help="With --cisco: whose classes; else that of the events.")
@click.option("--all", "everything", is_flag=True, help="Those that are 0, too.")
@json_option
def counters(
    path: Path | None,
    events: Path | None,
    as_cisco: bool,
    form: str,
    profile: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Print a gateway's latest counters, read from its event log; those that are 0 with --all.

    \b
      nfmailguard counters --events /var/log/nfmailguard/eve.json --cisco
    """
    from nfmailguard.events.stats import last_profile, last_stats
    from nfmailguard.events.targets import file_of
    from nfmailguard.reports import service_policy

    config = configured(path, profile=profile)
    where = events or file_of(config.log.eve)
    if where is None:
        raise ConfigError("log.eve: no file of events; name one with --events")
    found = last_stats(where)
    if as_cisco:
        seen = None if profile else last_profile(where)
        if seen:
            config = configured(path, profile=_known(seen, config.gateway.profile))
        echo_text(service_policy.render(config.flow_rules()[-1].policy, found, form))
    elif as_json:
        print_json(found)
    else:
        for name, count in found.items():
            if count or everything:
                echo(f"{count:>16} {name}")
