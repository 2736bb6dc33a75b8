"""The testbed for techniques: attacker, running gateway, recording server, and a tap behind the gateway.

Promises: the effect of a technique is determined from the server's record, from the packets that left the gateway and
from the kernel's queue, never from what the gateway reports. A technique runs alone except for one honest mail. Does
not know the techniques.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from nfmailguard.errors import LabError
from nfmailguard.lab import oracle
from nfmailguard.lab.control_mail import ControlMail
from nfmailguard.lab.evasions.technique import LOST, PORTS_EACH, Attack, NotTried, Technique
from nfmailguard.lab.lenient_server import Conversation
from nfmailguard.lab.rawtcp import RST, Link, RawTcp, Seen, Sent
from nfmailguard.lab.readers import SERVERS, Reader, Server
from nfmailguard.lab.recorder import Recorder
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.policy.model import Policy
from nfmailguard.queues.kernel import queue_states

__all__ = ["DROPPED", "GOT_PAST", "HELD", "MASKED", "NOT_TRIED", "NO_EFFECT", "RESET", "Testbed", "Trial"]

GOT_PAST, RESET, MASKED, HELD, DROPPED = "GOT PAST", "reset", "masked", "held", "dropped"
#: Outcome: the packets left the gateway unchanged, and the server read nothing forbidden in them.
NO_EFFECT = "no effect"
NOT_TRIED = "not tried"

#: An address on the client's link that belongs to no host, so that no kernel answers packets to it.
ATTACKER = {4: "10.25.1.66", 6: "fd25:1::66"}
#: Addresses at which the server also listens for Multipath TCP.
MULTIPATH = {4: "10.25.2.3", 6: "fd25:2::3"}
IFA_F_NODAD = 2
FIRST_PORT = 20_000
QUIET = 0.05
HOP = f"""
table inet hops {{
    chain lost {{
        type filter hook prerouting priority -300; policy accept;
        ip ttl <= {LOST} drop
        ip6 hoplimit <= {LOST} drop
    }}
}}
"""


class Trial(NamedTuple):
    """The result of one technique. ``faults``: why it got past, or why it was not tried."""

    technique: Technique
    outcome: str
    received: bytes
    faults: tuple[str, ...]
    control_mail: str
    ports: frozenset[int]
    #: For each connection: the lines the server read as commands, and its answer to each.
    dialogues: tuple[tuple[tuple[bytes, bytes], ...], ...]
    notes: tuple[str, ...]


class Testbed:
    """One topology, prepared. A context manager."""

    def __init__(
        self, topology: Topology, family: int, cookies: int = 1, server: str = SERVERS[0], scratch: Path | None = None
    ) -> None:
        self._topology, self._family, self._cookies = topology, family, cookies
        self._kind, self._scratch = server, scratch
        self._stack = ExitStack()
        self._tried = 0

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        topology = self._topology
        with topology.enter(CLIENT):
            _write("net/ipv4/ip_forward", "0")
        with topology.enter(SERVER):
            # Forged packets make the gateway send the server ICMPv6 redirects to the client, which it must not follow.
            _write("net/ipv6/conf/net0/accept_redirects", "0")
            _write("net/ipv4/tcp_syncookies", str(self._cookies))
        with topology.enter(GATEWAY):
            # Packets that arrive on the wrong interface with the server's source address must reach the gateway's own
            # rules.
            for where in ("all", "default", "inside", "outside"):
                _write(f"net/ipv4/conf/{where}/rp_filter", "0")
                _write(f"net/ipv4/conf/{where}/send_redirects", "0")
        client, router = _hardware(topology, CLIENT, "net0"), _hardware(topology, GATEWAY, "outside")
        self._spare_address(client)
        self._second_server()
        done = topology.run(SERVER, ["nft", "-f", "-"], input=HOP, text=True, capture_output=True)
        if done.returncode:
            raise LabError(f"lab: cannot lose packets behind the gateway (nft): {done.stderr.strip()}")
        self._server: Server
        if self._kind == SERVERS[0]:
            self._server = self._stack.enter_context(Recorder(topology, multipath=MULTIPATH.values()))
        else:
            assert self._scratch is not None
            self._server = self._stack.enter_context(Reader(topology, self._scratch, self._kind))
        with topology.enter(CLIENT):
            self._link = Link("net0", router)
        self._stack.callback(self._link.close)
        with topology.enter(SERVER):
            self._tap = Link("net0")
        self._stack.callback(self._tap.close)

    def _spare_address(self, hardware: str) -> None:
        from pyroute2 import IPRoute

        with self._topology.enter(GATEWAY), IPRoute() as ip:
            index = ip.link_lookup(ifname="outside")[0]
            for address in ATTACKER.values():
                ip.neigh("replace", dst=address, lladdr=hardware, ifindex=index, state="permanent")

    def _second_server(self) -> None:
        from pyroute2 import IPRoute

        with self._topology.enter(SERVER), IPRoute() as ip:
            index = ip.link_lookup(ifname="net0")[0]
            for family, address in MULTIPATH.items():
                # Without duplicate address detection an IPv6 address can be used at once.
                flags = {} if family == 4 else {"flags": IFA_F_NODAD}
                ip.addr("add", index=index, address=address, prefixlen=24 if family == 4 else 64, **flags)

    def attack(self, technique: Technique, policy: Policy) -> Attack:
        """The means for ``technique`` against a gateway of ``policy``; sets the server's behaviour as the technique
        needs it.
        """
        source = ATTACKER[self._family]
        server = self._topology.address(SERVER, family=self._family)
        multipath = MULTIPATH[self._family] if self._server.multipath else None
        port = FIRST_PORT + PORTS_EACH * (self._tried % 1000)
        attack = Attack(self._link, source, server, multipath, port, policy, cookies=self._cookies)
        self._tried += 1
        attack.before_it = len(self._server.conversations(source))
        for port in attack.ports():
            self._server.expect(source, port, technique.server)
        return attack

    def _held(self) -> int:
        # The kernel's count of packets that wait for a verdict. Some are only in transit, so the smallest of several
        # readings counts; an unprivileged user may not read it.
        counts = []
        with self._topology.enter(GATEWAY):
            for _ in range(4):
                counts.append(sum(state.total for state in queue_states().values()))
                if not counts[-1]:
                    break
                time.sleep(0.005)
        return min(counts)

    def play(self, technique: Technique, attack: Attack) -> Trial:
        """Runs one technique, with an honest mail at the same time, and judges the result."""
        held = self._held()
        list(self._tap.read())
        # The connection was not opened before the gateway started: count the connections the server has had up to now.
        if attack.early is None:
            attack.before_it = len(self._server.conversations(attack.source))
        control_mail = ControlMail(self._topology, self._server, self._family, self._tried)
        control_mail.start()
        failure = ""
        try:
            technique.run(attack)
            self._insist(attack)
        except NotTried as error:
            failure = str(error)
        self._settle(attack)
        told = control_mail.result()
        left = [seen for seen in self._tap.read() if seen.ends.port in attack.ports() and not seen.outgoing]
        conversations = self._server.conversations(attack.source)[attack.before_it :]
        conversations = [one for one in conversations if one.peer[1] in attack.ports() or not one.peer[1]]
        heard = [octets for one in attack.connections for octets in (bytes(one.heard), bytes(one.heard_last.values()))]
        faults = oracle.faults(
            conversations, oracle.denied_verbs(attack.policy), attack.forbidden, heard, attack.forbidden_to_client
        )
        outcome = outcome_of(attack.connections, conversations, left, held=self._held() > held)
        if outcome in (NO_EFFECT, DROPPED) and attack.forbidden_to_client:
            said, came = b"".join(bytes(one.sent) for one in conversations), b"".join(heard[::2])
            outcome = MASKED if said != came else NO_EFFECT
        if not conversations and any(one.heard for one in attack.connections):
            failure = "the server tells nothing of what it answered"
        if faults:
            outcome = GOT_PAST
        elif failure:
            outcome, faults = NOT_TRIED, [failure]
        received = b" ".join(bytes(one.received) for one in conversations)
        if attack.forbidden_to_client:
            received = b" ".join(bytes(one.heard) for one in attack.connections)
        self._hang_up(attack)
        dialogues = tuple(tuple(zip_longest(one.lines, one.answers, fillvalue=b"")) for one in conversations)
        notes = tuple(attack.notes)
        return Trial(technique, outcome, received, tuple(faults), told, attack.ports(), dialogues, notes)

    def _insist(self, attack: Attack) -> None:
        # Bytes that were not acknowledged are retransmitted, as any client does, with the content last sent.
        for _ in range(2):
            attack.wait(QUIET)
            again = [one for one in attack.connections if one.established and not one.reset and one.put_again()]
            if not again:
                return
        attack.wait(QUIET)

    def _settle(self, attack: Attack) -> None:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            self._link.dispatch(0.01)
            ours = self._server.conversations(attack.source)
            if all(time.monotonic() - one.changed > QUIET for one in ours[-3:]):
                return

    def _hang_up(self, attack: Attack) -> None:
        for one in attack.connections:
            place = (one.acknowledged - one.isn - 1) % (1 << 32) if one.established else one.here
            one.stray(flags=RST, at=place)
        attack.relieve()
        self._link.connections.clear()


def _write(key: str, value: str) -> None:
    Path("/proc/sys", key).write_text(value)


def _hardware(topology: Topology, host: str, interface: str) -> str:
    from pyroute2 import IPRoute

    with topology.enter(host), IPRoute() as ip:
        link: Any = ip.get_links(ip.link_lookup(ifname=interface)[0])[0]
        return str(link.get("address"))


def outcome_of(
    connections: Sequence[RawTcp], conversations: Sequence[Conversation], left: Sequence[Seen], *, held: bool
) -> str:
    """The outcome of an attack that did not get past, from what ``left`` the gateway and what the server has."""
    sent = {tag: said for one in connections for tag, said in one.sent.items()}
    ours = {place for one in connections for place in one.resets_sent}
    if any(seen.flags & RST and seen.seq not in ours for seen in left):
        return RESET
    arrived = {seen.tag: seen for seen in left}
    if any(_changed(sent[tag], seen) for tag, seen in arrived.items() if tag in sent):
        return MASKED
    if any(_not_as_said(one, conversations) for one in connections):
        return MASKED
    if all(tag in arrived for tag, said in sent.items() if said.payload):
        return NO_EFFECT
    return HELD if held else DROPPED


def _changed(said: Sent, seen: Seen) -> bool:
    packet = said.packet
    return packet is not None and (packet.payload, packet.flags, packet.options) != (
        seen.payload,
        seen.flags,
        seen.options,
    )


def _not_as_said(connection: RawTcp, conversations: Sequence[Conversation]) -> bool:
    """Whether the server has a byte that was never sent at its place."""
    said: dict[int, set[int]] = {}
    for sent in connection.sent.values():
        for place, octet in enumerate(sent.payload, sent.place):
            said.setdefault(place, set()).add(octet)
    same = [one for one in conversations if one.peer[1] == connection.ends.port and one.octets]
    return len(same) == 1 and any(octet not in said.get(place, {octet}) for place, octet in enumerate(same[0].received))
