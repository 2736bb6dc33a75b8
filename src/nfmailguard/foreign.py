"""Other tables' rules: what they do to packets of mail, before or after ours.

Promises: changes nothing. A rule is evaluated as the kernel's nftables would (its expressions are a small machine with
registers), for a packet of which only some fields are known; what depends on anything else is taken as possible, and
marked as not ``sure``. Does not know which effect is a fault.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

__all__ = ["BaseChain", "Effect", "Packet", "Rule", "Rules", "followed", "read"]

FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
#: Flag of a set element that only marks the end of the interval before it (linux/netfilter/nf_tables.h).
INTERVAL_END = 1
#: Most rules evaluated for one packet; a ruleset with more paths than that is not evaluated to its end.
MOST_STEPS = 50_000
DEEPEST = 16
#: An example of a client's port: an ephemeral one (RFC 6335 6) that no rule is likely to name.
CLIENT_PORT = 50_001
REGISTER_BYTES = 16 * 4 + 16
Value = tuple[int | None, ...]
Expression = tuple[str, Any]
#: A range of a set's or map's keys: first key, last key, and the data they map to.
Range = tuple[bytes, bytes, Any]


class Packet(NamedTuple):
    """A TCP packet, as far as it is known: server port, ``family`` 4 or 6, ``server`` its address; ``answer``: the
    server sent it.
    """

    port: int
    answer: bool = False
    family: int = 4
    server: bytes | None = None


class Effect(NamedTuple):
    """What a rule may do to a packet: ``kind``, and its ``value``.

    ``queue``: its number; ``dnat``: (address, port), either None; ``mark`` and ``ct_mark``: the bits that are set, None
    if not known; ``flow``: the flowtable. ``where`` is ``FAMILY TABLE CHAIN``; ``hook``: of its base chain.
    """

    kind: str
    value: Any
    sure: bool
    where: str
    hook: str
    bypass: bool = False


class Rule(NamedTuple):
    family: int
    table: str
    chain: str
    expressions: tuple[Expression, ...]


class BaseChain(NamedTuple):
    family: int
    table: str
    name: str
    hook: str
    priority: int
    #: The chain's policy: "accept" or "drop".
    policy: str = "accept"


class Rules(NamedTuple):
    """The rules of one network namespace without our own table. ``sets``: by family, table and name: key ranges and
    data.
    """

    chains: tuple[BaseChain, ...] = ()
    rules: tuple[Rule, ...] = ()
    sets: dict[tuple[int, str, str], tuple[Range, ...]] = {}


def read(connect: Callable[[int], Any], ours: str) -> Rules:
    """All rules except those of the table ``ours``. ``connect``: opens nftables for a family's number, 0 for any."""
    from pyroute2.netlink.nfnetlink import nfgen_msg
    from pyroute2.netlink.nfnetlink import nftsocket as nft

    with connect(0) as nftables:
        chains = [_chain(message) for message in nftables.dump(nfgen_msg(), nft.NFT_MSG_GETCHAIN)]
        rules = [_rule(message) for message in nftables.dump(nfgen_msg(), nft.NFT_MSG_GETRULE)]
        found = list(nftables.dump(nfgen_msg(), nft.NFT_MSG_GETSET))
    sets: dict[tuple[int, str, str], tuple[Range, ...]] = {}
    for family in dict.fromkeys(message["nfgen_family"] for message in found):
        with connect(family) as nftables:
            for message in found:
                table, name = message.get_attr("NFTA_SET_TABLE"), message.get_attr("NFTA_SET_NAME")
                if message["nfgen_family"] != family or table == ours:
                    continue
                request = nft.nft_set_elem_list_msg()
                request["attrs"] = [("NFTA_SET_ELEM_LIST_TABLE", table), ("NFTA_SET_ELEM_LIST_SET", name)]
                elements: list[Any] = []
                for answer in nftables.dump(request, nft.NFT_MSG_GETSETELEM):
                    elements += answer.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ()
                flags = message.get_attr("NFTA_SET_FLAGS") or ()
                sets[family, table, name] = tuple(_ranges(elements, "NFT_SET_INTERVAL" in flags))
    base = sorted((chain for chain in chains if chain and chain.table != ours), key=lambda chain: chain.priority)
    return Rules(tuple(base), tuple(rule for rule in rules if rule.table != ours), sets)


def _chain(message: Any) -> BaseChain | None:
    hook = message.get_attr("NFTA_CHAIN_HOOK")
    if hook is None:
        return None
    family, number = message["nfgen_family"], hook.get_attr("NFTA_HOOK_HOOKNUM")
    name = ("ingress" if number == 0 else "egress") if family == 5 else HOOKS.get(number, "?")
    return BaseChain(
        family,
        message.get_attr("NFTA_CHAIN_TABLE"),
        message.get_attr("NFTA_CHAIN_NAME"),
        name,
        hook.get_attr("NFTA_HOOK_PRIORITY"),
        "accept" if message.get_attr("NFTA_CHAIN_POLICY") in (1, None) else "drop",
    )


def _rule(message: Any) -> Rule:
    expressions = message.get_attr("NFTA_RULE_EXPRESSIONS") or ()
    found = tuple((one.get_attr("NFTA_EXPR_NAME"), _plain(one.get_attr("NFTA_EXPR_DATA"))) for one in expressions)
    table, chain = message.get_attr("NFTA_RULE_TABLE"), message.get_attr("NFTA_RULE_CHAIN")
    return Rule(message["nfgen_family"], table, chain, found)


def _plain(data: Any) -> Any:
    """Netlink attributes as dictionaries, with the common prefix of their names removed."""
    if isinstance(data, dict) and "attrs" in data:
        return {name.split("_", 2)[-1]: _plain(value) for name, value in data["attrs"]}
    return data


def _ranges(elements: Iterable[Any], intervals: bool) -> Iterator[Range]:
    ends: list[tuple[bytes, bool, Any]] = []
    for element in elements:
        plain = _plain(element)
        key = plain.get("ELEM_KEY", {}).get("VALUE", b"")
        if "ELEM_KEY_END" in plain:
            yield key, plain["ELEM_KEY_END"].get("VALUE", key), plain.get("ELEM_DATA")
        elif intervals:
            ends.append((key, INTERVAL_END in (plain.get("ELEM_FLAGS") or ()), plain.get("ELEM_DATA")))
        else:
            yield key, key, plain.get("ELEM_DATA")
    # The end of an interval is the first key outside it, so the next interval may begin with the same key: ends are
    # sorted first.
    ends.sort(key=lambda end: (end[0], not end[1]))
    for place, (key, is_end, data) in enumerate(ends):
        if is_end:
            continue
        last = b"\xff" * len(key)
        if place + 1 < len(ends):
            last = (int.from_bytes(ends[place + 1][0]) - 1).to_bytes(len(key))
        yield key, last, data


def followed(rules: Rules, packet: Packet, hooks: Sequence[str]) -> list[Effect]:
    """What the rules in the base chains of ``hooks`` may do to ``packet``, each effect once."""
    walk = _Walk(rules, packet)
    families = {1, 5, 2 if packet.family == 4 else 10}
    for chain in rules.chains:
        if chain.family in families and chain.hook in hooks:
            walk.base = chain
            walk.chain(chain.name, sure=True, depth=0)
    return list(dict.fromkeys(walk.effects))


class _Walk:
    """A packet's path through the chains. Marks are not tracked: a comparison with them may or may not match."""

    def __init__(self, rules: Rules, packet: Packet) -> None:
        self.effects: list[Effect] = []
        self.base = BaseChain(0, "", "", "", 0)
        self._packet = packet
        self._sets = rules.sets
        self._rules: dict[tuple[int, str, str], list[Rule]] = {}
        for rule in rules.rules:
            self._rules.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
        self._steps = 0

    def chain(self, name: str, *, sure: bool, depth: int) -> bool:
        """Evaluates a chain; whether the packet certainly does not return to the base chain's next rule."""
        key = (self.base.family, self.base.table, name)
        for rule in self._rules.get(key, ()) if depth < DEEPEST else ():
            self._steps += 1
            if self._steps > MOST_STEPS:
                return True
            reached = _Registers(self._packet, self._sets, key[:2])
            outcome = self._rule(rule, reached, sure, depth)
            if outcome == "end":
                return True
            if outcome == "return":
                return False
        return False

    def _rule(self, rule: Rule, registers: _Registers, sure: bool, depth: int) -> str:
        """Evaluates a rule; what certainly comes next: ``next``, ``return`` or ``end``."""
        for name, data in rule.expressions:
            for kind, value, bypass in registers.effects(name, data):
                self._note(rule, kind, value, sure and registers.sure, bypass)
            if name in TESTS and not registers.test(name, data or {}):
                return "next"
            if name in ENDING or (name == "target" and (data or {}).get("NAME") in ENDING_TARGETS):
                return "end" if registers.sure else "next"
        code, chain = registers.verdict
        if code in ("NFT_JUMP", "NFT_GOTO"):
            ended = self.chain(chain, sure=sure and registers.sure, depth=depth + 1)
            if registers.sure and (ended or code == "NFT_GOTO"):
                return "end" if ended else "return"
        elif code == "NF_DROP":
            self._note(rule, "drop", None, sure and registers.sure, False)
        if registers.sure and code in ("NF_DROP", "NF_ACCEPT"):
            return "end"
        return "return" if registers.sure and code == "NFT_RETURN" else "next"

    def _note(self, rule: Rule, kind: str, value: Any, sure: bool, bypass: bool) -> None:
        where = f"{FAMILIES.get(rule.family, '?')} {rule.table} {rule.chain}"
        self.effects.append(Effect(kind, value, sure, where, self.base.hook, bypass))


#: Expressions that only decide whether a rule continues, or load something into a register.
TESTS = {"meta", "payload", "cmp", "range", "bitwise", "byteorder", "lookup", "match", "immediate", "ct", "exthdr"} | {
    "fib", "rt", "socket", "osf", "hash", "numgen", "limit", "quota", "connlimit", "xfrm", "tunnel", "dynset", "last"
}  # fmt: skip
#: Expressions and targets after which the packet does not return to this base chain.
ENDING = {"nat", "redir", "masq", "queue", "reject", "tproxy", "synproxy", "fwd"}
ENDING_TARGETS = {"DNAT", "SNAT", "REDIRECT", "MASQUERADE", "NFQUEUE", "REJECT", "SYNPROXY", "TPROXY"}
UNKNOWN: Value = (None,) * 16


def _offset(register: Any) -> int:
    text = str(register)
    if text.startswith("NFT_REG32_"):
        return int(text[-2:]) * 4
    return (int(text[-1]) - 1) * 16 if text[-1:].isdigit() else -1


class _Registers:
    """The kernel's registers for one rule. ``sure``: nothing unknown has been tested so far."""

    def __init__(self, packet: Packet, sets: dict[tuple[int, str, str], Any], table: tuple[int, str]) -> None:
        self.sure = True
        self.verdict: tuple[str, str] = ("", "")
        self._packet = packet
        self._sets = sets
        self._table = table
        self._bytes: list[int | None] = [None] * REGISTER_BYTES

    def _get(self, register: Any, length: int) -> Value:
        start = _offset(register)
        return tuple(self._bytes[start : start + length]) if start >= 0 else UNKNOWN[:length]

    def _set(self, register: Any, value: Sequence[int | None]) -> None:
        start = _offset(register)
        if start >= 0:
            self._bytes[start : start + len(value)] = value
            del self._bytes[REGISTER_BYTES:]

    def test(self, name: str, data: dict[str, Any]) -> bool:
        """Whether the rule may continue after this expression."""
        if name == "immediate" and str(data.get("DREG")) == "NFT_REG_VERDICT":
            found = data.get("DATA", {}).get("VERDICT", {})
            self._decide(found)
        elif name == "immediate":
            self._set(data["DREG"], data.get("DATA", {}).get("VALUE", b""))
        elif name in ("meta", "payload") and "DREG" in data:
            self._set(data["DREG"], self._loaded(name, data))
        elif name in ("cmp", "range"):
            return self._compared(name, data)
        elif name == "lookup":
            return self._looked_up(data)
        elif name == "bitwise":
            self._masked(data)
        elif name == "match":
            return self._matched(data)
        elif "DREG" in data:
            self._set(data["DREG"], UNKNOWN)
        elif name in ("limit", "quota", "connlimit"):
            self.sure = False
        return True

    def _decide(self, verdict: dict[str, Any]) -> None:
        self.verdict = (str(verdict.get("CODE", "")), str(verdict.get("CHAIN", "")))

    def _loaded(self, name: str, data: dict[str, Any]) -> Value:
        packet = self._packet
        if name == "meta":
            known = {"NFT_META_L4PROTO": b"\x06", "NFT_META_NFPROTO": b"\x02" if packet.family == 4 else b"\x0a"}
            known["NFT_META_PROTOCOL"] = b"\x08\x00" if packet.family == 4 else b"\x86\xdd"
            return tuple(known.get(str(data.get("KEY")), ())) or UNKNOWN
        header: list[int | None] = [None] * 64
        if data.get("BASE") == "NFT_PAYLOAD_TRANSPORT_HEADER":
            ends = (packet.port, CLIENT_PORT) if packet.answer else (CLIENT_PORT, packet.port)
            header[:4] = struct.pack("!HH", *ends)
        elif data.get("BASE") == "NFT_PAYLOAD_NETWORK_HEADER":
            header[9 if packet.family == 4 else 6] = 6
            if packet.server is not None:
                size = len(packet.server)
                place = (12 if packet.family == 4 else 8) + (0 if packet.answer else size)
                header[place : place + size] = packet.server
        start, length = data.get("OFFSET") or 0, data.get("LEN") or 0
        return tuple((header[start : start + length] + [None] * length)[:length])

    def _compared(self, name: str, data: dict[str, Any]) -> bool:
        if name == "range":
            low, high = data["FROM_DATA"]["VALUE"], data["TO_DATA"]["VALUE"]
            value, negated = self._get(data["SREG"], len(low)), str(data.get("OP")).endswith("NEQ")
            if None in value:
                self.sure = False
                return True
            inside: bool = low <= bytes(value) <= high  # type: ignore[arg-type]
            return inside is not negated
        wanted, operator = data["DATA"]["VALUE"], str(data["OP"])
        value = self._get(data["SREG"], len(wanted))
        differs = any(one is not None and one != other for one, other in zip(value, wanted, strict=True))
        if operator == "NFT_CMP_EQ" and differs:
            return False
        if operator == "NFT_CMP_NEQ" and differs:
            return True
        if None in value:
            self.sure = False
            return True
        one = bytes(value)  # type: ignore[arg-type]
        outcomes: dict[str, bool] = {
            "NFT_CMP_EQ": one == wanted,
            "NFT_CMP_NEQ": one != wanted,
            "NFT_CMP_LT": one < wanted,
            "NFT_CMP_LTE": one <= wanted,
            "NFT_CMP_GT": one > wanted,
            "NFT_CMP_GTE": one >= wanted,
        }
        return outcomes.get(operator, True)

    def _looked_up(self, data: dict[str, Any]) -> bool:
        elements = self._sets.get((*self._table, data.get("SET", "")), ())
        negated = bool(data.get("FLAGS"))
        length = len(elements[0][0]) if elements else 0
        value = self._get(data["SREG"], length)
        wanted = data.get("DREG")
        if None in value:
            self.sure = False
            if wanted is not None:
                # The key is unknown, so the result is one of the map's elements; with a single element it is known.
                self._take(wanted, elements[0][2] if len(elements) == 1 else None)
            return bool(elements) or negated
        key = bytes(value)  # type: ignore[arg-type]
        for low, high, found in elements:
            if low <= key <= high:
                if wanted is not None:
                    self._take(wanted, found)
                return not negated
        return negated

    def _take(self, register: Any, found: Any) -> None:
        if str(register) == "NFT_REG_VERDICT":
            self._decide((found or {}).get("VERDICT", {}))
        else:
            self._set(register, (found or {}).get("VALUE") or UNKNOWN)

    def _masked(self, data: dict[str, Any]) -> None:
        mask, other = data.get("MASK", {}).get("VALUE"), data.get("XOR", {}).get("VALUE")
        if mask is None or other is None:
            self._set(data["DREG"], UNKNOWN)
            return
        value = self._get(data["SREG"], len(mask))
        known = zip(value, mask, other, strict=True)
        # A bit that the mask clears is known even if its value was unknown.
        result = [
            (other_ if not mask_ else None if one is None else one & mask_ ^ other_) for one, mask_, other_ in known
        ]
        self._set(data["DREG"], result)

    def _matched(self, data: dict[str, Any]) -> bool:
        info = bytes.fromhex(str(data.get("INFO", "")).replace(":", ""))
        if data.get("NAME") == "tcp" and len(info) >= 12:
            # struct xt_tcp: ranges of source and destination ports, each inverted by a bit; the remaining fields test
            # the TCP header.
            ends = (self._packet.port, CLIENT_PORT) if self._packet.answer else (CLIENT_PORT, self._packet.port)
            for place, port in enumerate(ends):
                first, last = struct.unpack_from("=HH", info, 4 * place)
                if (first <= port <= last) is bool(info[11] >> place & 1):
                    return False
            self.sure = self.sure and not any(info[8:11])
            return True
        self.sure = False
        return True

    def effects(self, name: str, data: Any) -> Iterator[tuple[str, Any, bool]]:
        """Kind and value of an expression's effects, and whether a queue without a reader is bypassed."""
        plain = data if isinstance(data, dict) else {}
        if name == "queue":
            first, total = plain.get("NUM"), plain.get("TOTAL") or 1
            flags = plain.get("FLAGS") or ()
            bypass = any("BYPASS" in str(flag) for flag in flags)
            for number in range(first, first + total) if first is not None else ():
                yield "queue", number, bypass
        elif name == "nat" and str(plain.get("TYPE")).endswith("DNAT"):
            size = 4 if plain.get("FAMILY") == 2 else 16
            yield "dnat", (self._address(plain.get("REG_ADDR_MIN"), size), self._port(plain)), False
        elif name == "redir":
            yield "redirect", self._port(plain), False
        elif name == "target":
            yield from _target(plain)
        elif name in ("meta", "ct") and "SREG" in plain and str(plain.get("KEY")).endswith("_MARK"):
            value = self._get(plain["SREG"], 4)
            bits = None if None in value else int.from_bytes(bytes(value), sys.byteorder)  # type: ignore[arg-type]
            yield "mark" if name == "meta" else "ct_mark", bits, False
        elif name in ("flow_offload", "offload"):
            text = data if isinstance(data, str) else ""
            raw = bytes.fromhex(text.replace(":", "")) if text else b""
            yield "flow", plain.get("TABLE_NAME") or raw[4:].rstrip(b"\0").decode(errors="replace"), False
        elif name in ("notrack", "synproxy", "fwd", "reject", "tproxy"):
            yield name, None, False

    def _address(self, register: Any, size: int) -> str | None:
        value = self._get(register, size) if register is not None else UNKNOWN
        return None if None in value else str(ip_address(bytes(value)))  # type: ignore[arg-type]

    def _port(self, data: dict[str, Any]) -> int | None:
        register = data.get("REG_PROTO_MIN")
        value = self._get(register, 2) if register is not None else UNKNOWN
        return None if None in value else int.from_bytes(bytes(value))  # type: ignore[arg-type]


def _target(data: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """The same for an xtables target (iptables-nft), by its structure (linux/netfilter/xt_*.h, nf_nat.h)."""
    name, info = data.get("NAME"), bytes.fromhex(str(data.get("INFO", "")).replace(":", ""))
    if name == "NFQUEUE" and len(info) >= 2:
        first, total = struct.unpack_from("=HH", info) if len(info) >= 4 else (*struct.unpack_from("=H", info), 1)
        flags = struct.unpack_from("=H", info, 4)[0] if len(info) >= 6 else 0
        for number in range(first, first + max(1, total)):
            yield "queue", number, bool(flags & 1)
    elif name in ("DNAT", "REDIRECT"):
        to = _translation(info)
        yield ("redirect", to[1], False) if name == "REDIRECT" else ("dnat", to, False)
    elif name == "NOTRACK" or (name == "CT" and len(info) >= 2 and info[0] & 1):
        yield "notrack", None, False
    elif name == "MARK" and len(info) >= 8:
        yield "mark", struct.unpack_from("=I", info)[0], False
    elif name == "CONNMARK":
        # CONNMARK: --restore-mark sets the packet's mark, --save-mark the connection's; which bits they set is not
        # known here.
        mode = info[12] if len(info) > 12 else 0
        bits = struct.unpack_from("=I", info)[0] if mode == 0 and len(info) >= 4 else None
        yield "mark" if mode == 2 else "ct_mark", bits, False
    elif name in ("SYNPROXY", "TPROXY", "REJECT"):
        yield str(name).lower(), None, False


def _translation(info: bytes) -> tuple[str | None, int | None]:
    """Address and port of nf_nat_range2, or of IPv4's nf_nat_ipv4_multi_range_compat of one range."""
    if len(info) >= 40:
        flags, raw, first = struct.unpack_from("=I", info)[0], info[4:20], struct.unpack_from("!H", info, 36)[0]
        raw = raw if any(raw[4:]) else raw[:4]
    elif len(info) >= 20:
        flags, raw, first = struct.unpack_from("=I", info, 4)[0], info[8:12], struct.unpack_from("!H", info, 16)[0]
    else:
        return None, None
    return str(ip_address(raw)) if flags & 1 else None, first if flags & 2 else None
