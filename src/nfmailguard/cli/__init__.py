"""The command line: one module per group of commands, each importing what it needs when it is called.

Promises: exit codes 0, 1, 2; a mistake is one line on standard error.
"""

from __future__ import annotations

import io
import sys

import click

from nfmailguard.cli import bench, gateway, lab, lab_diff, offline, probe, profiles, report, running, verify
from nfmailguard.cli.common import cli, echo, echo_text
from nfmailguard.errors import NfmailguardError
from nfmailguard.plain import printable
from nfmailguard.service.signals import inherited

__all__ = [
    "bench",
    "cli",
    "gateway",
    "lab",
    "lab_diff",
    "main",
    "offline",
    "probe",
    "profiles",
    "report",
    "running",
    "verify",
]

INTERRUPTED = 130


def main() -> None:
    """The command ``nfmailguard``."""
    inherited()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal's character set lacks are written as escapes.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="nfmailguard", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        told, message = io.StringIO(), error.format_message()
        error.show(told)
        echo_text(told.getvalue().replace(message, printable(message)), err=True)
        code = error.exit_code
    except NfmailguardError as error:
        for line in error.lines:
            echo(f"nfmailguard: {line}", err=True)
        code = error.exit_code
    sys.exit(code or 0)
