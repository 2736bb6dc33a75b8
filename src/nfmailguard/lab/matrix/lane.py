"""One mode of the matrix on hosts of its own: servers that run throughout, a path whose rules change, many clients.

    enforce, monitor    client ── gateway ── server
    restore             client ── before (restore) ── firewall (enforce) ── behind (restore) ── server

Promises: gateways take other rules by reload when the last mail under the old ones is through; a mail is delivered
where its bytes lie in the server's spool; no gateway says so. What the gateways said is read when they have ended.
"""

from __future__ import annotations

import json
import quopri
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from nfmailguard.errors import NfmailguardError
from nfmailguard.lab.matrix.cells import Cell, Choice, Outcome
from nfmailguard.lab.matrix.receivers import Receiver, Taken
from nfmailguard.lab.matrix.senders import Letter, Relay, Sent, send, sender_for
from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.probe.learn import learned
from nfmailguard.service.asking import Asking

__all__ = ["BEFORE", "BEHIND", "FIREWALL", "Lane", "Try", "judged"]

BEFORE, FIREWALL, BEHIND = "before", "firewall", "behind"
#: First values of the last address part of clients and of servers; each of them has its own address.
_CLIENTS_FROM, _SERVERS_FROM = 20, 40
IFA_F_NODAD = 2
#: Seconds a server may take to store a mail it has accepted.
_PROMPT = 5.0
_HEAD = (
    "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: {token}\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
    "Message-ID: <{token}@client.example.net>\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)
#: Message lines that a firewall which takes text for commands, or a client that forgets dot-stuffing, would change.
BODY = (
    "EHLO in a message is text, so are XXXX and STARTTLS\r\n.\r\n..\r\n.one dot in front\r\n250 OK\r\n"
    "MAIL FROM:<a|b@example.net>\r\nCaf\u00e9, 8 \u20ac\r\n\r\n  blanks in front and behind  \r\n"
    + "x" * 900
    + "\r\n{token}\r\n"
)


class Try(NamedTuple):
    """A cell, its mail and what its client reported."""

    cell: Cell
    token: str
    body: bytes
    sent: Sent


def judged(tried: Try, mails: Sequence[Taken]) -> Outcome:
    """The outcome of a try; ``mails``: the mails that arrived."""
    sent = tried.sent
    outcome = Outcome(False, seconds=round(sent.seconds, 2), accepted=sent.accepted, said=sent.said)
    if not mails:
        return outcome
    damage, body = "", tried.body.replace(b"\r\n", b"\n")
    encoded = mails[0].body != body and quopri.decodestring(mails[0].body) == body
    if len(mails) > 1:
        damage = f"it lies there {len(mails)} times"
    elif mails[0].body != body and not encoded:
        damage = "its body is another one"
    extended, _, kind = mails[0].protocol.rpartition("SMTP")
    return msgspec.structs.replace(
        outcome,
        delivered=not damage,
        damage=damage,
        encoded=encoded,
        ehlo=extended == "E",
        tls="S" in kind,
        auth="A" in kind,
    )


class Lane:
    """The hosts of one mode, as a context manager: ``start`` starts their programs, then ``run`` is called for each
    profile.
    """

    def __init__(self, mode: str, choice: Choice, directory: Path, family: int, jobs: int) -> None:
        self.mode, self._choice, self._directory, self._family = mode, choice, directory, family
        self._hosts = (BEFORE, FIREWALL, BEHIND) if mode == "restore" else (GATEWAY,)
        self._tokens = count(1)
        self._jobs = jobs
        self._stack = ExitStack()
        self._gateways: dict[str, Gateway] = {}
        self._receivers: dict[str, Receiver] = {}
        self._relay: Relay | None = None
        self._learned: dict[str, str] = {}
        self._mails: dict[str, list[Taken]] = {}

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        self._directory.mkdir(parents=True)
        self._directory.chmod(0o755)
        (self._directory / "mails").mkdir()
        self._topology = self._stack.enter_context(Topology(f"{self.mode}-", self._hosts))
        self._sources = self._add_addresses(CLIENT, self._choice.clients, _CLIENTS_FROM)
        self._servers = self._add_addresses(SERVER, self._choice.servers, _SERVERS_FROM)

    def start(self) -> None:
        """Starts servers, gateways and Postfix's client; they end with the lane."""
        hosts = self._servers
        with ThreadPoolExecutor(self._jobs) as pool:
            # All servers are started at once; each one that runs is registered to be stopped, even if another fails to
            # start.
            starting = [(kind, pool.submit(self._receive, kind, hosts[kind])) for kind in self._choice.servers]
            failed = []
            for kind, one in starting:
                try:
                    self._receivers[kind] = self._stack.enter_context(one.result())
                except NfmailguardError as error:
                    failed.append(error)
            if failed:
                raise failed[0]
            if self.mode == "restore":
                self._learned = dict(zip(hosts, pool.map(self._learn, hosts), strict=True))
        if "postfix" in self._choice.clients:
            addresses = {kind: self._address(kind) for kind in hosts}
            source = self._sources["postfix"][self._family == 6]
            relay = Relay(self._topology, self._directory / "client-postfix", source, addresses)
            self._relay = self._stack.enter_context(relay)
        self._configure(self._choice.profiles[0])
        for host in self._hosts:
            options = ("-c", str(self._config(host)), "--set", f"service.control={self._control(host)}")
            gateway = Gateway(self._topology, self._directory / host, *options, host=host)
            self._gateways[host] = self._stack.enter_context(gateway)

    def _add_addresses(self, host: str, names: Sequence[str], first: int) -> dict[str, tuple[str, str]]:
        """Gives ``host`` an address of each family for each name."""
        from pyroute2 import IPRoute

        own = [self._topology.address(host, family=family) for family in (4, 6)]
        found = {}
        with self._topology.enter(host), IPRoute() as ip:
            index = ip.link_lookup(ifname="net0")[0]
            for number, name in enumerate(names, first):
                four, six = own[0].rpartition(".")[0] + f".{number}", own[1].rpartition(":")[0] + f":{number}"
                ip.addr("add", index=index, address=four, prefixlen=24)
                ip.addr("add", index=index, address=six, prefixlen=64, flags=IFA_F_NODAD)
                found[name] = (four, six)
        return found

    def _address(self, server: str) -> str:
        return self._receivers[server].address[self._family == 6]

    def _receive(self, kind: str, addresses: tuple[str, str]) -> Receiver:
        return Receiver(self._topology, self._directory / f"server-{kind}", kind, addresses)

    def _learn(self, server: str) -> str:
        with self._topology.enter(CLIENT):
            return learned(self._address(server)).text

    def _config(self, host: str) -> Path:
        return self._directory / f"{host}.toml"

    def _control(self, host: str) -> Path:
        return self._directory / f"{host}.socket"

    def _configure(self, profile: str) -> None:
        """Writes the gateways' configurations."""
        for host in self._hosts:
            mode = {GATEWAY: self.mode, FIREWALL: "enforce"}.get(host, "restore")
            text = f'[gateway]\nmode = "{mode}"\nprofile = {json.dumps(profile)}\n'
            if mode == "restore":
                text += f'[restore]\nside = "{"client" if host == BEFORE else "server"}"\n'
                text += "\n".join(self._learned.values())
            self._config(host).write_text(text)

    def run(self, profile: str, done: Callable[[], None]) -> Iterator[tuple[Cell, Outcome]]:
        """Sends a mail from each client to each server under ``profile``; ``done`` is called as each is complete."""
        self._configure(profile)
        for host in self._hosts:
            with Asking(str(self._control(host)), timeout=60) as asking:
                asking.ask("reload")
        wanted = [
            Cell(client, server, profile, self.mode)
            for client in self._choice.clients
            for server in self._choice.servers
        ]

        def one(cell: Cell) -> Try:
            tried = self._send(cell)
            done()
            return tried

        with ThreadPoolExecutor(self._jobs) as pool:
            tries = list(pool.map(one, wanted))
        self._wait_for({tried.token for tried in tries if tried.sent.accepted})
        for tried in tries:
            yield tried.cell, judged(tried, self._mails.get(tried.token, []))

    def _send(self, cell: Cell) -> Try:
        token = f"{self.mode}{next(self._tokens)}"
        sender, recipient = sender_for(cell.server), f"{token}@example.com"
        body = BODY.format(token=token).encode()
        file = self._directory / "mails" / f"{token}.eml"
        file.write_bytes(_HEAD.format(sender=sender, recipient=recipient, token=token).encode() + body)
        source = self._sources[cell.client][self._family == 6]
        letter = Letter(file, sender, recipient, source, self._address(cell.server))
        if cell.client == "postfix":
            assert self._relay is not None
            return Try(cell, token, body, self._relay.send(letter))
        return Try(cell, token, body, send(cell.client, self._topology, letter))

    def _wait_for(self, tokens: set[str]) -> None:
        """Waits until the mails that servers have accepted are stored, or a time limit is reached."""
        deadline = time.monotonic() + _PROMPT
        while True:
            for receiver in self._receivers.values():
                for taken in receiver.taken():
                    self._mails.setdefault(taken.token, []).append(taken)
            if tokens <= set(self._mails) or time.monotonic() > deadline:
                return
            time.sleep(0.1)

    def logs(self) -> Mapping[Cell, dict[str, int]]:
        """Ends the gateways; findings by the cell whose connections they are about."""
        clients = {address: name for name, both in self._sources.items() for address in both}
        servers = {address: name for name, one in self._receivers.items() for address in one.address}
        found: dict[Cell, Counter[str]] = {}
        for gateway in self._gateways.values():
            gateway.stop()
            for event in gateway.events():
                ends = clients.get(event["src_ip"]), servers.get(event["dest_ip"])
                if None not in ends:
                    cell = Cell(str(ends[0]), str(ends[1]), event["mailguard"]["profile"], self.mode)
                    found.setdefault(cell, Counter())[event["mailguard"]["finding"]] += 1
        return {cell: dict(sorted(counts.items())) for cell, counts in found.items()}
