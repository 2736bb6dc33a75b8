"""``lab``: hosts in namespaces, and what is shown in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from nfmailguard.cli.common import Command, cli, echo, json_option, named, print_json, report_option

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
    """Hosts in network namespaces: client, gateway, server, or a topology of your own."""


@lab.command("demo")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@report_option
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="This one enforced; may be given again.")
@click.pass_context
def lab_demo(
    context: click.Context, record: Path | None, ipv6: bool, report: Path | None, profiles: tuple[str, ...]
) -> None:
    """One dialogue, four paths: no gateway, monitor, a PIX 6.3, an ASA; or the --profile you name.

    Real mail over real sockets and a real kernel queue, in namespaces that are gone when it
    ends. Needs no root where unprivileged user namespaces are allowed.
    """
    from nfmailguard.lab import demo

    context.exit(demo.main(record, 6 if ipv6 else 4, report, profiles))


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


def _axis(name: str, what: str) -> Callable[[Command], Command]:
    return click.option(f"--{name}", f"{name}s", multiple=True, metavar="NAME", help=f"{what}; may be given again.")


@lab.command("compare")
@_axis("client", "swaks, postfix, msmtp, curl, smtplib or nodemailer")
@_axis("server", "postfix, exim, opensmtpd, sendmail or aiosmtpd")
@_axis("profile", "A name from `profile list`")
@_axis("mode", "enforce, monitor, or restore: the firewall between two gateways that undo it")
@click.option("--jobs", type=click.IntRange(1, 64), default=5, show_default=True, help="Mails at once, of each mode.")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@click.option(
    "--report",
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=named,
    metavar="FILE.html",
    help="Also write it as one HTML page that needs nothing else.",
)
@json_option
@click.pass_context
def lab_compare(
    context: click.Context,
    clients: tuple[str, ...],
    servers: tuple[str, ...],
    profiles: tuple[str, ...],
    modes: tuple[str, ...],
    jobs: int,
    record: Path | None,
    ipv6: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """What a firewall does to mail: real clients and real servers, through every profile in every mode.

    Each client sends a mail to each server: delivered byte for byte or not, under TLS, with AUTH, by EHLO or HELO, how
    long it took, what the gateways told; against what was expected (docs/matrix.md). Exit code 1 when something else
    came. As root, for servers change users; without an option it is all of it, some minutes.

    \b
      nfmailguard lab compare --profile asa --profile pix63
      nfmailguard lab compare --client postfix --server exim --mode enforce --html compare.html
    """
    from nfmailguard.lab.matrix import command

    choice = command.chosen(clients, servers, profiles, modes)
    context.exit(command.main(choice, 6 if ipv6 else 4, jobs, record, report, as_json=as_json))


@lab.command("restore")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="This one; may be given again. Else all.")
@record_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@report_option
@json_option
@click.pass_context
def lab_restore(
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
    from nfmailguard.lab import restore

    context.exit(restore.main(profiles, 6 if ipv6 else 4, record, as_json=as_json, page=report))


name_option = click.option(
    "--name", default="lab", show_default=True, metavar="NAME", help="Which lab; several may run."
)


def _choose_server(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from nfmailguard.errors import ConfigError
    from nfmailguard.lab.plans import SERVER_KINDS

    if value not in ("none", *SERVER_KINDS):
        raise ConfigError(f"--server {value}: unknown; one of {', '.join(SERVER_KINDS)}, none")
    return value


def _path(profile: str | None) -> str | None:
    """A profile's file as it is found from anywhere."""
    from nfmailguard.policy.load import load_profile

    if profile is None:
        return None
    load_profile(profile)
    return str(Path(profile).absolute()) if "/" in profile or profile.endswith(".toml") else profile


@lab.command("up")
@click.argument("topology", required=False, metavar="[TOPOLOGY]")
@name_option
@click.option(
    "--server",
    default="aiosmtpd",
    show_default=True,
    metavar="KIND",
    callback=_choose_server,
    help="aiosmtpd, postfix, exim, opensmtpd, sendmail or none.",
)
@click.option("--gateway", metavar="PROFILE", help="Start a gateway that enforces this profile. Else the path is free.")
@click.option("--mode", default="enforce", show_default=True, metavar="MODE", help="Of the gateway.")
@click.option(
    "--attach",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help="A device of this machine, to the client; given again, to the server: the two sides of a box.",
)
@click.pass_context
def lab_up(
    context: click.Context,
    topology: str | None,
    name: str,
    server: str,
    gateway: str | None,
    mode: str,
    devices: tuple[str, ...],
) -> None:
    """Make a lab to work in: client, gateway and server, with a mail server running.

    It stands until `lab down`, or until its process ends; nothing is left of it then.
    TOPOLOGY is a name from `lab topologies`, or a .toml file of yours, which says all
    that --server, --gateway and --mode do.

    \b
      nfmailguard lab up --server postfix --gateway asa
      nfmailguard lab up two-in-a-row
      nfmailguard lab up --gateway asa --attach eth1 --attach eth2
      nfmailguard lab talk
      nfmailguard lab set --profile pix63
      nfmailguard lab down
    """
    from nfmailguard import config
    from nfmailguard.errors import ConfigError
    from nfmailguard.lab import plans, standing

    if topology is not None:
        for option in ("server", "gateway", "mode"):
            if context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT:
                raise ConfigError(
                    f"--{option}: the topology {topology} says it; `lab set` changes it in a lab that runs"
                )
        plan = plans.read(topology)
    else:
        if gateway is not None:
            config.load(None, mode=mode, profile=gateway)
        plan = standing.Wanted(server, _path(gateway) or "", mode).plan()
    made = standing.up(name, plans.with_devices(plan, devices))
    echo("lab ready" if made else "this lab runs already; it is as it was")
    for line in standing.described(standing.status(name), name):
        echo(line)


@lab.command("topologies")
@click.argument("name", required=False)
@json_option
def lab_topologies(name: str | None, as_json: bool) -> None:
    """The labs that `lab up` makes by name; with NAME, that one as TOML, to be changed."""
    from nfmailguard.cli.common import echo_text
    from nfmailguard.lab import plans

    if name is not None and not as_json:
        echo_text(plans.text_named(name))
        return
    found = {one: plans.read(one) for one in ([name] if name is not None else plans.names())}
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for one, plan in found.items():
        echo(f"{one:{width}}  {plan.title}")


@lab.command("status")
@name_option
@json_option
def lab_status(name: str, as_json: bool) -> None:
    """Who is where in a lab, what runs, and how to go on."""
    from nfmailguard.lab import standing

    found = standing.status(name)
    if as_json:
        print_json({"name": name, **found})
        return
    for line in standing.described(found, name):
        echo(line)
    others = [other for other in standing.names() if other != name]
    if others:
        echo(f"other labs: {', '.join(others)}")


@lab.command("set")
@click.argument("host", default="")
@name_option
@click.option("--profile", metavar="PROFILE", help="Whose behaviour: a name from `profile list`, or a .toml file.")
@click.option("--mode", metavar="MODE", help="enforce, monitor or restore.")
def lab_set(host: str, name: str, profile: str | None, mode: str | None) -> None:
    """Have a gateway of the lab be another box, at once, or start one; HOST, where there are several.

    A connection that is open keeps the rules it began under, to its end; the next one has the new ones.

    \b
      nfmailguard lab set --profile pix63
      nfmailguard lab set far --profile pix40
      nfmailguard lab set --mode monitor
    """
    from nfmailguard import config
    from nfmailguard.lab import standing

    config.load(None, mode=mode or "enforce", profile=profile or "pix63")
    found = standing.reset(name, host, _path(profile), mode)
    for line in found["changed"]:
        echo(str(line))
    echo(f"{found['host']}: {found['mode']} {found['profile']}")


@lab.command("down")
@name_option
@click.option("--all", "everyone", is_flag=True, help="Every lab of yours.")
def lab_down(name: str, everyone: bool) -> None:
    """Remove a lab: its hosts, everything that runs on them, and its files."""
    from nfmailguard.lab import standing

    for one in standing.names() if everyone else [name]:
        echo(f"the lab {one!r} is gone" if standing.down(one) else f"there was no lab {one!r}")


@lab.command("talk")
@name_option
@click.option("--to", default="", metavar="ADDRESS", help="Of the server; else its first one.")
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@click.pass_context
def lab_talk(context: click.Context, name: str, to: str, ipv6: bool) -> None:
    """Speak SMTP from the lab's client to its server, line by line, as with telnet.

    What is typed is sent when the reply to the line before is there. From a pipe both sides are printed, as `translate`
    reads them.

    \b
      printf 'EHLO me.example\\nQUIT\\n' | nfmailguard lab talk
    """
    from nfmailguard.lab import standing

    context.exit(standing.talk(name, to, 6 if ipv6 else 4))


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def lab_exec(context: click.Context, name: str, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a HOST of a lab: client, gateway or server, or as its topology calls them.

    /run and /mnt are the lab's own there, all other files are this machine's.

    \b
      nfmailguard lab exec client -- nmap -sV -p 25 10.25.2.2
      nfmailguard lab exec gateway -- nfmailguard transcript /mnt/gateway/eve.json
    """
    from nfmailguard.lab import standing

    context.exit(standing.execute(host, command, name))
