"""``lab diff``: the same dialogues by two paths of a lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from nfmailguard.cli.common import echo, json_option, print_json
from nfmailguard.cli.lab import lab, name_option

if TYPE_CHECKING:
    from nfmailguard.policy.model import Policy

__all__: list[str] = []


def _chosen(found: Mapping[str, Any], named: Sequence[str]) -> list[dict[str, Any]]:
    """Two paths: those that are named; else the first one and the path of a device, or else the second one."""
    from nfmailguard.errors import ConfigError

    paths = {path["name"]: path for path in found["paths"]}
    known = f"the paths of this lab are {', '.join(paths)}"
    for name in named:
        if name not in paths:
            raise ConfigError(f"lab diff: no path {name!r}; {known}")
    if len(paths) < 2:
        raise ConfigError(
            f"lab diff: {known}, and it takes two: `nfmailguard lab up side-by-side`, or `lab up --attach`"
        )
    devices = [one["device"] for one in found["attached"] if one["device"] in paths]
    first = named[0] if named else next(iter(paths))
    others = [name for name in [*devices, *paths] if name != first]
    second = named[1] if len(named) > 1 else others[0]
    if first == second:
        raise ConfigError(f"lab diff: {first} twice; {known}")
    return [paths[first], paths[second]]


def _address(path: Mapping[str, Any], ipv6: bool) -> str:
    own = (path["ipv6"], path["ipv4"]) if ipv6 else (path["ipv4"], path["ipv6"])
    return str(own[0] or own[1])


def _enforced(found: Mapping[str, Any], path: Mapping[str, Any]) -> tuple[Policy | None, str]:
    """What the only gateway on a path enforces, and the profile's name; None if that is not known."""
    from nfmailguard.policy.load import load_profile

    gateways = [found["gateways"][host] for host in path["gateways"]]
    if len(gateways) != 1 or gateways[0]["mode"] != "enforce":
        return None, ""
    return load_profile(gateways[0]["profile"]), gateways[0]["profile"]


@lab.command("diff")
@click.argument("paths", nargs=-1, metavar="[LEFT [RIGHT]]")
@name_option
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@click.option("--only", multiple=True, metavar="DIALOGUE", help="This dialogue; may be given again.")
@click.option("--list", "as_list", is_flag=True, help="List the dialogues and send none.")
@json_option
@click.pass_context
def lab_diff(
    context: click.Context,
    paths: tuple[str, ...],
    name: str,
    ipv6: bool,
    only: tuple[str, ...],
    as_list: bool,
    as_json: bool,
) -> None:
    """Send the same dialogues by two paths of a lab: where do the boxes differ?

    Banners, each verb, EHLO, AUTH, STARTTLS, BDAT, pipelining, long lines, addresses,
    tricks in a mail's text, replies (--list): what arrived at both ends is compared step by
    step. LEFT and RIGHT are paths as `lab status` names them; without them the gateway of
    the lab, and the box behind a device of this machine or else the second gateway. Where
    the left gateway enforces a profile, the settings are named that would make it do what
    the right one does. Exit code 0: the same; 1: they differ; 3: they could not be compared.

    \b
      nfmailguard lab up --gateway asa --attach eth1 --attach eth2
      nfmailguard lab diff
      nfmailguard lab diff --only greeting.plain --json
    """
    from nfmailguard.errors import ConfigError
    from nfmailguard.lab.dialogues import DIALOGUES

    about = {one.name: one.about for one in DIALOGUES}
    if as_list:
        width = max(map(len, about))
        for one, text in about.items():
            echo(f"{one:{width}}  {text}")
        return
    if len(paths) > 2:
        raise ConfigError(f"lab diff: {len(paths)} paths; two are compared")
    if unknown := [one for one in only if one not in about]:
        raise ConfigError(
            *(f"--only {one}: no such dialogue; `nfmailguard lab diff --list` has them" for one in unknown)
        )
    context.exit(_compare(paths, name, only, about, ipv6=ipv6, as_json=as_json))


def _compare(
    named: Sequence[str], name: str, only: tuple[str, ...], about: dict[str, str], *, ipv6: bool, as_json: bool
) -> int:
    import subprocess
    import sys

    import msgspec

    from nfmailguard.lab import standing
    from nfmailguard.lab.differ import Asked, Both
    from nfmailguard.reports import differed
    from nfmailguard.verify.paths import differences, explained

    found = standing.status(name)
    left, right = _chosen(found, named)
    policy, profile = _enforced(found, left)
    addresses = _address(left, ipv6), _address(right, ipv6)
    asked = Asked(standing.first(found, "client"), standing.first(found, "server"), addresses, only)
    argv = [sys.executable, "-m", "nfmailguard.lab.differ", msgspec.json.encode(asked).decode()]
    done = standing.within(name, argv, stdout=subprocess.PIPE)
    if done.returncode:
        return 3
    both = msgspec.json.decode(done.stdout, type=Both)
    names = left["name"], right["name"]
    seen = differences(both.left, both.right)
    explanation = explained(policy, both.right, seen) if policy is not None and seen.differences else None
    if as_json:
        print_json(differed.as_json(seen, names, both.unsteady, explanation))
    else:
        for line in differed.lines(seen, names, about, both.unsteady, explanation, profile):
            echo(line)
    return 1 if seen.differences else 0
