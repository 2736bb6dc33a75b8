"""The command line: says what there is and wires it up; no logic.

Promises: exit codes 0 done, 1 it ran and the answer is no, 2 usage or configuration,
3 could not tell, 130 interrupted; an error is told in a line for each fault, on
standard error. What a command needs is imported by that command: `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfmailguard import __version__
from nfmailguard.errors import ConfigError, NfmailguardError

if TYPE_CHECKING:
    from nfmailguard.config import Config

__all__ = ["cli", "main"]

DEFAULT_CONFIG = Path("/etc/nfmailguard/nfmailguard.toml")
INTERRUPTED = 130
Command = TypeVar("Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order ``--help`` shows them."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


file_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Configuration; without it {DEFAULT_CONFIG}, where that exists, else the defaults.",
)
policy_options = options(
    click.option("--mode", metavar="MODE", help="enforce or monitor, for flows no [[rule]] gives another."),
    click.option("--profile", metavar="NAME", help="A profile's name (`profile list`) or file, like --mode."),
    click.option("--faithful", is_flag=True, help="Verbs cut over packets as Cisco treats them, packet by packet."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key of configuration or policy."),
)
gateway_options = options(
    file_option,
    policy_options,
    click.option("--dry-run", is_flag=True, help="Report what would be done and change no byte."),
    click.option("--queue", metavar="N[-M]", help="The kernel queue, or several."),
    click.option("--driver", metavar="NAME", help="kernel or netfilterqueue (the PyPI package)."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")


def configured(path: Path | None, **choices: Any) -> Config:
    """The configuration of a gateway: that of ``path``, or of the usual place."""
    from nfmailguard import config

    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    return config.load(path, **choices)


def print_json(value: object) -> None:
    """One value, readable."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nfmailguard", message="%(prog)s %(version)s")
def cli() -> None:
    """What a PIX or ASA does to SMTP, on a Linux gateway: enforced or watched.

    Packets of port-25 flows come from an NFQUEUE, each gets one verdict; bytes may be
    rewritten on the way, their number never.

    \b
      nfmailguard lab demo                        see it work, in namespaces of its own
      nfmailguard profile list                    whose behaviour there is
      nfmailguard run --profile asa               report what an ASA would have done
      nfmailguard run --mode enforce              be a PIX 6.3
      nfmailguard rules remove                    out of the path at once, connections kept
    """


@cli.command()
@gateway_options
@click.option("--no-rules", is_flag=True, help="Send no packets here: a ruleset of yours does.")
@click.option("--tap", metavar="IN[,OUT]", help="Captures of what came in, and of what left, for `replay`.")
def run(no_rules: bool, tap: str | None, **choices: Any) -> None:
    """Inspect mail until interrupted (needs root or CAP_NET_ADMIN and CAP_NET_RAW).

    Binds the queue, then adds one nftables table (`rules show` prints it); takes it away
    again first when it ends. Prints a line with "ready" when packets are inspected.

    \b
      nfmailguard run --mode monitor --profile pix63 --set log.eve=-
      nfmailguard run -c /etc/nfmailguard/nfmailguard.toml --queue 0-3
      nfmailguard run --mode enforce --set banner.separator=no --set gateway.hook=input,output
    """
    from rich.console import Console

    from nfmailguard.reports import summary
    from nfmailguard.service.gateway import Gateway

    config = configured(**choices)
    arrived, _, left = (tap or "").partition(",")
    files = (Path(arrived), Path(left) if left else None) if arrived else None
    # Events on standard output are for a program to read.
    events = config.log.eve == "-"
    gateway = Gateway(config, rules=not no_rules, tap=files, tell=lambda line: click.echo(line, err=events))
    summary.render(gateway.run(), Console(stderr=events))


@cli.command()
@gateway_options
@json_option
def check(as_json: bool, **choices: Any) -> None:
    """Say what `run` would do with this configuration, and touch nothing.

    Exits with 2 and a line for each fault when it could not run.
    """
    from nfmailguard.service import gateway, preflight

    config = configured(**choices)
    flows, conditions = config.flow_rules(), preflight.conditions(config)
    if as_json:
        import msgspec

        found = {"config": msgspec.to_builtins(config), "warnings": gateway.warnings(config)}
        told = {condition.name: condition._asdict() for condition in conditions}
        print_json({**found, "conditions": told, "ruleset": gateway.ruleset(config).render()})
        return
    click.echo(gateway.summary(config))
    for number, flow in enumerate(flows[:-1], 1):
        ends = [
            f"{word} {', '.join(map(str, networks))}"
            for word, networks in (("from", flow.source), ("to", flow.destination), ("port", flow.ports))
            if networks
        ]
        ends += [f"in {flow.interface}"] if flow.interface else []
        click.echo(f"rule {number}: {' '.join(ends) or 'every flow'}: {flow.mode} {flow.policy.name}")
    click.echo(f"every other flow: {flows[-1].mode} {flows[-1].policy.name}")
    click.echo(f"events: {config.log.eve or 'nowhere (log.eve)'}")
    click.echo(preflight.flow_room(config))
    for condition in conditions:
        click.echo(f"on.{condition.name:18} {condition!s:30} {condition.meaning}; counted as {condition.counter}")
    for line in gateway.warnings(config):
        click.echo(f"warning: {line}")
    click.echo(f"\n{gateway.ruleset(config).render()}", nl=False)


@cli.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUT]", type=click.Path(path_type=Path), required=False)
@click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="A gateway's configuration."
)
@policy_options
@click.option("--dry-run", is_flag=True, help="Report what would be done and change no byte.")
@click.option("--events", metavar="FILE|-", help="Append EVE events to a file, or print them.")
@json_option
def replay(
    source: Path, target: Path | None, path: Path | None, events: str | None, as_json: bool, **choices: Any
) -> None:
    """Send a capture through the engine; OUT is what would have left the gateway.

    Reads pcap and pcapng, also packed with gzip; writes pcap. Needs no root, and no
    configuration: the mode is monitor unless given.

    \b
      nfmailguard replay in.pcap --profile asa                     what would an ASA do?
      nfmailguard replay in.pcap out.pcap --mode enforce --events -
    """
    from rich.console import Console

    from nfmailguard import config
    from nfmailguard import replay as replaying
    from nfmailguard.errors import CaptureError

    # Events on standard output are for a program to read.
    aside = events == "-"
    with Console(stderr=True).status("replaying") as status:
        summary = replaying.replay(
            config.load(path, **choices),
            source,
            target,
            events,
            progress=lambda packets: status.update(f"{packets} packets"),
        )
    if as_json:
        click.echo(replaying.encode(summary), nl=False, err=aside)
    else:
        replaying.render(summary, Console(stderr=aside))
    if summary.fault:
        raise CaptureError(summary.fault)


@cli.command()
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
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
    from nfmailguard.smtp import transcript

    rule = config.load(None, mode=mode or "enforce", **choices).flow_rules()[-1]
    restore = rule.restore if rule.mode is Mode.RESTORE else None
    applies = rule.mode is not Mode.MONITOR and not choices["dry_run"]
    try:
        turns = transcript.parse(file.read(), file.name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file.name}: not UTF-8 text") from error
    if as_json:
        print_json(transcript.as_json(rule.policy, turns, apply=applies, restore=restore))
        return
    from rich.console import Console

    from nfmailguard.reports import translation

    translation.render(rule.policy, turns, Console(), apply=applies, restore=restore)


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
    from rich.console import Console

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
        from nfmailguard.policy.cisco_write import write

        written = write(policy)
        click.echo(written.text, nl=False)
        for line in written.lost:
            click.echo(f"{name}: {line}", err=True)
        context.exit(1 if written.lost else 0)
    elif as_json:
        print_json(policy)
    else:
        click.echo(profile_text(name), nl=False)


@profile.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--map", "name", metavar="NAME", help="Which policy, where the configuration applies several.")
@json_option
@click.pass_context
def profile_import(context: click.Context, file: Any, name: str | None, as_json: bool) -> None:
    """The profile that does what a PIX or ASA configuration says, as TOML.

    FILE is a running configuration, or the part of one that has to do with mail; "-" is
    standard input. Every line of mail inspection that is not honoured is named on standard
    error, and the exit code is 1 then; 2 when a line is wrong.

    \b
      nfmailguard profile import running-config.txt > mine.toml
      nfmailguard profile import running-config.txt --json
    """
    from nfmailguard.reports import imported

    where = getattr(file, "name", "<stdin>")
    found = imported.read(file.read(), where)
    if as_json:
        print_json(found)
    else:
        click.echo(imported.toml(found, name, where), nl=False)
    refused = imported.refused(found, where)
    for line in refused:
        click.echo(line, err=True)
    context.exit(1 if refused else 0)


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
        click.echo(f"{finding.name:{width}}  {finding.meaning}")
        if finding.name in CONDITION_OF:
            setting = CONDITION_OF[finding.name]
            click.echo(f"{'':{width}}  decided by on.{setting.name}: {', '.join(setting.actions)}")
            continue
        others = ", ".join(action for action in finding.actions if action is not finding.default)
        click.echo(f"{'':{width}}  {click.style(finding.default, bold=True)}{f' (or {others})' if others else ''}")


@cli.group()
def rules() -> None:
    """The one nftables table that sends packets to the queue."""


@rules.command("show")
@gateway_options
def rules_show(**choices: Any) -> None:
    """Print the table as `nft -f` would load it, for a ruleset of your own (`run --no-rules`)."""
    from nfmailguard.service import gateway

    click.echo(gateway.ruleset(configured(**choices)).render(), nl=False)


@rules.command("apply")
@gateway_options
def rules_apply(**choices: Any) -> None:
    """Put the table in place; `run` does it by itself.

    What happens to packets while nobody listens is on.no_listener's to say: dropped when
    flows are enforced, else let through.
    """
    from nfmailguard.service import gateway

    gateway.ruleset(configured(**choices)).apply()


@rules.command("remove")
def rules_remove() -> None:
    """Take the table away, also one that a crash left; mail flows on, connections are kept."""
    from nfmailguard import ruleset

    ruleset.remove()


@cli.group()
def lab() -> None:
    """Three hosts in network namespaces: client, gateway, server."""


@lab.command("demo")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Also write it: .svg, .html or text.")
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@click.pass_context
def lab_demo(context: click.Context, record: Path | None, ipv6: bool) -> None:
    """One dialogue, four paths: no gateway, monitor, a PIX 6.3, an ASA.

    Real mail over real sockets and a real kernel queue, in namespaces that are gone when it
    ends. Needs no root where unprivileged user namespaces are allowed.
    """
    from nfmailguard.lab import demo

    context.exit(demo.main(record, 6 if ipv6 else 4))


@lab.command("evade")
@click.option("--mode", metavar="MODE", default="enforce", show_default=True, help="The gateway's mode.")
@click.option("--profile", metavar="NAME", default="pix63", show_default=True, help="The gateway's profile.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for `run`.")
@click.option("--only", multiple=True, metavar="NAME", help="This technique; may be given again.")
@click.option("--list", "as_list", is_flag=True, help="List the techniques and run none.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Also write it: .svg, .html or text.")
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@json_option
@click.pass_context
def lab_evade(
    context: click.Context,
    mode: str,
    profile: str,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    as_list: bool,
    record: Path | None,
    ipv6: bool,
    as_json: bool,
) -> None:
    """Every known way round an inline filter, live, against a gateway of ours.

    Each technique's packets go through a running gateway to a real server's kernel; the
    octets it delivered decide, and an honest mail has to arrive beside each. Exits with 1
    when something got past. With --mode monitor, which changes nothing, most do.

    \b
      nfmailguard lab evade
      nfmailguard lab evade --mode monitor --only verb-cut --only conflict-lost
    """
    from nfmailguard.lab import evade

    if as_list:
        from rich.console import Console

        evade.show_list(Console())
        return
    choice = evade.Choice(mode, profile, overrides, only, 6 if ipv6 else 4)
    context.exit(evade.main(choice, record, as_json=as_json))


@lab.command("up")
def lab_up() -> None:
    """Make the three hosts, to work in (needs root)."""
    from nfmailguard.lab import standing

    click.echo("the lab stands" if standing.up() else "the lab stood already")


@lab.command("down")
def lab_down() -> None:
    """Remove them."""
    from nfmailguard.lab import standing

    click.echo("the lab is gone" if standing.down() else "there was no lab")


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def lab_exec(context: click.Context, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a HOST of the lab: client, gateway or server.

    \b
      nfmailguard lab exec client -- nmap -sV -p 25 10.25.2.2
    """
    from nfmailguard.lab import standing

    context.exit(standing.execute(host, command))


def main() -> None:
    """The command ``nfmailguard``."""
    try:
        code = cli.main(prog_name="nfmailguard", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except NfmailguardError as error:
        for line in str(error).splitlines():
            click.echo(f"nfmailguard: {line}", err=True)
        code = error.exit_code
    sys.exit(code or 0)
