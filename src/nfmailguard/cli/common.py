"""The command itself, and the options that several commands have. Promises: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nfmailguard import __version__
from nfmailguard.plain import block, json_safe, printable

if TYPE_CHECKING:
    from nfmailguard.config import Config

__all__ = [
    "Bold",
    "cli",
    "configured",
    "echo",
    "echo_text",
    "file_option",
    "gateway_options",
    "json_option",
    "named",
    "policy_options",
    "print_json",
]

DEFAULT_CONFIG = Path("/etc/nfmailguard/nfmailguard.toml")
Command = TypeVar("Command", bound=Callable[..., Any])


class Bold(str):
    """A part of a text that is highlighted on a terminal."""

    __slots__ = ()


def echo(*parts: str, err: bool = False) -> None:
    """Prints a line, ``parts`` one after the other: all output is printed by this, ``echo_text`` or our Console.

    What is not printable is escaped, whoever wrote it.
    """
    shown = [printable(part) for part in parts]
    styled = [
        click.style(text, bold=True) if isinstance(part, Bold) else text
        for part, text in zip(parts, shown, strict=True)
    ]
    click.echo("".join(styled), err=err)


def echo_text(text: str, *, err: bool = False, tabs: bool = False) -> None:
    """Prints whole lines; their line ends, and with ``tabs`` their tabs, are kept."""
    click.echo(block(text, tabs=tabs), err=err, nl=False)


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
    click.option("--mode", metavar="MODE", help="enforce, monitor or restore. A [[rule]] of the configuration wins."),
    click.option(
        "--profile",
        metavar="NAME",
        help="Whose behaviour: a name from `profile list`, or a .toml file. A [[rule]] wins.",
    ),
    click.option(
        "--faithful",
        is_flag=True,
        help="Judge each packet alone, as Cisco does: a command cut over two packets is denied.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any key of the configuration or the profile, as queue.length=8192 (deploy/nfmailguard.toml has all).",
    ),
)
gateway_options = options(
    file_option,
    policy_options,
    click.option("--dry-run", is_flag=True, help="Report what would be done and change no byte."),
    click.option("--queue", metavar="N[-M]", help="The kernel queue, or several."),
    click.option("--driver", metavar="NAME", help="kernel or netfilterqueue (the PyPI package)."),
)


def named(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is None:
        return None
    from nfmailguard.reports import pages

    return pages.named(value)


report_option = click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=named,
    metavar="FILE.html",
    help="Also write both sides as one HTML page that needs nothing else.",
)
ports_option = click.option(
    "--port",
    "ports",
    multiple=True,
    type=click.IntRange(1, 65535),
    help="Of mail servers; may be given again. Else 25.",
)
sides_option = click.option(
    "--sides",
    is_flag=True,
    help="Two captures are of a box's client side and of its server side, not of what came to it and what left it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")


def configured(path: Path | None, **choices: Any) -> Config:
    """The configuration of a gateway, from ``path`` or the usual place."""
    from nfmailguard import config

    return config.load(config_path(path), **choices)


def config_path(path: Path | None) -> Path | None:
    """``path``, or the usual place; None if there is neither."""
    return DEFAULT_CONFIG if path is None and DEFAULT_CONFIG.exists() else path


def print_json(value: object) -> None:
    """Prints one value as readable JSON."""
    import msgspec

    echo_text(json_safe(msgspec.json.format(msgspec.json.encode(value), indent=2)).decode() + "\n")


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
      nfmailguard status                          healthy or degraded, and why
      nfmailguard rules remove                    out of the path at once, connections kept
    """
