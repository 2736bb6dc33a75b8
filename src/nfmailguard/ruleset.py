"""nfmailguard's one nftables table, which sends packets to the queue.

Promises: ``apply`` leaves exactly the wanted table and ``remove`` none, each in one
transaction and whatever was there before; nothing outside the table is touched. What
cannot be done is a RulesetError of one line. Does not know what reads the queue.

    base chain of output ── clears the mark of our own packets and accepts them
    base chain of each hook
      └─ by TCP port ──▶ to_server, to_client ── by the protected addresses ──▶ inspect ── counter, queue
    with offload, a later base chain ── copies a packet's mark to its connection, which inspect then lets pass

Every packet is queued in one place, the chain ``inspect``, so that its counter is what the queue
should have received. The chains come after the usual filter (priority 0): what another
table drops is never inspected. A ``ct`` expression makes conntrack, and with it the
reassembly of fragments, run before our chains, for everything in the network namespace. Where flows may be
changed this is needed, since a rule on ports never sees a later fragment; where they are only watched
there is no such expression, and fragments bypass the queue: a queued first fragment would be overtaken by the others.

A packet's mark may be set by others: firewalls save marks with the connection and put them on its later packets
(CONNMARK). So our marks mean something only where they have just been set: the mark of our own packets where this
machine sends them, and none leaves with it; the offload mark on packets from the queue, and none enters it so.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from nfmailguard import foreign
from nfmailguard.errors import RulesetError
from nfmailguard.queues.injector import INJECT_MARK
from nfmailguard.statements import (
    ACCEPT,
    ACCEPT_PACKET,
    BEGINS_IN_ITS_MIDST,
    BEGINS_OR_ENDS,
    CONNECTION_MARK,
    CONNECTION_OFFLOADED,
    COUNTER,
    DIRECTIONS,
    FIRST_PARTS,
    FROM_LOOPBACK,
    IN_BETWEEN,
    INSPECT_CONNECTION,
    INVALID,
    JUMP,
    MARK_BY_CONNECTION,
    NEW,
    NO_SYN,
    OFFLOAD_CONNECTION,
    OFFLOAD_MARK,
    PACKET_OFFLOADS,
    TRANSLATED,
    UNMARK_PACKET,
    Network,
    Statement,
    address,
    connection_marked,
    connection_with_mark,
    goto,
    marked,
    on_port,
    verdict,
    with_mark,
)

__all__ = [
    "CONNECTION_MARK",
    "HOOKS",
    "OFFLOAD_MARK",
    "TABLE",
    "Installed",
    "Network",
    "Others",
    "Ruleset",
    "installed",
    "others",
    "remove",
    "rules_of_others",
]

TABLE = "nfmailguard"
#: Name of the chain that sends packets to the queue.
QUEUEING = "inspect"
#: The netfilter hooks in which a chain may be placed, with their numbers (linux/netfilter.h).
HOOKS = {"input": 1, "forward": 2, "output": 3}
PRIORITY = 10
#: Priority before conntrack, so that no other rule can save a packet's mark in its connection earlier.
FIRST = -450

# Constants from linux/netfilter/nf_tables.h.
NFPROTO_ANY, NFPROTO_INET = 0, 1
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
BYPASS = 1
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
NAT_HOOKS = {0: "prerouting", 1: "input", 3: "output", 4: "postrouting"}
BATCH_BEGIN, BATCH_END = 0x10, 0x11


class Chain(NamedTuple):
    """A chain with its rules; ``hook`` None: entered by a jump only."""

    name: str
    hook: str | None
    rules: tuple[tuple[Statement, ...], ...]
    priority: int = PRIORITY


class Installed(NamedTuple):
    """The table in the kernel: its queues, and the packets that matched their rule since it was loaded.

    ``fragments``: inspected packets whose fragments bypassed the queue; each is counted by its first fragment.
    """

    queue_first: int
    queue_last: int
    packets: int
    fragments: int = 0


class Ruleset:
    """Our table for queues ``queue_first`` to ``queue_last`` and the servers' TCP ``ports``.

    ``hooks``: names in HOOKS. ``bypass``: packets pass while no program reads the queue. ``mark``: this machine's
    packets that carry it are never queued, and the mark is cleared. ``addresses``: the protected servers' networks;
    none means all. With both ``input`` and ``output``, what the machine sends to itself is queued on output alone, as
    it would be seen twice. ``conntrack`` False: nothing in the table makes conntrack run, and fragments are not
    queued. ``connections``, which needs conntrack: a packet without a mark, whose connection's addresses are
    translated, is queued with a mark that distinguishes its connection (CONNECTION_MARK); the queue's reader removes
    it. ``offload``, which needs conntrack: a connection is not queued any more once a packet of it has left the queue
    with OFFLOAD_MARK, until a packet begins or ends it, or may do so: the engine sees every SYN, FIN and RST, and
    decides again whether the other packets can bypass the queue.
    """

    def __init__(
        self,
        queue_first: int,
        queue_last: int,
        ports: Sequence[int],
        hooks: Sequence[str],
        *,
        bypass: bool = False,
        mark: int = INJECT_MARK,
        addresses: Sequence[Network] = (),
        conntrack: bool = True,
        connections: bool = False,
        offload: bool = False,
    ) -> None:
        if not (0 <= queue_first <= queue_last <= 0xFFFF):
            raise ValueError("queue numbers out of range")
        if not ports or not hooks or not set(hooks) <= set(HOOKS):
            raise ValueError("ports and known hooks are needed")
        self.queue_first, self.queue_last = queue_first, queue_last
        self.ports = tuple(dict.fromkeys(ports))
        self.hooks = tuple(hook for hook in HOOKS if hook in hooks)
        self.bypass = bypass
        self.mark = mark
        self.addresses = tuple(dict.fromkeys(addresses))
        self.conntrack = conntrack or connections or offload
        self.connections = connections
        self.offload = offload

    def apply(self, *, same_chains: bool = False) -> None:
        """Loads the table in place of any other with its name. Raises RulesetError and changes nothing then.
        ``same_chains``: replaces only the rules, because removing a chain drops the packets it has queued."""
        self._load(keep=same_chains)

    def check(self) -> None:
        """Checks whether the kernel would take the table, without loading it. Raises RulesetError."""
        self._load(commit=False)

    def _load(self, **how: bool) -> None:
        with Nftables() as nftables:
            try:
                nftables.load(self._chains(self._native()), **how)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                # The kernel lacks nftables' queue expression: use xtables' NFQUEUE target (revision 3, xt_NFQUEUE.h).
                nftables.load(self._chains(self._compatible()), **how)

    def remove(self) -> None:
        """Removes the table, as the module's ``remove`` does."""
        remove()

    def render(self) -> str:
        """The text that ``nft -f`` would load."""
        listing = "\n".join(_listed(chain) for chain in self._chains(self._native()))
        return (
            f"#!/usr/sbin/nft -f\n# nfmailguard: TCP port(s) {', '.join(map(str, self.ports))} to queue"
            f" {self._numbers()}. Loading it again is harmless.\n# A kernel without queue expressions has xtables'"
            " NFQUEUE in their place, which `nft list` cannot show (it names iptables-nft).\n"
            f"table inet {TABLE}\n"
            f"delete table inet {TABLE}\n\n"
            f"table inet {TABLE} {{\n{listing}}}\n"
        )

    def _numbers(self) -> str:
        several = self.queue_last > self.queue_first
        return f"{self.queue_first}-{self.queue_last}" if several else str(self.queue_first)

    def _native(self) -> Statement:
        text = f"queue{' flags bypass' if self.bypass else ''} to {self._numbers()}"
        total = self.queue_last - self.queue_first + 1
        flags = BYPASS if self.bypass else 0
        return Statement(text, (("queue", {"num": self.queue_first, "total": total, "flags": flags}),))

    def _compatible(self) -> Statement:
        total = self.queue_last - self.queue_first + 1
        info = struct.pack("=HHHxx", self.queue_first, total, BYPASS if self.bypass else 0)
        return Statement("", (("target", {"name": "NFQUEUE", "rev": 3, "info": info}),))  # type: ignore[dict-item]

    def _chains(self, queue: Statement) -> Iterator[Chain]:
        """The chains; those that others jump to come first, as a transaction is read in order."""
        past: tuple[tuple[Statement, ...], ...] = ()
        if self.offload:
            # If conntrack first saw a packet of the server, it takes the server for the initiator and ignores the next
            # connection's SYNs, so that the offload mark would stay. Such packets do not bypass the queue.
            past = (
                (UNMARK_PACKET,),
                (BEGINS_OR_ENDS, INSPECT_CONNECTION),
                *(
                    (on_port(field, port), DIRECTIONS[field], IN_BETWEEN, CONNECTION_OFFLOADED, COUNTER, ACCEPT_PACKET)
                    for port, field in product(self.ports, DIRECTIONS)
                ),
            )
        marks = (
            (
                (marked(0), TRANSLATED, NEW, NO_SYN, BEGINS_IN_ITS_MIDST),
                (marked(0), TRANSLATED, MARK_BY_CONNECTION),
            )
            if self.connections
            else ()
        )
        before = ((INVALID, COUNTER),) if self.conntrack else [(part, COUNTER, ACCEPT_PACKET) for part in FIRST_PARTS]
        yield Chain(QUEUEING, None, (*past, *before, *marks, (COUNTER, queue)))
        for name, field in (("to_server", "daddr"), ("to_client", "saddr")):
            protected = tuple((address(field, network), goto(QUEUEING)) for network in self.addresses)
            yield Chain(name, None, protected or ((goto(QUEUEING),),))
        if not {"input", "output"} & set(self.hooks):
            yield Chain("ours", "output", ((marked(self.mark), with_mark(0)),), FIRST)
        for hook in self.hooks:
            twice = hook == "input" and "output" in self.hooks
            yield Chain(
                hook,
                hook,
                (
                    *self._ours(hook),
                    *(((FROM_LOOPBACK, ACCEPT_PACKET),) if twice else ()),
                    *(
                        (on_port(field, port), verdict(f"jump {chain}", JUMP, chain))
                        for port, (field, chain) in product(
                            self.ports, (("dport", "to_server"), ("sport", "to_client"))
                        )
                    ),
                ),
            )
            if self.offload:
                # A verdict ends the queueing chain, so the mark that the packet gets with it is tested in a later
                # chain. Only packets of inspected ports are tested: on others the bit may be someone else's.
                rules = tuple(
                    (on_port(field, port), PACKET_OFFLOADS, *then)
                    for port, field in product(self.ports, DIRECTIONS)
                    for then in ((DIRECTIONS[field], OFFLOAD_CONNECTION), (UNMARK_PACKET,))
                )
                yield Chain(f"{hook}_offload", hook, rules, PRIORITY + 1)

    def _ours(self, hook: str) -> tuple[tuple[Statement, ...], ...]:
        """Rules that let our own packets out: on output, and those that then came over loopback unqueued."""
        if hook == "forward" or (hook == "input" and "output" in self.hooks):
            return ()
        ours = (marked(self.mark), *((FROM_LOOPBACK,) if hook == "input" else ()))
        # An earlier rule on output may have saved our packet mark in the connection mark, so it is cleared.
        saved = ((*ours, connection_marked(self.mark), connection_with_mark(0)),) if self.conntrack else ()
        return (*saved, (*ours, with_mark(0), ACCEPT_PACKET))


def installed() -> Installed | None:
    """What the table in the kernel does; None: there is none. Raises RulesetError."""
    with Nftables() as nftables:
        return nftables.installed()


class Others(NamedTuple):
    """What is not ours: flowtables, and base chains that translate addresses, each as ``FAMILY TABLE NAME``.

    A flowtable makes a connection's packets bypass every hook, once a rule has added the connection to it; which
    connections a rule adds cannot be determined here. Each entry of ``translating`` begins with its hook.
    """

    flowtables: tuple[str, ...]
    translating: tuple[str, ...]


def others() -> Others:
    """What is not ours in this network namespace. Raises RulesetError."""
    with Nftables(NFPROTO_ANY) as nftables:
        return nftables.others()


def rules_of_others() -> foreign.Rules:
    """All rules of this network namespace that are not in our table. Raises RulesetError."""
    return foreign.read(Nftables, TABLE)


def remove() -> None:
    """Removes our table, also one left by a crash; does nothing if there is none. Raises RulesetError."""
    with Nftables() as nftables:
        nftables.load(None)


def _listed(chain: Chain) -> str:
    lines = [f"\tchain {chain.name} {{"]
    if chain.hook:
        lines.append(f"\t\ttype filter hook {chain.hook} priority {_priority(chain.priority)}; policy accept;")
    lines += ["\t\t" + " ".join(statement.text for statement in rule) for rule in chain.rules]
    return "\n".join([*lines, "\t}", ""])


def _priority(number: int) -> str:
    return f"filter + {number}" if number > 0 else str(number)


class Nftables:
    """A connection to the kernel's nftables; what fails inside the block becomes a RulesetError."""

    def __init__(self, family: int = NFPROTO_INET) -> None:
        self._family = family

    def __enter__(self) -> Nftables:
        from pyroute2.nftables.main import NFTables

        try:
            self._socket: Any = NFTables(nfgen_family=self._family)
        except OSError as error:
            raise RulesetError(_explain(error)) from error
        try:
            # Probed first: without permission or nf_tables, the answer to a whole transaction names none of its
            # messages, and pyroute2 would wait for ever.
            self._probe()
        except OSError as error:
            self._socket.close()
            raise RulesetError(_explain(error)) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._socket.close()
        if isinstance(error, OSError):
            raise RulesetError(_explain(error)) from error

    def load(self, chains: Iterable[Chain] | None, *, commit: bool = True, keep: bool = False) -> None:
        """In one transaction, removes the existing table, if any, and loads ``chains`` in a new one.

        A transaction that is not ended is checked and undone (nfnetlink_rcv_batch). ``keep``: only rules are replaced.
        """
        from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_DELRULE, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE

        table = {"NFTA_TABLE_NAME": TABLE}
        messages = [self._message(NFT_MSG_NEWTABLE, table), self._message(NFT_MSG_DELTABLE, table)]
        if keep:
            messages = [self._message(NFT_MSG_DELRULE, {"NFTA_RULE_TABLE": TABLE})]
        elif chains is not None:
            messages.append(self._message(NFT_MSG_NEWTABLE, table))
        for chain in chains or ():
            messages += [*self._chain_messages(chain)][keep:]  # the first message creates the chain
        end = [self._edge(BATCH_END)] if commit else []
        self._asked(self._socket.nlm_request_batch, [self._edge(BATCH_BEGIN), *messages, *end])

    def installed(self) -> Installed | None:
        """As the module's ``installed``."""
        from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETRULE, nft_rule_msg

        request = nft_rule_msg()
        request["attrs"] = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", QUEUEING)]
        packets, fragments, found = 0, 0, None
        for rule in self._asked(self._socket.request_get, request, NFT_MSG_GETRULE):
            expressions: list[str] = []
            for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
                name, data = expression.get_attr("NFTA_EXPR_NAME"), expression.get_attr("NFTA_EXPR_DATA")
                expressions.append(name)
                if name == "counter":
                    packets = data.get_attr("NFTA_COUNTER_PACKETS")
                    # Counters of the rules that accept first fragments: only those read headers and no ct state.
                    if "ct" not in expressions and {"payload", "exthdr"} & set(expressions):
                        fragments += packets
                elif name == "queue":
                    first, total = data.get_attr("NFTA_QUEUE_NUM"), data.get_attr("NFTA_QUEUE_TOTAL")
                    found = Installed(first, first + total - 1, packets, fragments)
                elif name == "target":
                    info = bytes.fromhex(data.get_attr("NFTA_TARGET_INFO").replace(":", ""))
                    first, total = struct.unpack_from("=HH", info)
                    found = Installed(first, first + total - 1, packets, fragments)
        return found

    def others(self) -> Others:
        """As the module's ``others``."""
        from pyroute2.netlink.nfnetlink import nfgen_msg
        from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE

        flowtables = self._asked(self._socket.request_get, nfgen_msg(), NFT_MSG_GETFLOWTABLE)
        chains = self._asked(self._socket.request_get, nfgen_msg(), NFT_MSG_GETCHAIN)
        translating = *filter(None, map(_translating, chains)), *_legacy()
        return Others(tuple(map(_flowtable, flowtables)), translating)

    def dump(self, request: Any, kind: int) -> Any:
        """What the kernel lists for the family of this connection."""
        return self._asked(self._socket.request_get, request, kind)

    def _probe(self) -> None:
        from pyroute2.netlink.nfnetlink import nfgen_msg
        from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETGEN

        self._asked(self._socket.request_get, nfgen_msg(), NFT_MSG_GETGEN, NLM_F_REQUEST)

    @staticmethod
    def _asked(ask: Callable[..., Any], *request: Any) -> Any:
        # pyroute2's NetlinkError is not an OSError, so it is converted.
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return ask(*request)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error

    def _chain_messages(self, chain: Chain) -> Iterator[Any]:
        from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE
        from pyroute2.nftables.expressions import genex

        attributes: dict[str, Any] = {"NFTA_CHAIN_TABLE": TABLE, "NFTA_CHAIN_NAME": chain.name}
        if chain.hook:
            place = [("NFTA_HOOK_HOOKNUM", HOOKS[chain.hook]), ("NFTA_HOOK_PRIORITY", chain.priority)]
            attributes |= {"NFTA_CHAIN_HOOK": {"attrs": place}, "NFTA_CHAIN_POLICY": ACCEPT}
            attributes |= {"NFTA_CHAIN_TYPE": "filter"}
        yield self._message(NFT_MSG_NEWCHAIN, attributes)
        for rule in chain.rules:
            expressions = [genex(name, value) for statement in rule for name, value in statement.expressions]
            where = {"NFTA_RULE_TABLE": TABLE, "NFTA_RULE_CHAIN": chain.name}
            yield self._message(NFT_MSG_NEWRULE, {**where, "NFTA_RULE_EXPRESSIONS": expressions})

    @staticmethod
    def _message(kind: int, attributes: dict[str, Any]) -> Any:
        from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nftsocket

        message = nftsocket.AsyncNFTSocket.policy[kind]()
        message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | kind
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
        if kind not in (nftsocket.NFT_MSG_DELTABLE, nftsocket.NFT_MSG_DELRULE):
            message["header"]["flags"] |= NLM_F_CREATE | NLM_F_APPEND
        message["nfgen_family"] = NFPROTO_INET
        message["attrs"] = list(attributes.items())
        return message

    @staticmethod
    def _edge(kind: int) -> Any:
        from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg

        message = nfgen_msg()
        message["res_id"] = NFNL_SUBSYS_NFTABLES
        message["header"]["type"] = kind
        message["header"]["flags"] = NLM_F_REQUEST
        return message


def _flowtable(message: Any) -> str:
    family = FAMILIES.get(message["nfgen_family"], "?")
    return f"{family} {message.get_attr('NFTA_FLOWTABLE_TABLE')} {message.get_attr('NFTA_FLOWTABLE_NAME')}"


def _translating(message: Any) -> str | None:
    if message.get_attr("NFTA_CHAIN_TYPE") != "nat":
        return None
    hook = NAT_HOOKS.get(message.get_attr("NFTA_CHAIN_HOOK").get_attr("NFTA_HOOK_HOOKNUM"), "?")
    family = FAMILIES.get(message["nfgen_family"], "?")
    return f"{hook} {family} {message.get_attr('NFTA_CHAIN_TABLE')} {message.get_attr('NFTA_CHAIN_NAME')}"


def _legacy() -> Iterator[str]:
    # The tables of legacy iptables, which nftables does not list.
    for family, name in (("ip", "ip_tables_names"), ("ip6", "ip6_tables_names")):
        with suppress(OSError):
            if "nat" in Path(f"/proc/thread-self/net/{name}").read_text().split():
                yield from (f"{hook} {family} iptables nat" for hook in ("prerouting", "postrouting"))


def _explain(error: OSError) -> str:
    code = error.errno
    if code in (errno.EPERM, errno.EACCES):
        return "rules: no permission; run as root or with CAP_NET_ADMIN"
    if code == errno.ENOENT:
        return "rules: this kernel has no way to queue packets; load nft_queue or xt_NFQUEUE"
    if code in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return f"rules: this kernel has no usable nf_tables ({error.strerror}); load nf_tables and nf_conntrack"
    return f"rules: {error.strerror or error}"
