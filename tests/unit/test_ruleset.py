"""The ruleset as text; what the kernel makes of it is tests/live/test_ruleset_live.py's."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import nft_rule_msg

from nfmailguard import ruleset
from nfmailguard.errors import RulesetError
from nfmailguard.ruleset import Ruleset

NETWORKS = [ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.7", "2001:db8::/32", "2001:db8::25")]
RULESETS = {
    "one": Ruleset(0, 0, [25], ["forward"]),
    "bypass": Ruleset(7, 7, [25], ["forward"], bypass=True),
    "several queues": Ruleset(0, 3, [25, 587], ["input", "output", "forward"]),
    "watched": Ruleset(0, 0, [25], ["forward"], conntrack=False),
    "offload": Ruleset(0, 0, [25, 587], ["forward"], conntrack=False, offload=True),
    "translated": Ruleset(0, 0, [25], ["forward"], connections=True),
    "protected": Ruleset(4, 5, [25], ["forward"], bypass=True, addresses=NETWORKS),
}


def body(listing: str, chain: str) -> list[str]:
    """The lines of one chain."""
    inside = listing.partition(f"chain {chain} {{\n")[2].partition("\t}")[0]
    return [line.strip() for line in inside.splitlines()]


def test_the_table_is_replaced_whole() -> None:
    text = RULESETS["one"].render()
    assert "\ntable inet nfmailguard\ndelete table inet nfmailguard\n\ntable inet nfmailguard {\n" in text


def test_packets_are_queued_in_one_place_behind_a_counter() -> None:
    for name, wanted in {
        "one": "counter queue to 0",
        "bypass": "counter queue flags bypass to 7",
        "several queues": "counter queue to 0-3",
    }.items():
        text = RULESETS[name].render()
        assert text.count("counter queue ") == 1
        assert body(text, "inspect")[-1] == wanted


def test_our_own_packets_are_never_queued_and_leave_without_their_mark() -> None:
    assert body(RULESETS["several queues"].render(), "output")[1:3] == [
        "meta mark 0x00006d67 ct mark 0x00006d67 ct mark set 0x00000000",
        "meta mark 0x00006d67 meta mark set 0x00000000 accept",
    ]
    # Where nothing is queued that this machine sends, before anybody else can save it with the connection.
    assert body(RULESETS["one"].render(), "ours") == [
        "type filter hook output priority -450; policy accept;",
        "meta mark 0x00006d67 meta mark set 0x00000000",
    ]
    alone = Ruleset(0, 0, [25], ["input"]).render()
    assert body(alone, "input")[2] == 'meta mark 0x00006d67 iifname "lo" meta mark set 0x00000000 accept'
    assert not re.search(r"\bct\b", Ruleset(0, 0, [25], ["input", "output"], conntrack=False).render())


def test_the_mark_of_our_own_packets_lets_nothing_of_others_past() -> None:
    """Others save marks with the connection and put them on what comes (CONNMARK)."""
    for rules in RULESETS.values():
        for chain in ("forward", "input", "inspect", "to_server", "to_client"):
            assert "6d67" not in " ".join(body(rules.render(), chain))


def messages(rules: Ruleset, chain: str) -> list[list[tuple[str, Any]]]:
    """The rules of one chain as the kernel reads them: each a list of expressions."""
    (found,) = [one for one in rules._chains(rules._native()) if one.name == chain]
    read = []
    for message in list(ruleset.Nftables()._chain_messages(found))[1:]:
        message.encode()
        copy = nft_rule_msg(bytes(message.data))
        copy.decode()
        read.append(
            [
                (one.get_attr("NFTA_EXPR_NAME"), one.get_attr("NFTA_EXPR_DATA"))
                for one in copy.get_attr("NFTA_RULE_EXPRESSIONS")
            ]
        )
    return read


def shape(rule: list[tuple[str, Any]]) -> list[str]:
    """Of each expression its name, what it reads or sets, and a value."""
    told = []
    for name, data in rule:
        kind = name.upper()
        value = data.get_attr({"cmp": "NFTA_CMP_DATA", "immediate": "NFTA_IMMEDIATE_DATA"}.get(name, ""))
        if name in ("meta", "ct"):
            verb = "set" if data.get_attr(f"NFTA_{kind}_SREG") else "get"
            told.append(f"{verb} {name} {str(data.get_attr(f'NFTA_{kind}_KEY')).lower().rpartition('_')[2]}")
        elif value is not None and value.get_attr("NFTA_DATA_VALUE") is not None:
            told.append(f"{name} {value.get_attr('NFTA_DATA_VALUE').hex()}")
        else:
            told.append(name)
    return told


def test_the_kernel_is_told_to_take_the_mark_off() -> None:
    mark, none = struct.pack("=I", 0x6D67).hex(), "00" * 4
    ours = ["get meta mark", f"cmp {mark}"]
    off = [f"immediate {none}", "set meta mark"]
    assert [shape(rule) for rule in messages(RULESETS["one"], "ours")] == [[*ours, *off]]
    assert [shape(rule) for rule in messages(RULESETS["several queues"], "output")][:2] == [
        [*ours, "get ct mark", f"cmp {mark}", f"immediate {none}", "set ct mark"],
        [*ours, *off, "immediate"],
    ]
    for rule in messages(RULESETS["several queues"], "forward"):
        assert "get meta mark" not in shape(rule)


def test_what_offloads_is_taken_off_before_the_queue() -> None:
    """Put there by somebody who keeps the connection's mark, it would offload what a verdict did not."""
    lines = body(RULESETS["offload"].render(), "inspect")
    assert lines[0] == "meta mark set meta mark & 0xefffffff"
    first = messages(RULESETS["offload"], "inspect")[0]
    assert shape(first) == ["get meta mark", "bitwise", "set meta mark"]
    assert [line for line in body(RULESETS["one"].render(), "inspect") if "meta mark" in line] == []


def test_both_directions_of_every_port_are_queued() -> None:
    assert body(RULESETS["several queues"].render(), "forward")[1:] == [
        "tcp dport 25 jump to_server",
        "tcp sport 25 jump to_client",
        "tcp dport 587 jump to_server",
        "tcp sport 587 jump to_client",
    ]


def test_only_protected_servers_are_inspected() -> None:
    text = RULESETS["protected"].render()
    assert body(text, "to_server") == [
        "ip daddr 192.0.2.0/24 goto inspect",
        "ip daddr 198.51.100.7 goto inspect",
        "ip6 daddr 2001:db8::/32 goto inspect",
        "ip6 daddr 2001:db8::25 goto inspect",
    ]
    assert body(text, "to_client") == [line.replace("daddr", "saddr") for line in body(text, "to_server")]


def test_loopback_is_queued_on_one_hook() -> None:
    both = RULESETS["several queues"].render()
    assert 'iifname "lo" accept' in body(both, "input")
    assert "lo" not in " ".join(body(both, "output"))
    alone = Ruleset(0, 0, [25], ["input"]).render()
    assert 'iifname "lo" accept' not in body(alone, "input")


def test_conntrack_is_asked_for_so_that_fragments_are_put_together() -> None:
    assert any("ct state" in line for line in body(RULESETS["one"].render(), "inspect"))


def test_where_flows_are_only_watched_conntrack_is_not_and_fragments_go_past() -> None:
    text = RULESETS["watched"].render()
    assert not re.search(r"\bct\b", text)
    assert body(text, "inspect") == [
        "ip frag-off & 16383 != 0 counter accept",
        "frag more-fragments 1 counter accept",
        "counter queue to 0",
    ]


def test_only_packets_of_ours_are_offloaded() -> None:
    lines = body(RULESETS["offload"].render(), "forward_offload")[1:]
    assert [line.split(" meta mark")[0] for line in lines] == [
        f"tcp {field} {port}" for port in (25, 587) for field in ("dport", "sport") for _ in range(2)
    ]
    assert "ct state" in RULESETS["offload"].render()


def test_only_connections_that_their_client_began_are_offloaded() -> None:
    """One that conntrack picked up at the server's packet keeps its mark through the next handshake."""
    text = RULESETS["offload"].render()
    setting = [line for line in body(text, "forward_offload") if "ct mark set" in line]
    passing = [line for line in body(text, "inspect") if "ct mark &" in line and line.endswith("accept")]
    for lines in (setting, passing):
        assert len(lines) == 4
        for line in lines:
            assert ("tcp dport" in line) == ("ct direction original" in line)
            assert ("tcp sport" in line) == ("ct direction reply" in line)


def test_translated_connections_are_told_apart_by_marks_of_packets_without_one() -> None:
    lines = body(RULESETS["translated"].render(), "inspect")
    midst, known, queue = lines[-3:]
    assert all(line.startswith("meta mark 0x00000000 ct status snat,dnat ") for line in (midst, known))
    assert midst.endswith("ct state new tcp flags & (syn | ack) != syn meta mark set 0x60000000")
    assert known.endswith("meta mark set ct id meta mark set meta mark & 0x6fffffff | 0x60000000")
    assert queue == "counter queue to 0"
    assert "meta mark set" not in " ".join(body(RULESETS["one"].render(), "inspect"))


@pytest.mark.parametrize("name", RULESETS)
def test_nft_reads_what_is_rendered(name: str, tmp_path: Path) -> None:
    if shutil.which("nft") is None or shutil.which("unshare") is None:
        pytest.skip("nft or unshare is not installed")
    world = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    if subprocess.run([*world, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    path = tmp_path / "rules.nft"
    path.write_text(RULESETS[name].render())
    checked = subprocess.run([*world, "nft", "-c", "-f", str(path)], check=False, capture_output=True, text=True)
    if "Could not process rule: No such file or directory" in checked.stderr:
        # Read and understood, but this kernel has no queue expression: all else must be accepted.
        assert checked.stderr.count("Error") == 1
        start = checked.stderr.splitlines()[1]
        assert "queue " in start
        text = path.read_text()
        path.write_text(
            "\n".join(line.partition(" queue ")[0] if "\tcounter" in line else line for line in text.splitlines())
            + "\n"
        )
        checked = subprocess.run([*world, "nft", "-c", "-f", str(path)], check=False, capture_output=True, text=True)
    assert checked.stderr == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("queues", [(-1, 0), (3, 2), (0, 65536)])
def test_queue_numbers_out_of_range_are_refused(queues: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="queue numbers"):
        Ruleset(*queues, [25], ["forward"])


@pytest.mark.parametrize(("ports", "hooks"), [([], ["forward"]), ([25], []), ([25], ["prerouting"])])
def test_nothing_to_inspect_is_refused(ports: list[int], hooks: list[str]) -> None:
    with pytest.raises(ValueError, match="ports and known hooks"):
        Ruleset(0, 0, ports, hooks)


def test_missing_permission_is_told_in_a_line() -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    without = ["setpriv", "--bounding-set=-net_admin", "--"] if os.geteuid() == 0 else []
    code = "from nfmailguard import ruleset; ruleset.remove()"
    command = [*without, sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.stderr.splitlines()[-1].endswith("rules: no permission; run as root or with CAP_NET_ADMIN")


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (1, "no permission"),
        (2, "no way to queue packets"),
        (95, "no usable nf_tables"),
        (12, "Cannot allocate memory"),
    ],
)
def test_what_the_kernel_refuses_is_one_line(number: int, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ruleset.Nftables, "_probe", refuse)
    with pytest.raises(RulesetError) as told:
        ruleset.remove()
    assert part in str(told.value)
    assert "\n" not in str(told.value)
