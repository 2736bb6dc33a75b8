"""``verify``: a real box beside a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nfmailguard.cli.common import cli, echo, json_option, ports_option, print_json, sides_option

if TYPE_CHECKING:
    from nfmailguard.policy.model import Policy

__all__: list[str] = []


def _policy(profile: str, configuration: Path | None, overrides: tuple[str, ...]) -> Policy:
    from nfmailguard.errors import ConfigError
    from nfmailguard.policy.load import load_profile, override
    from nfmailguard.reading import octets_of
    from nfmailguard.reports import imported

    if configuration is None:
        policy = load_profile(profile)
    else:
        where = str(configuration)
        found = imported.read([(where, octets_of(configuration, imported.MOST_OCTETS))])
        for line in imported.refused(found, where):
            echo(f"not honoured: {line}", err=True)
        policy = imported.policy(found, None, where)
    settings = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write KEY=VALUE")
        settings[key] = value
    return override(policy, settings) if settings else policy


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--profile", default="asa", show_default=True, metavar="NAME", help="A profile's name, or a .toml file.")
@click.option(
    "--config",
    "configuration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The box's own configuration (`show running-config`) in place of a profile.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting of the profile, as it prints them."
)
@sides_option
@click.option(
    "--side",
    type=click.Choice(["client", "server"]),
    default="client",
    show_default=True,
    help="Of one capture, or of a transcript of one side: on whose side of the box it was made.",
)
@ports_option
@json_option
@click.pass_context
def verify(
    context: click.Context,
    files: tuple[Path, ...],
    profile: str,
    configuration: Path | None,
    overrides: tuple[str, ...],
    sides: bool,
    side: str,
    ports: tuple[int, ...],
    as_json: bool,
) -> None:
    """Does a real box do what a profile, or its configuration, says?

    FILE is a capture of the box's client side and one of its server side (--sides), or of what came to it and what left
    it; one capture alone; or transcripts, "C: " and "S: " lines as sent, behind them "C> " and "S> " as they arrived.
    Each line that went through is held against the profile: where they agree, where they differ, and which settings
    would explain it. Exit code 0: they agree; 1: they differ; 3: nothing was seen that tells.

    \b
      nfmailguard verify --sides outside.pcap inside.pcap --config running-config.txt
      nfmailguard verify dialogue.txt --profile pix63
      nfmailguard verify outside.pcap --side client --profile asa
    """
    from nfmailguard.reports import verified
    from nfmailguard.verify import comparing, explaining, given

    policy = _policy(profile, configuration, overrides)
    where = comparing.Side(side)
    found = [comparing.compare(policy, one, where) for one in given.read(files, ports or (25,), sides=sides)]
    changes, explained = explaining.explain(policy, found, where)
    remaining = sum(len(comparing.compare(explained, one.dialogue, where).differing) for one in found if one.differing)
    if as_json:
        print_json(verified.as_json(found, policy, changes, remaining))
    else:
        closest = explaining.nearest(found, where) if any(one.differing for one in found) else None
        for line in verified.lines(found, policy, changes, remaining, "" if configuration else profile, closest):
            echo(line)
    if not any(one.seen for one in found):
        context.exit(3)
    context.exit(1 if any(one.differing for one in found) else 0)
