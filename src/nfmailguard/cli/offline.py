"""Commands on files: captures replayed, dialogues translated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nfmailguard.cli.common import cli, configured, echo, echo_text, json_option, policy_options, print_json
from nfmailguard.errors import ConfigError

__all__: list[str] = []


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
@json_option
def replay(
    source: Path,
    target: Path | None,
    path: Path | None,
    checksums: str,
    events: str | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Send a capture through the engine; OUT is what would have left the gateway.

    Reads pcap and pcapng, also packed with gzip; writes pcap. Needs no root, and no
    configuration: the mode is monitor unless given.

    \b
      nfmailguard replay in.pcap --profile asa                     what would an ASA do?
      nfmailguard replay in.pcap out.pcap --mode enforce --events -
    """
    from nfmailguard import config
    from nfmailguard import replay as replaying
    from nfmailguard.errors import CaptureError
    from nfmailguard.reports.console import Console

    # Events on standard output are for a program to read.
    aside = events == "-"
    with Console(stderr=True).status("replaying") as status:
        summary = replaying.replay(
            config.load(path, **choices),
            source,
            target,
            events,
            progress=lambda packets: status.update(f"{packets} packets"),
            checksums=checksums == "verify",
        )
    if as_json:
        echo_text(replaying.encode(summary).decode(), err=aside)
    else:
        replaying.render(summary, Console(stderr=aside))
    if summary.fault:
        raise CaptureError(summary.fault)


@cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@policy_options
@click.option("--dry-run", is_flag=True, help="Findings only.")
@json_option
def translate(file: Any, as_json: bool, mode: str | None, **choices: Any) -> None:
    """Show what each side of a dialogue would see: a transcript in, both ends out.

    FILE has lines that begin with "C: " or "S: ", one packet each ("C| " goes on in the
    same packet); without it, standard input. The mode is enforce unless given.

    \b
      printf 'S: 220 mail ESMTP\\nC: EHLO me\\n' | nfmailguard translate --profile pix63
    """
    from nfmailguard import config
    from nfmailguard.policy.model import Mode
    from nfmailguard.reading import at_most
    from nfmailguard.smtp import transcript

    rule = config.load(None, mode=mode or "enforce", **choices).flow_rules()[-1]
    restore = rule.restore if rule.mode is Mode.RESTORE else None
    applies = rule.mode is not Mode.MONITOR and not choices["dry_run"]
    where = getattr(file, "name", "<stdin>")
    try:
        text = at_most(file, transcript.MOST_TEXT * 4, where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text") from error
    turns = transcript.parse(text.replace("\r\n", "\n"), where)
    if as_json:
        print_json(transcript.as_json(rule.policy, turns, apply=applies, restore=restore))
        return
    from nfmailguard.reports import translation
    from nfmailguard.reports.console import Console

    translation.render(rule.policy, turns, Console(), apply=applies, restore=restore)


def _known(seen: str, configured_profile: str) -> str:
    """The profile that events name, as far as the name tells which it is: one of the program's, or the gateway's."""
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
@json_option
def counters(
    path: Path | None, events: Path | None, as_cisco: bool, form: str, profile: str | None, as_json: bool
) -> None:
    """The counters of the last ``stats`` event of a gateway.

    \b
      nfmailguard counters --cisco
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
            echo(f"{count:>16} {name}")
