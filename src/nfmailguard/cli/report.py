"""The command ``report``: what enforcing would break, from the events of a gateway that watches."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from nfmailguard.cli.common import cli, configured, echo, file_option, json_option, print_json
from nfmailguard.errors import ConfigError
from nfmailguard.reading import octets_of

__all__: list[str] = []

LEAST_KEY = 16


@cli.command()
@file_option
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--since", "start", metavar="TIME", default="7d", show_default=True, help="7d, 12h, or a time; all: all.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="The page as one HTML file.")
@click.option(
    "--redact",
    default="prefix",
    show_default=True,
    metavar="HOW",
    help="Senders as none (addresses), prefix (/24, IPv6 /48) or hash (keyed, of these networks).",
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The hash's key, of 16 bytes or more.")
@json_option
def report(
    path: Path | None,
    files: tuple[Path, ...],
    start: str,
    page: Path | None,
    redact: str,
    key: Path | None,
    as_json: bool,
) -> None:
    """Say what enforcing would break, from the events of log.eve, or of FILES (also .gz).

    Sessions that would lose TLS, AUTH, CHUNKING and other services, or be cut off, by sender. No text of
    peers and no mail address is shown; the same key gives the same names in every report.

    \b
      nfmailguard report --since 7d --html report.html
      nfmailguard report --redact hash --key /etc/nfmailguard/report.key eve.json.*.gz eve.json
    """
    from nfmailguard.events.outlook import Outlook, Redaction, Senders, lines_of, since
    from nfmailguard.events.targets import file_of
    from nfmailguard.reports import outlook
    from nfmailguard.reports.console import Console

    if redact not in list(Redaction):
        raise ConfigError(f"--redact {redact}: one of {', '.join(Redaction)}")
    first = None if start == "all" else since(start, datetime.now().astimezone())
    secret = octets_of(key, 4096).strip() if key else b""
    if redact == Redaction.HASH and len(secret) < LEAST_KEY:
        raise ConfigError(
            f"--redact hash: it needs --key with a file of {LEAST_KEY} bytes or more, or anybody can try all networks;"
            " `head -c 32 /dev/urandom | base64 > FILE` makes one"
        )
    if not files:
        eve = configured(path).log.eve
        kept = file_of(eve)
        if kept is None:
            raise ConfigError("log.eve: no file of events; name one")
        files = (kept,)
    found = Outlook(Senders(Redaction(redact), secret), first)
    for file in files:
        found.read(lines_of(file))
    found.finish()
    if page:
        try:
            page.write_text(outlook.html(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html {page}: {error.strerror}") from error
        echo(f"written: {page}", err=as_json)
    if as_json:
        print_json(outlook.as_json(found))
    elif not page:
        outlook.render(found, Console())
