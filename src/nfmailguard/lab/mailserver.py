"""A real SMTP server (aiosmtpd) that keeps what it read and what it wrote, octet for octet.

Run as ``python -m nfmailguard.lab.mailserver DIRECTORY [options]``; it prints
``ready`` when it listens. For each connection N it writes ``N.dialogue`` (one line an
event: ``>`` read or ``<`` written, and the octets as a Python literal) and for each
mail ``N-M.eml``, as received.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from nfmailguard.lab.account import PASSWORD, USER
from nfmailguard.lab.certificate import certify

__all__ = ["main"]


class _Mailbox:
    """Stores every mail under its connection's number."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mails = itertools.count(1)

    async def handle_EHLO(  # noqa: N802, aiosmtpd's name
        self, server: _Server, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]] if server.dsn else responses

    async def handle_DATA(self, server: _Server, session: Session, envelope: Envelope) -> str:  # noqa: N802, aiosmtpd's name
        number = next(self.mails)
        name = f"{server.number}-{number}.eml"
        content = server.received(session) + (envelope.original_content or b"")
        (self.directory / f".{name}").write_bytes(content)
        # Renaming the complete file ensures that no reader sees half a mail.
        (self.directory / f".{name}").rename(self.directory / name)
        return f"250 2.0.0 Ok: queued as {server.number:04X}{number:04X}"


class _Server(SMTP):
    """One connection, with a record of its bytes."""

    connections = itertools.count(1)

    def __init__(self, mailbox: _Mailbox, *, dsn: bool = False, traced: bool = False, **options: Any) -> None:
        self.dsn, self.traced = dsn, traced
        self._begun = b""
        self.number = next(self.connections)
        self._record = (mailbox.directory / f"{self.number}.dialogue").open("wb", buffering=0)
        super().__init__(mailbox, **options)

    def data_received(self, data: bytes) -> None:
        self._record.write(b"> %r\n" % data)
        super().data_received(data)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802, aiosmtpd's name
        await super().smtp_MAIL(self._taken(arg, ("RET=", "ENVID=")))

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802, aiosmtpd's name
        await super().smtp_RCPT(self._taken(arg, ("NOTIFY=", "ORCPT=")))

    def received(self, session: Session) -> bytes:
        """The trace line of RFC 5321 4.4, if it is wanted, with the protocol's name by RFC 3848."""
        if not self.traced:
            return b""
        protocol = "ESMTP" if session.extended_smtp else "SMTP"
        if session.extended_smtp:
            protocol += ("S" if session.ssl is not None else "") + ("A" if session.authenticated else "")
        return f"Received: from {session.host_name} by {self.hostname} with {protocol}\r\n".encode()

    def _taken(self, arg: str | None, parameters: tuple[str, ...]) -> str | None:
        # DSN parameters (RFC 3461), which aiosmtpd does not know, are accepted if DSN is offered.
        if arg is None or not self.dsn:
            return arg
        return " ".join(word for word in arg.split(" ") if not word.upper().startswith(parameters))

    async def push(self, status: str | bytes) -> None:
        octets = self._begun + (status if isinstance(status, bytes) else status.encode("utf-8")) + b"\r\n"
        self._begun = b""
        if octets.splitlines()[-1][3:4] == b"-":
            self._begun = octets  # Lines of a reply are collected and sent together, as other servers do.
            return
        self._record.write(b"< %r\n" % octets)
        await super().push(octets[:-2])


def _certificate(directory: Path) -> ssl.SSLContext | None:
    # Without a certificate STARTTLS is not offered, as a TLS handshake would fail.
    pair = certify(directory)
    if pair is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


def _anybody(*_: Any) -> AuthResult:
    return AuthResult(success=True)


def _with_account(_server: Any, _session: Session, _envelope: Envelope, _mechanism: str, said: Any) -> AuthResult:
    return AuthResult(success=said == LoginPassword(USER.encode(), PASSWORD.encode()), handled=False)


async def _serve(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.directory
    mailbox = _Mailbox(directory)
    tls = _certificate(directory) if arguments.starttls else None
    host, _, greeting = arguments.greeting.partition(" ")

    def connection() -> _Server:
        return _Server(
            mailbox,
            dsn=arguments.dsn,
            traced=arguments.received,
            hostname=host,
            ident=greeting,
            tls_context=tls,
            data_size_limit=64 * 1024 * 1024,
            authenticator=_with_account if arguments.account else _anybody,
            auth_require_tls=False,
            decode_data=False,
        )

    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(connection, address, arguments.port) for address in arguments.listen]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main(argv: list[str] | None = None) -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--listen", action="append", required=True, help="an address; may be given again")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--greeting", default="mail2.example.com ESMTP 8.12.10", help="behind 220")
    parser.add_argument("--dsn", action="store_true", help="offer delivery status notifications (RFC 3461)")
    parser.add_argument("--received", action="store_true", help="put a Received line in front of each mail")
    parser.add_argument("--account", action="store_true", help="AUTH is for the lab's account; else for anybody")
    parser.add_argument("--no-starttls", dest="starttls", action="store_false")
    arguments = parser.parse_args(argv)
    try:
        asyncio.run(_serve(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
