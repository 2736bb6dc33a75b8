"""Commands of a gateway: run it, check its configuration, its rules in the kernel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nfmailguard.cli.common import (
    cli,
    config_path,
    configured,
    echo,
    echo_text,
    gateway_options,
    json_option,
    print_json,
)

if TYPE_CHECKING:
    from nfmailguard.config import Config

__all__: list[str] = []


@cli.command()
@gateway_options
@click.option("--no-rules", is_flag=True, help="Send no packets here: a ruleset of yours does.")
@click.option("--tap", metavar="IN[,OUT]", help="Captures of what came in, and of what left, for `replay`.")
@click.option("--hand-over", is_flag=True, help="Take over from the gateway that runs, or ran before a restart.")
@click.pass_context
def run(context: click.Context, /, no_rules: bool, tap: str | None, hand_over: bool, **choices: Any) -> None:
    """Inspect mail until interrupted (needs root or CAP_NET_ADMIN and CAP_NET_RAW).

    Binds the queue, then adds one nftables table (`rules show` prints it); takes it away
    again first when it ends. Prints a line with "ready" when packets are inspected. SIGHUP
    and `nfmailguard reload` read the configuration anew, and open the log files anew. Once its
    queues are bound it keeps CAP_NET_ADMIN alone (service.confine, service.user).

    With --hand-over it takes the queues of the gateway that answers at service.control, with all packets in them, and
    all that one knows: no packet is lost, none passes uninspected, no connection breaks. Where the state of another
    version does not fit it takes the queues alone, as after a crash, and says so. Under systemd a restart is a
    hand-over, too (FileDescriptorStoreMax=, and ExecStopPost=nfmailguard rules remove --unless-restart UNIT).

    \b
      nfmailguard run --mode monitor --profile pix63 --set log.eve=-
      nfmailguard run -c /etc/nfmailguard/nfmailguard.toml --queue 0-3
      nfmailguard run --mode enforce --set banner.separator=no --set gateway.hook=input,output
    """
    from nfmailguard.reports import summary
    from nfmailguard.reports.console import Console
    from nfmailguard.service.gateway import Gateway

    def reread() -> Config:
        return configured(**choices)

    config = reread()
    arrived, _, left = (tap or "").partition(",")
    files = (Path(arrived), Path(left) if left else None) if arrived else None
    # With events on standard output, all other output goes to standard error, so that a program can read the events.
    events = config.log.eve == "-"
    gateway = Gateway(
        config,
        rules=not no_rules,
        tap=files,
        tell=lambda line: echo(line, err=events),
        reread=reread,
        source=config_path(choices["path"]),
        hand_over=hand_over,
    )
    counters = gateway.run()
    with suppress(OSError, SystemExit):  # The terminal or pipe may be closed when the summary is printed.
        summary.render(counters, Console(stderr=events))
    context.exit(gateway.exit_code)


@cli.command()
@gateway_options
@json_option
@click.option("--live", is_flag=True, help="Look at this machine, too: what lets mail past, or breaks it.")
@click.pass_context
def check(context: click.Context, /, as_json: bool, live: bool, **choices: Any) -> None:
    """Say what `run` would do with this configuration, and touch nothing.

    Exits with 2 and a line for each fault when it could not run. With --live (as root) it looks at the machine before
    mail comes: each trouble with its remedy, on a line; exits with 1 when there is one.

    \b
      nfmailguard check -c mine.toml
      nfmailguard check --live --mode enforce
    """
    from nfmailguard import ruleset
    from nfmailguard.errors import RulesetError
    from nfmailguard.service import preflight

    config = configured(**choices)
    if live:
        _check_live(context, config, as_json)
        return
    flows, conditions = config.flow_rules(), preflight.conditions(config)
    try:
        beside = preflight.beside(config, ruleset.others())
    except RulesetError as error:
        beside = [f"others' rules were not looked at, flowtables and address translation: {error}"]
    beside += preflight.interface_warnings(config, preflight.interfaces(config))
    if as_json:
        import msgspec

        found = {"config": msgspec.to_builtins(config), "warnings": [*preflight.warnings(config), *beside]}
        told = {condition.name: condition._asdict() for condition in conditions}
        print_json({**found, "conditions": told, "ruleset": preflight.ruleset(config).render()})
        return
    echo(preflight.summary(config))
    if not config.log.eve and config.syslog.target is None:
        echo("warning: no event log is configured, so nothing will be recorded: set log.eve")
    for number, flow in enumerate(flows[:-1], 1):
        ends = [
            f"{word} {', '.join(map(str, networks))}"
            for word, networks in (("from", flow.source), ("to", flow.destination), ("port", flow.ports))
            if networks
        ]
        ends += [f"in {flow.interface}"] if flow.interface else []
        echo(f"rule {number}: {' '.join(ends) or 'every flow'}: {flow.mode} {flow.policy.name}")
    echo(f"every other flow: {flows[-1].mode} {flows[-1].policy.name}")
    if config.log.eve:
        echo(f"events: {config.log.eve}")
    echo(preflight.flow_room(config))
    echo(preflight.conntrack(config))
    for line in (*preflight.warnings(config), *beside):
        echo(f"warning: {line}")
    echo("\nwhat is done when something exceptional happens:")
    for condition in conditions:
        echo(f"on.{condition.name:18} {condition!s:30} {condition.meaning}")
    echo_text(f"\n{preflight.ruleset(config).render()}", tabs=True)


def _check_live(context: click.Context, config: Any, as_json: bool) -> None:
    from nfmailguard.service import machine, preflight
    from nfmailguard.service.live import troubles

    seen = machine.read(config)
    found = troubles(config, seen)
    if as_json:
        print_json({"troubles": [trouble._asdict() for trouble in found], "unread": seen.unread})
    else:
        echo(preflight.summary(config))
        for trouble in found:
            echo(f"trouble: {trouble}")
        for what in seen.unread:
            echo(f"not looked at: {what}")
        echo(f"{len(found)} troubles found" if found else "no trouble found")
    context.exit(1 if found else 0)


@cli.group()
def rules() -> None:
    """The one nftables table that sends packets to the queue."""


@rules.command("show")
@gateway_options
def rules_show(**choices: Any) -> None:
    """Print the table as `nft -f` would load it, for a ruleset of your own (`run --no-rules`)."""
    from nfmailguard.service import preflight

    echo_text(preflight.ruleset(configured(**choices)).render(), tabs=True)


@rules.command("apply")
@gateway_options
def rules_apply(**choices: Any) -> None:
    """Put the table in place; `run` does it by itself.

    While the program is not running, packets of mail are dropped in enforce, and pass in monitor (on.no_listener).
    """
    from nfmailguard.service import preflight

    preflight.ruleset(configured(**choices)).apply()


@rules.command("remove")
@click.option(
    "--unless-restart",
    "unit",
    metavar="UNIT",
    help="In ExecStopPost=: leave it where systemd restarts UNIT and has kept its queues (`run --hand-over`).",
)
def rules_remove(unit: str | None) -> None:
    """Take the table away, also one that a crash left; mail flows on, connections are kept."""
    from nfmailguard import ruleset
    from nfmailguard.service.restarting import is_restarted

    if unit is None or not is_restarted(unit):
        ruleset.remove()
