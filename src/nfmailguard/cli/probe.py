"""``probe`` and ``diagnose``: is there a Mailguard on the path, and has one been?"""

from __future__ import annotations

from pathlib import Path

import click

from nfmailguard.cli.common import cli, echo, echo_text, json_option, print_json

__all__: list[str] = []


def _ends(where: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``."""
    host, colon, port = where.rpartition(":")
    if where.startswith("["):
        host, _, rest = where[1:].partition("]")
        colon, port = rest[:1], rest[1:]
    elif where.count(":") != 1:
        host, colon, port = where, "", ""
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise click.UsageError(f"{where!r}: write HOST, HOST:PORT or [ADDRESS]:PORT")
    return host, int(port) if colon else 25


@cli.command()
@click.argument("where", metavar="HOST[:PORT]")
@click.option("--timeout", type=click.FloatRange(1, 600), default=30.0, show_default=True, help="Seconds for a reply.")
@click.option("--ports/--no-ports", default=True, help="Compare port 25 with 587 and 465 of the same host.")
@click.option("--from", "namespace", metavar="NAMESPACE", help="Ask from this network namespace, too, and compare.")
@click.option(
    "--with",
    "results",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with what `probe --json` printed elsewhere.",
)
@click.option("--learn", is_flag=True, help="Print what the server says as a [[restore.server]], and judge nothing.")
@click.option("--message", is_flag=True, help="Print only the message to the firewall's owner.")
@json_option
@click.pass_context
def probe(
    context: click.Context,
    where: str,
    timeout: float,
    ports: bool,
    namespace: str | None,
    results: tuple[Path, ...],
    learn: bool,
    message: bool,
    as_json: bool,
) -> None:
    """Is there a Mailguard-like box on the path to a mail server, and which?

    Ask from where mail would come: for your own server from outside your network, for another
    one from your mail server. Three connections to each address of the host, and for port 25 one
    to each of 587 and 465; commands no server minds, no mail. Exit code 0: nothing found; 1:
    found; 3: could not tell.

    \b
      nfmailguard probe mail.example.com
      nfmailguard probe [2001:db8::25]:25 --json > here.json
      nfmailguard probe mail.example.com --with there.json
    """
    from nfmailguard.probe import compare, verdict
    from nfmailguard.probe import learn as learning
    from nfmailguard.probe.letter import letter

    host, port = _ends(where)
    if learn:
        said = learning.learned(host, port, timeout)
        echo_text(said.text)
        for line in said.left_out:
            echo(f"nfmailguard: left out: {line}", err=True)
        return
    vantages = [compare.of_result(path) for path in results]
    if namespace is not None:
        vantages.append(compare.from_namespace(namespace, where, timeout))
    found = verdict.examine_all(host, port, timeout, ports=ports and port == 25, vantages=vantages)
    if as_json:
        print_json(verdict.as_json(found))
    elif message:
        text = letter(found)
        echo_text(text)
        if not text:
            echo(f"{where}: nothing is sure enough for a message", err=True)
    else:
        from nfmailguard.reports import probed
        from nfmailguard.reports.console import Console

        probed.render(found, letter(found), Console())
    context.exit(found.exit_code)


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def diagnose(context: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Has a Mailguard been at work? Looks for its traces in mail logs, firewall logs and captures.

    FILE is a log of Postfix, Exim, sendmail, OpenSMTPD, qmail or Exchange, of a firewall, of
    journald, a bounce, a transcript, or a pcap; packed with gzip, bzip2 or xz as well; "-" is
    standard input. Several are read as one. Exit code 0: none; 1: traces; 3: only such as have
    other causes, too, or the files tell nothing of mail.

    \b
      nfmailguard diagnose /var/log/mail.log /var/log/mail.log.1.gz
      journalctl -u 'postfix*' -o json | nfmailguard diagnose -
    """
    from nfmailguard.probe import traces

    found = traces.read_all(files)
    if as_json:
        print_json(traces.as_json(found))
    else:
        from nfmailguard.reports import probed
        from nfmailguard.reports.console import Console

        probed.render_traces(found, Console())
    context.exit(found.exit_code)
