"""``profile``: whose behaviour there is, shown, written and read as Cisco has it."""

from __future__ import annotations

from typing import Any

import click

from nfmailguard.cli.common import Bold, cli, echo, echo_text, json_option, print_json

__all__: list[str] = []


@cli.group()
def profile() -> None:
    """Whose behaviour there is, and what each profile says."""


@profile.command("list")
@json_option
def profile_list(as_json: bool) -> None:
    """The profiles that come with the program: banner, verbs, what a denied verb and an EHLO reply become."""
    from nfmailguard.policy.load import load_profile, profile_names
    from nfmailguard.reports import profiles

    policies = {name: load_profile(name) for name in profile_names()}
    if as_json:
        print_json({name: profiles.row(policy) for name, policy in policies.items()})
        return
    from nfmailguard.reports.console import Console

    profiles.render(policies, Console())


@profile.command("show")
@click.argument("name")
@json_option
@click.option("--cisco", "as_cisco", is_flag=True, help="As the configuration of the box that does the same.")
@click.pass_context
def profile_show(context: click.Context, name: str, as_json: bool, as_cisco: bool) -> None:
    """A profile as TOML, each line with its source.

    A copy of it, changed, is a profile of your own: `run --profile ./mine.toml`. With
    --cisco, what no such box can be told is named on standard error, and the exit code is 1.
    """
    from nfmailguard.policy.load import load_profile, profile_text

    if as_json and as_cisco:
        raise click.UsageError("--json or --cisco, not both")
    policy = load_profile(name)
    if as_cisco:
        from nfmailguard.policy.cisco.write import write

        written = write(policy)
        echo_text(written.text)
        for line in written.lost:
            echo(f"{name}: {line}", err=True)
        context.exit(1 if written.lost else 0)
    elif as_json:
        print_json(policy)
    else:
        echo_text(profile_text(name), tabs=True)


@profile.command("diff")
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@json_option
@click.pass_context
def profile_diff(context: click.Context, left: str, right: str, as_json: bool) -> None:
    """What two profiles do otherwise: setting by setting, with what it means for a dialogue.

    A and B are names of `profile list`, or .toml files. Exit code 0: nothing; 1: something.

    \b
      nfmailguard profile diff pix63 asa
      nfmailguard profile diff asa ./mine.toml
    """
    from nfmailguard.policy.load import load_profile
    from nfmailguard.reports import verified
    from nfmailguard.verify.difference import differences

    policies = load_profile(left), load_profile(right)
    found = list(differences(*policies))
    if as_json:
        print_json(found)
    else:
        for line in verified.difference_lines(found, *policies):
            echo(line)
    context.exit(1 if found else 0)


@profile.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.File("rb"))
@click.option("--map", "name", metavar="NAME", help="Which policy, where the configuration applies several.")
@click.option("--context", metavar="NAME", help="Which context, where several of a box inspect mail.")
@json_option
@click.pass_context
def profile_import(
    click_context: click.Context, files: tuple[Any, ...], name: str | None, context: str | None, as_json: bool
) -> None:
    """The profile that does what a PIX, ASA, FTD, FWSM or IOS configuration says, as TOML.

    FILE is a running configuration, or the part of one that has to do with mail; "-" is
    standard input. Several files are parts of one, or contexts of one box. Text out of a
    terminal, mail, forum or web page is read as well.

    Every line of mail inspection that is not honoured is named on standard error, and the
    exit code is 1 then, as it is when no mail is inspected; 2 when a line is wrong. What
    differs by interface or host stands behind the profile, as [[rule]]s for the configuration.

    \b
      nfmailguard profile import running-config.txt > mine.toml
      nfmailguard profile import running-config.txt --json
    """
    from nfmailguard.reading import at_most
    from nfmailguard.reports import imported

    read = []
    left = imported.MOST_OCTETS
    for file in files:
        where = getattr(file, "name", "<stdin>")
        read.append((where, at_most(file, left, where)))
        left -= len(read[-1][1])
    found = imported.read(read, context)
    where = ", ".join(name for name, _ in read)
    if as_json:
        print_json(found)
    else:
        echo_text(imported.toml(found, name, where))
    refused = imported.refused(found, where)
    for line in refused:
        echo(line, err=True)
    click_context.exit(1 if refused or not found.inspects else 0)


@profile.command("findings")
@json_option
def profile_findings(as_json: bool) -> None:
    """Everything that can be found, and what may be done about it.

    A profile sets an action under [actions], the command line with --set:

    \b
      nfmailguard run --mode enforce --set actions.command.denied=reset
    """
    from nfmailguard.policy.model import CONDITION_OF, FINDINGS

    known = FINDINGS[1:]
    if as_json:
        print_json(known)
        return
    width = max(len(finding.name) for finding in known)
    for finding in known:
        echo(f"{finding.name:{width}}  {finding.meaning}")
        if finding.name in CONDITION_OF:
            setting = CONDITION_OF[finding.name]
            echo(f"{'':{width}}  decided by on.{setting.name}: {', '.join(setting.actions)}")
            continue
        others = ", ".join(action for action in finding.actions if action is not finding.default)
        echo(f"{'':{width}}  ", Bold(finding.default), f" (or {others})" if others else "")
