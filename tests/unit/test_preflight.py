"""What is said before packets come: limits as they will be, conditions as they will be met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import nft_flowtable_msg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from nfmailguard import ruleset
from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.config import load
from nfmailguard.engine import Engine, flows_at_once
from nfmailguard.errors import RulesetError
from nfmailguard.policy.model import CONDITIONS, Action, FlowRule, Limits, Mode
from nfmailguard.ruleset import Others
from nfmailguard.service import preflight
from tests.support.conditions import PIX63
from tests.support.wire import SYN, End, build


def test_the_flows_that_fit_are_told_and_fewer_than_asked_for_are_a_warning() -> None:
    assert list(preflight.limit_warnings(load())) == []
    short = load(None, ["limits.memory=1000000", "limits.flows=2000"])
    room = 500_000 // FLOW_BYTES
    assert preflight.flow_room(short).startswith(f"each queue: up to {room:,} connections at once, ")
    (warning,) = preflight.limit_warnings(short)
    assert warning.startswith(f"limits.flows: lowered from 2000 to {room}, ")
    enough = int(warning.split()[-6])
    assert list(preflight.limit_warnings(load(None, [f"limits.memory={enough}", "limits.flows=2000"]))) == []
    assert list(preflight.limit_warnings(load(None, [f"limits.memory={enough - 2}", "limits.flows=2000"]))) != []


@pytest.mark.parametrize(("memory", "flows"), [(100_000, 10), (100_000, 1_000), (1, 5)])
def test_what_is_told_is_what_the_engine_holds(memory: int, flows: int) -> None:
    limits = Limits(memory=memory, flows=flows)
    engine = Engine([FlowRule(Mode.MONITOR, PIX63)], limits=limits)
    for port in range(1024, 1024 + 1200):
        engine.process(build(End("10.0.1.2", port), End("10.0.2.2", 25), 1, 0, SYN), 1)
    held = engine.counters()["flows_now"]
    # An Engine has room for one, even where the memory has not.
    assert held == (flows_at_once(limits) if memory > FLOW_BYTES else 0)
    assert engine.counters()["memory_now"] == held * FLOW_BYTES <= memory // 2


def test_each_condition_is_told_with_what_is_done_what_else_could_be_and_what_counts_it(tmp_path: Path) -> None:
    path = tmp_path / "nfmailguard.toml"
    path.write_text('[gateway]\nmode = "enforce"\n[[rule]]\nfrom = "10.0.0.1"\nmode = "monitor"\n')
    config = load(path, ["on.truncated=reset"])
    told = {condition.name: condition for condition in preflight.conditions(config)}
    assert list(told) == list(CONDITIONS)
    assert str(told["truncated"]) == "monitor pass, enforce reset (or drop)"
    assert str(told["conflict"]) == "pass (or drop, reset)"
    assert str(told["queue_full"]) == "drop (or pass)"
    assert told["gap"].counter == "finding.stream.gap"


def test_a_dry_run_passes_everything() -> None:
    told = preflight.conditions(load(None, ["on.gap=reset"], mode="enforce", dry_run=True))
    assert {action for condition in told for action in condition.actions.values()} == {Action.PASS}


def listed(kind: type, family: int, *attributes: tuple[str, object]) -> Any:
    """A message as the kernel lists it: this one may have no flowtables."""
    message = kind()
    message["nfgen_family"], message["attrs"] = family, list(attributes)
    message.encode()
    read = kind(bytes(message.data))
    read.decode()
    return read


FAST = listed(nft_flowtable_msg, 1, ("NFTA_FLOWTABLE_TABLE", "filter"), ("NFTA_FLOWTABLE_NAME", "fast"))


def test_a_listed_flowtable_has_a_name() -> None:
    assert ruleset._flowtable(FAST) == "inet filter fast"


def test_a_flowtable_takes_mail_past_the_queue() -> None:
    around = Others((ruleset._flowtable(FAST),), ())
    enforce = load(None, ["gateway.ports=25,587"], mode="enforce")
    (line,) = preflight.flowtable_warnings(enforce, around)
    assert line.startswith("flowtable inet filter fast: ")
    assert "tcp port 25,587" in line
    with pytest.raises(RulesetError, match="rules: flowtable inet filter fast: "):
        preflight.refuse_flowtables(enforce, around)
    for watching in (load(), load(None, [], mode="enforce", dry_run=True)):
        preflight.refuse_flowtables(watching, around)
        assert [told for told in preflight.beside(watching, around) if told.startswith("flowtable")] != []
    # Said to be none of our business, or no forwarding.
    for other in ("queue.flowtables=yes", "gateway.hook=input"):
        config = load(None, [other], mode="enforce")
        preflight.refuse_flowtables(config, around)
        assert preflight.beside(config, around) == []


def test_what_cannot_be_done_where_addresses_are_translated() -> None:
    only, both = Others((), ("prerouting ip nat a",)), Others((), ("prerouting ip nat a", "postrouting ip nat b"))
    enforce = load(None, [], mode="enforce")
    assert preflight.beside(enforce, only) == []
    (line,) = preflight.beside(enforce, both)
    assert line.startswith("addresses are translated (ip nat a, ip nat b): ")
    for other, reason in (("queue.conntrack=no", "queue.conntrack is off"), ("on.no_listener=pass", "may pass")):
        (line,) = preflight.beside(load(None, [other], mode="enforce"), only)
        assert reason in line
    assert preflight.beside(load(), both) == []  # nothing is reset or told apart


def interface(
    number: int, name: str, kind: str = "", *, flags: int = 1, master: int = 0, own: int | None = None
) -> Any:
    """A link as the kernel lists it."""
    attributes: list[tuple[str, object]] = [("IFLA_IFNAME", name)]
    if master:
        attributes.append(("IFLA_MASTER", master))
    if kind:
        data = [("IFLA_INFO_KIND", kind)]
        if own is not None:
            data.append(("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_NF_CALL_IPTABLES", own)]}))  # type: ignore[arg-type]
        attributes.append(("IFLA_LINKINFO", {"attrs": data}))
    message = ifinfmsg()
    message["index"], message["flags"], message["attrs"] = number, flags, attributes
    message.encode()
    read = ifinfmsg(bytes(message.data))
    read.decode()
    return read


LO = interface(1, "lo", flags=9)


def test_a_bridge_that_queues_what_it_bridges_is_found() -> None:
    ports = [interface(number, f"port{number}", master=2) for number in (3, 4)]
    for own, everyone, found in ((None, True, ["br0"]), (0, False, []), (1, False, ["br0"])):
        bridge = interface(2, "br0", "bridge", own=own)
        assert list(preflight._bridges([LO, bridge, *ports], everyone)) == found
        assert list(preflight._bridges([LO, bridge, ports[0]], everyone)) == []  # no other side
    assert list(preflight._bridges([LO, interface(2, "bond0", "bond"), *ports], True)) == []


def test_the_only_interface_is_found() -> None:
    one = interface(2, "eth0")
    assert preflight._alone([LO]) is None
    assert preflight._alone([LO, one]) == "eth0"
    # What carries nothing of its own is no other.
    less = [interface(3, "down", flags=0), interface(4, "d", "dummy"), interface(5, "port", master=2)]
    assert preflight._alone([LO, one, *less]) == "eth0"
    assert preflight._alone([LO, one, interface(6, "eth1")]) is None


def test_where_interfaces_tell_nobody_apart_it_is_said_in_a_line_each() -> None:
    found = preflight.Interfaces(("br0", "br1"), None, (("192.0.2.0/24", "eth0"),))
    forward = load(None, [], mode="enforce")
    told = list(preflight.interface_warnings(forward, found))
    assert [line.partition(":")[0] for line in told] == ["bridge br0", "bridge br1", "interface eth0"]
    assert all("on.wrong_interface holds nobody off" in line and "\n" not in line for line in told)
    assert "192.0.2.0/24 is behind it, and the default route" in told[2]
    (line,) = preflight.interface_warnings(forward, preflight.Interfaces(alone="eth0"))
    assert line.startswith("interface eth0: the only one")
    (line,) = preflight.interface_warnings(forward, preflight.Interfaces(("br0",), "br0"))  # said once
    assert line.startswith("bridge br0: ")
    assert list(preflight.interface_warnings(forward, preflight.Interfaces())) == []
    assert list(preflight.interface_warnings(load(None, ["gateway.hook=input"]), found)) == []
