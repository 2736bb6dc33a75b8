"""The command line: one room a group of commands, each importing what it needs when it is called.

Promises: exit codes 0, 1, 2; a mistake is one line on standard error.
"""

from __future__ import annotations

import sys

import click

from nfmailguard.cli import bench, gateway, lab, offline, probe, profiles
from nfmailguard.cli.common import cli
from nfmailguard.errors import NfmailguardError

__all__ = ["bench", "cli", "gateway", "lab", "main", "offline", "probe", "profiles"]

INTERRUPTED = 130


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
