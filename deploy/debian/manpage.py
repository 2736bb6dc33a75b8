"""Prints nfmailguard(1), made from the commands: every one with its help and its options, as `--help` says them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from nfmailguard import __version__
from nfmailguard.cli import cli

#: What no command says of itself.
REST = r""".SH FILES
.TP
.I /etc/nfmailguard/nfmailguard.toml
The configuration that the service runs with; every key is explained in it.
.TP
.I /var/log/nfmailguard/eve.json
Events, a JSON object a line.
.TP
.I /run/nfmailguard/control.sock
Where a running gateway answers.
.SH SEE ALSO
.BR nft (8),
.BR systemctl (1),
.I /usr/share/doc/nfmailguard"""


def escaped(text: str) -> str:
    """Text in which groff finds no request and no escape."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """A command's help; what click keeps as it is (behind \\b) is kept here."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        kept = paragraph.startswith("\b")
        lines = [line if kept else line.strip() for line in paragraph.removeprefix("\b\n").splitlines()]
        yield ".PP"
        yield from (".nf", escaped("\n".join(lines)), ".fi") if kept else (escaped("\n".join(lines)),)


def described(command: click.Command, context: click.Context) -> Iterator[str]:
    """What a command says of itself, then its options."""
    yield from paragraphs(command.help or "")
    for parameter in command.get_params(context):
        if parameter.name == "help" and context.parent:
            continue  # as everywhere
        if record := parameter.get_help_record(context):
            yield from (".TP", rf"\fB{escaped(record[0])}\fR", escaped(record[1]) or r"\&")


def commands(group: click.Group, context: click.Context) -> Iterator[str]:
    """Every command below the group, with those below it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(below))
        yield from (".SS", rf"\fB{escaped(below.command_path)}\fR {escaped(usage)}")
        yield from described(command, below)
        if isinstance(command, click.Group):
            yield from commands(command, below)


def page() -> Iterator[str]:
    context = click.Context(cli, info_name="nfmailguard", **cli.context_settings)
    yield f'.TH NFMAILGUARD 1 "" "nfmailguard {__version__}" "User Commands"'
    yield from (".SH NAME", r"nfmailguard \- inline SMTP inspection on a Netfilter queue")
    yield from (".SH SYNOPSIS", r".B nfmailguard", r"[\fIoptions\fR] \fIcommand\fR [\fIarguments\fR]")
    yield ".SH DESCRIPTION"
    yield from described(cli, context)
    yield ".SH COMMANDS"
    yield from commands(cli, context)
    yield REST


if __name__ == "__main__":
    print("\n".join(page()))  # noqa: T201
