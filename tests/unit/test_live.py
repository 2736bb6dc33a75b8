"""What `check --live` makes of rules and interfaces that this kernel may lack: parsed, as the kernel lists them."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from nfmailguard import foreign
from nfmailguard.config import Config, load
from nfmailguard.foreign import BaseChain, Effect, Packet, Rule, Rules
from nfmailguard.ruleset import Others
from nfmailguard.service import live
from nfmailguard.service.machine import Link, Machine

DOCS = Path(__file__).parents[2] / "docs" / "live.md"
TCP = (
    ("meta", {"KEY": "NFT_META_L4PROTO", "DREG": "NFT_REG_1"}),
    ("cmp", {"SREG": "NFT_REG_1", "OP": "NFT_CMP_EQ", "DATA": {"VALUE": b"\x06"}}),
)


def on_port(port: int, field: str = "dport", operator: str = "EQ") -> tuple[tuple[str, Any], ...]:
    where = {"DREG": "NFT_REG_1", "BASE": "NFT_PAYLOAD_TRANSPORT_HEADER", "OFFSET": 2 * (field == "dport"), "LEN": 2}
    value = {"SREG": "NFT_REG_1", "OP": f"NFT_CMP_{operator}", "DATA": {"VALUE": struct.pack("!H", port)}}
    return (*TCP, ("payload", where), ("cmp", value))


def rules(*expressions: tuple[str, Any], hook: str = "forward", family: int = 1) -> Rules:
    return Rules((BaseChain(family, "t", "c", hook, 0),), (Rule(family, "t", "c", tuple(expressions)),))


def flow(name: str) -> tuple[str, str]:
    """`flow add`, of which pyroute2 knows no structure: its attribute as octets."""
    text = name.encode() + b"\0"
    return "flow_offload", (struct.pack("=HH", 4 + len(text), 1) + text).hex(":")


def names(machine: Machine, *settings: str) -> list[str]:
    return [one.name for one in live.troubles(config(*settings), machine)]


def config(*settings: str) -> Config:
    return load(None, ["log.eve=-", *settings], mode="enforce")


def effects(found: Rules) -> list[tuple[str, object, bool]]:
    return [(one.kind, one.value, one.sure) for one in foreign.followed(found, Packet(25), ("forward",))]


def test_a_flowtable_is_a_trouble_only_where_its_rules_take_mail() -> None:
    around = Others(("inet t fast",), ())
    excluded = rules(*on_port(25, operator="NEQ"), *on_port(25, "sport", "NEQ"), flow("fast"))
    one_way = rules(*on_port(25, operator="NEQ"), flow("fast"))
    assert effects(rules(*TCP, flow("fast"))) == [("flow", "fast", True)]
    assert names(Machine(rules(*TCP, flow("fast")), around)) == ["flowtable"]
    assert names(Machine(one_way, around)) == ["flowtable"]
    assert names(Machine(excluded, around)) == ["flowtable_unsaid"]
    assert names(Machine(excluded, around), "queue.flowtables=yes") == []
    assert names(Machine(rules(*TCP, flow("fast")), around), "queue.flowtables=yes") == ["flowtable"]
    assert names(Machine(one_way, around), "gateway.hook=input") == []


def test_what_goes_past_every_hook() -> None:
    early = rules(*on_port(25), ("fwd", {"SREG_DEV": "NFT_REG_1"}), hook="ingress", family=5)
    assert names(Machine(early)) == ["forwarded_early"]
    assert names(Machine(rules(*on_port(80), ("fwd", {}), hook="ingress", family=5))) == []
    assert names(Machine(links=(Link(2, "eth0", xdp=True),))) == ["xdp"]


def test_who_answers_or_takes_connections_itself() -> None:
    for name in ("synproxy", "tproxy"):
        assert names(Machine(rules(*on_port(25), (name, None), hook="prerouting"))) == [name]
        assert names(Machine(rules(*on_port(80), (name, None), hook="prerouting"))) == []


def test_a_full_conntrack_is_named_before_it_is_full() -> None:
    for count, found in ((800_000, []), (800_001, ["conntrack_full"])):
        sysctls = {"netfilter/nf_conntrack_max": "1000000", "netfilter/nf_conntrack_count": str(count)}
        assert names(Machine(sysctls=sysctls)) == found


def test_a_bridge_that_filters_vlans_sends_tagged_frames_past() -> None:
    ports = tuple(Link(number, f"port{number}", master=2) for number in (3, 4))
    switches = {"bridge/bridge-nf-call-iptables": "1", "bridge/bridge-nf-filter-vlan-tagged": "0"}
    bridge = Link(2, "br0", "bridge", addresses=("10.0.0.1",), vlans=True)
    assert names(Machine(links=(bridge, *ports), sysctls=switches)) == ["bridge_vlan"]
    switches["bridge/bridge-nf-filter-vlan-tagged"] = "1"
    assert names(Machine(links=(bridge, *ports), sysctls=switches)) == []


def target(name: str, info: bytes) -> tuple[str, Any]:
    return "target", {"NAME": name, "REV": 0, "INFO": info.hex(":")}


RANGE2 = struct.pack("=I", 3) + bytes([10, 0, 0, 9]).ljust(16, b"\0") * 2 + struct.pack("!HHHxx", 2525, 2525, 0)
RANGE = struct.pack("=II", 1, 3) + bytes([10, 0, 0, 9]) * 2 + struct.pack("!HH", 2525, 2525)


@pytest.mark.parametrize(
    ("name", "info", "found"),
    [
        ("DNAT", RANGE2, ("dnat", ("10.0.0.9", 2525), True)),
        ("DNAT", RANGE, ("dnat", ("10.0.0.9", 2525), True)),
        ("DNAT", struct.pack("=I", 1) + RANGE2[4:], ("dnat", ("10.0.0.9", None), True)),
        ("REDIRECT", RANGE, ("redirect", 2525, True)),
        ("NFQUEUE", struct.pack("=HHHxx", 3, 1, 0), ("queue", 3, True)),
        ("NFQUEUE", struct.pack("=H", 3), ("queue", 3, True)),
        ("CT", struct.pack("=HH", 1, 0).ljust(64, b"\0"), ("notrack", None, True)),
        ("NOTRACK", b"", ("notrack", None, True)),
        ("MARK", struct.pack("=II", 5, 0xFF), ("mark", 5, True)),
        ("SYNPROXY", bytes(8), ("synproxy", None, True)),
    ],
)
def test_a_target_of_iptables_is_read_by_its_structure(name: str, info: bytes, found: object) -> None:
    assert effects(rules(*on_port(25), target(name, info))) == [found]
    for cut in range(len(info)):  # of another revision: no surprise
        effects(rules(target(name, info[:cut])))


def test_ports_of_iptables_matches_are_compared() -> None:
    def tcp(first: int, last: int, inverted: int = 0) -> tuple[str, Any]:
        info = struct.pack("=HHHHBBBB", 0, 0xFFFF, first, last, 0, 0, 0, inverted)
        return "match", {"NAME": "tcp", "INFO": info.hex(":")}

    dropped = target("NOTRACK", b"")
    assert effects(rules(tcp(20, 30), dropped)) == [("notrack", None, True)]
    assert effects(rules(tcp(26, 30), dropped)) == []
    assert effects(rules(tcp(20, 30, 2), dropped)) == []
    other = ("match", {"NAME": "multiport", "INFO": "00:01"})
    assert effects(rules(other, dropped)) == [("notrack", None, False)]


def test_chains_that_lead_to_themselves_come_to_an_end() -> None:
    jump = ("immediate", {"DREG": "NFT_REG_VERDICT", "DATA": {"VERDICT": {"CODE": "NFT_JUMP", "CHAIN": "c"}}})
    several = Rules((BaseChain(1, "t", "c", "forward", 0),), tuple(Rule(1, "t", "c", (jump,)) for _ in range(10)))
    assert foreign.followed(several, Packet(25), ("forward",)) == []


def test_what_comes_after_a_sure_verdict_is_not_reached() -> None:
    accept = ("immediate", {"DREG": "NFT_REG_VERDICT", "DATA": {"VERDICT": {"CODE": "NF_ACCEPT"}}})
    chain, drop = BaseChain(1, "t", "c", "forward", 0), ("reject", {})
    for first, found in ((on_port(25), []), (on_port(26), [("reject", None, True)])):
        both = Rules((chain,), (Rule(1, "t", "c", (*first, accept)), Rule(1, "t", "c", (*TCP, drop))))
        assert effects(both) == found
    doubtful = Rules((chain,), (Rule(1, "t", "c", (("limit", {}), accept)), Rule(1, "t", "c", (*TCP, drop))))
    assert effects(doubtful) == [("reject", None, True)]


def test_an_effect_tells_where_its_rule_is() -> None:
    assert foreign.followed(rules(*TCP, ("notrack", None)), Packet(25), ("forward",)) == [
        Effect("notrack", None, True, "inet t c", "forward")
    ]


@pytest.mark.sources
def test_every_name_has_a_row_in_the_documentation() -> None:
    source = Path(live.__file__).read_text()
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(set(re.findall(r'Trouble\(\s*"(\w+)"', source))) == sorted(rows)
