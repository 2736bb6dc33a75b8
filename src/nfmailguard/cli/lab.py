"""``lab``: hosts in namespaces, and what is shown in them."""

from __future__ import annotations

from pathlib import Path

import click

from nfmailguard.cli.common import cli, echo, json_option, report_option

__all__: list[str] = []


def _recordable(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    from nfmailguard.reports.console import recordable

    return recordable(value)


record_option = click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_recordable,
    help="Also write what is printed: FILE.svg, .html or .txt.",
)


@cli.group()
def lab() -> None:
    """Three hosts in network namespaces: client, gateway, server."""


@lab.command("demo")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@report_option
@click.pass_context
def lab_demo(context: click.Context, record: Path | None, ipv6: bool, report: Path | None) -> None:
    """One dialogue, four paths: no gateway, monitor, a PIX 6.3, an ASA.

    Real mail over real sockets and a real kernel queue, in namespaces that are gone when it
    ends. Needs no root where unprivileged user namespaces are allowed.
    """
    from nfmailguard.lab import demo

    context.exit(demo.main(record, 6 if ipv6 else 4, report))


@lab.command("evade")
@click.option("--mode", metavar="MODE", default="enforce", show_default=True, help="The gateway's mode.")
@click.option("--profile", metavar="NAME", default="pix63", show_default=True, help="The gateway's profile.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for `run`.")
@click.option("--only", multiple=True, metavar="NAME", help="This technique; may be given again.")
@click.option("--like", metavar="TEXT", default="", help="Those with TEXT in their names.")
@click.option(
    "--cookies",
    type=click.IntRange(0, 2),
    default=1,
    show_default=True,
    help="The server's tcp_syncookies: never, under a flood (of ours), always.",
)
@click.option(
    "--server",
    type=click.Choice(("recorder", "postfix", "exim", "opensmtpd", "sendmail")),
    default="recorder",
    show_default=True,
    help="Who is attacked; a real one tells by its own log what it read.",
)
@click.option("--list", "as_list", is_flag=True, help="List the techniques and run none.")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@json_option
@click.pass_context
def lab_evade(
    context: click.Context,
    mode: str,
    profile: str,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    like: str,
    cookies: int,
    server: str,
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
        from nfmailguard.reports.console import Console

        evade.show_list(Console())
        return
    choice = evade.Choice(mode, profile, overrides, only, 6 if ipv6 else 4, cookies, like, server)
    context.exit(evade.main(choice, record, as_json=as_json))


@lab.command("compare")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="This one; may be given again. Else all.")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@report_option
@json_option
@click.pass_context
def lab_compare(
    context: click.Context,
    profiles: tuple[str, ...],
    record: Path | None,
    ipv6: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """What two restoring gateways give back of what a firewall between them masks, profile by profile.

    A mail that uses all the server offers goes through three gateways in a row. Exit code 1
    when something that can be told was not restored, anything else changed, or mail was lost.
    """
    from nfmailguard.lab import compare

    context.exit(compare.main(profiles, 6 if ipv6 else 4, record, as_json=as_json, page=report))


@lab.command("up")
def lab_up() -> None:
    """Make the three hosts, to work in (needs root)."""
    from nfmailguard.lab import standing

    echo("the lab stands" if standing.up() else "the lab stood already")
    for line in standing.described():
        echo(line)


@lab.command("down")
def lab_down() -> None:
    """Remove them."""
    from nfmailguard.lab import standing

    echo("the lab is gone" if standing.down() else "there was no lab")


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
