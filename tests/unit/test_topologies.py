"""Topologies of the lab: what is in a file, what is wrong with it, and who gets which address."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nfmailguard.errors import ConfigError
from nfmailguard.lab import plans
from nfmailguard.lab.addressing import Address, addresses, attached, unreachable, ways
from nfmailguard.lab.plan import Attach, Plan, Role, row

HOSTS = '[host.client]\n[host.gateway]\nprofile = "asa"\n[host.server]\n'
LINKS = '[[link]]\nhosts = ["client", "gateway"]\n[[link]]\nhosts = ["gateway", "server"]\n'


def wrong(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plans.parsed(text, "t")
    assert all(line.startswith("t: ") for line in caught.value.lines)
    return [line.removeprefix("t: ") for line in caught.value.lines]


def test_a_row_has_the_addresses_it_always_had() -> None:
    left, right = addresses(row(("gateway",)))
    assert left == (
        Address("client", "net0", "10.25.1.2", "fd25:1::2"),
        Address("gateway", "outside", "10.25.1.1", "fd25:1::1"),
    )
    assert right == (
        Address("gateway", "inside", "10.25.2.1", "fd25:2::1"),
        Address("server", "net0", "10.25.2.2", "fd25:2::2"),
    )
    between = addresses(row(("near", "far")))[1]
    assert [(end.interface, end.ipv4) for end in between] == [("inside", "10.25.2.1"), ("outside", "10.25.2.3")]


@pytest.mark.parametrize("name", plans.names())
def test_a_topology_that_comes_with_the_program_leads_from_client_to_server(name: str) -> None:
    plan = plans.read(name)
    assert plan.title
    links = addresses(plan)
    assert list(unreachable(plan, links)) == []
    for host in plan.host:  # every way leads to a neighbour's address
        beside = {
            text for ends in links if any(end.host == host for end in ends) for end in ends for text in end[2:4] if text
        }
        assert {one for way in ways(plan, links, host) for one in way.through} <= beside


def test_the_ready_ones_are_those_that_are_promised() -> None:
    assert plans.names() == ["asymmetric", "dual-stack", "ecmp", "one", "side-by-side", "two-in-a-row"]


def test_the_pairs_send_by_the_gateways_they_name() -> None:
    plan = plans.read("asymmetric")
    links = addresses(plan)
    assert [way.through for way in ways(plan, links, "client")] == [("10.25.1.1",), ("fd25:1::1",)]
    assert [way.through for way in ways(plan, links, "server")] == [("10.25.2.3",), ("fd25:2::3",)]
    plan = plans.read("ecmp")
    there = {way.destination: way.through for way in ways(plan, addresses(plan), "edge")}
    assert there["10.25.4.0/24"] == ("10.25.2.3", "10.25.2.5")


def test_a_family_that_a_link_has_not_is_not_routed_over_it() -> None:
    plan = plans.read("dual-stack")
    found = {way.destination: way.through for way in ways(plan, addresses(plan), "client")}
    assert found == {"10.25.2.0/24": ("10.25.1.1",), "fd25:4::/64": ("fd25:3::1",)}


def test_networks_of_ones_own_are_taken() -> None:
    plan = plans.parsed(HOSTS + LINKS.replace('"gateway"]', '"gateway"]\nipv4 = "192.0.2.0/29"\nmtu = 1400', 1), "t")
    assert [end.ipv4 for end in addresses(plan)[0]] == ["192.0.2.2", "192.0.2.1"]
    assert addresses(plan)[0][0].length4 == 29
    assert plan.link[0].mtu == 1400


def test_delay_and_loss_are_read() -> None:
    plan = plans.parsed(HOSTS + LINKS + 'delay = "2.5ms"\nloss = "0.5%"\n', "t")
    assert (plan.link[1].microseconds, plan.link[1].lost) == (2500, 0.5)
    assert (plan.link[0].microseconds, plan.link[0].lost) == (0, 0.0)


def test_all_that_is_wrong_is_told_at_once_each_with_its_key() -> None:
    text = """
titel = "x"
[host.client]
profile = "asa"
[host.gateway]
profile = "nosuch"
mode = "enfroce"
[host.Bad]
[host.server]
server = "qmail"
[host.alone]
[[link]]
hosts = ["client", "moon"]
delay = "20"
loss = "101%"
mtu = 100
[[link]]
hosts = ["gateway", "server"]
ipv4 = "10.25.1.0/24"
ipv6 = "10.0.0.0/8"
[[link]]
hosts = ["client", "gateway"]
ipv4 = "none"
ipv6 = "none"
[[route]]
from = "server"
to = "client"
via = ["client"]
[[attach]]
device = "a/b"
host = "gateway"
ipv4 = "192.0.2.2"
"""
    found = wrong(text)
    keys = [
        *("titel: no such key; did you mean 'title'?", "host.gateway.mode: 'enfroce'; one of ", "host.Bad: no name"),
        *("host.client.profile: a client has none", "host.gateway.profile: profile 'nosuch': unknown"),
        *("host.server.server: 'qmail'; one of aiosmtpd, ", "link 1: hosts: no host 'moon'; the hosts are "),
        *("link 1: delay: '20'; a time as \"20ms\"", "link 1: loss: '101%'; a share", "link 1: mtu: 100; 1280 to"),
        *("link 2: ipv4: 10.25.1.0/24 overlaps that of link 1", "link 2: ipv6: 10.0.0.0/8 is of IPv4"),
        *("link 3: ipv4, ipv6: both are none", "host.alone: on no link", "route 1: via: client is no gateway"),
        *(
            "attach 1: device: 'a/b' is no name",
            "attach 1: host: gateway is a gateway",
            "attach 1: ipv4: 192.0.2.2; an",
        ),
    ]
    for key in keys:
        assert any(line.startswith(key) for line in found), (key, found)
    assert len(found) == len(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["host: no client in it", "host: no server in it"]),
        ("host = 3", ["host: a table for each host: [host.client]", "host: no client in it", "host: no server in it"]),
        (HOSTS + "[host.x]\n" + LINKS, ["host.x: on no link"]),
        (HOSTS + LINKS.replace('["gateway", "server"]', '["gateway", "gateway", "server"]'), ["link 2: hosts: one of"]),
        (HOSTS.replace('profile = "asa"', 'role = "client"') + LINKS, ["host.server: no way from client to it"]),
        (HOSTS + LINKS + 'mtu = 900\n', ["link 2: mtu: 900; 1280 to 65535 (IPv6 needs 1280"]),
        (HOSTS + LINKS + '[[route]]\n', ["route 1: from: a host's", "route 1: to: a host's", "route 1: via: at least"]),
        (HOSTS + LINKS + '[[attach]]\ndevice = "eth1"\nhost = "client"\nvia4 = "10.0.0.1"\n',
         ["attach 1: via4: ipv4 is missing"]),
        (HOSTS + LINKS + '[[attach]]\ndevice = "e"\nhost = "client"\nipv4 = "10.0.0.2/24"\nvia4 = "10.1.0.1"\n',
         ["attach 1: via4: 10.1.0.1 is no other address of 10.0.0.0/24"]),
        ("x = [", ["Invalid value"]),
    ],
)  # fmt: skip
def test_a_mistake_is_a_line_of_its_own(text: str, said: list[str]) -> None:
    found = wrong(text)
    assert len(found) == len(said), found
    for line, begins in zip(found, said, strict=True):
        assert line.startswith(begins)


def test_a_link_may_be_without_ipv6_and_then_as_short_as_ipv4_allows() -> None:
    plan = plans.parsed(HOSTS + LINKS.replace('"server"]', '"server"]\nipv6 = "none"\nmtu = 600'), "t")
    assert addresses(plan)[1][1].ipv6 == ""


def test_a_profile_is_looked_for_beside_the_topology(tmp_path: Path) -> None:
    tmp_path.joinpath("box.toml").write_text('title = "mine"\n')
    tmp_path.joinpath("lab.toml").write_text((HOSTS + LINKS).replace('"asa"', '"./box.toml"'))
    assert plans.read(str(tmp_path / "lab.toml")).host["gateway"].profile == f"{tmp_path}/box.toml"


def test_devices_go_to_the_client_and_then_to_the_server() -> None:
    plan = plans.with_devices(row(("gateway",)), ["eth1", "eth2"])
    assert [(one.device, one.host) for one in plan.attach] == [("eth1", "client"), ("eth2", "server")]
    ends = [attached(one, number, "net1") for number, one in enumerate(plan.attach)]
    assert [(one.end.ipv4, one.via4, one.end.ipv6, one.via6) for one in ends] == [
        ("10.25.101.2", "10.25.101.1", "fd25:101::2", "fd25:101::1"),
        ("10.25.102.2", "10.25.102.1", "fd25:102::2", "fd25:102::1"),
    ]
    own = attached(Attach("eth1", "client", "192.0.2.9/28", "none", "192.0.2.14"), 0, "net1")
    assert own == ("eth1", Address("client", "net1", "192.0.2.9", "", 28, 0), "192.0.2.14", "")
    with pytest.raises(ConfigError, match="eth1 is there twice"):
        plans.with_devices(Plan(host=row(()).host), ["eth1", "eth1"])


def test_roles_follow_names_unless_a_file_says_otherwise() -> None:
    plan = plans.parsed(
        HOSTS + '[host.other]\nrole = "client"\n' + LINKS + '[[link]]\nhosts = ["other", "gateway"]', "t"
    )
    assert [plan.role(name) for name in plan.host] == [Role.CLIENT, Role.GATEWAY, Role.SERVER, Role.CLIENT]


def nfmailguard(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nfmailguard", "lab", *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def test_topologies_are_listed_and_shown() -> None:
    listed = nfmailguard("topologies").stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in listed] == plans.names()
    assert nfmailguard("topologies", "ecmp").stdout == plans.text_named("ecmp")
    found = json.loads(nfmailguard("topologies", "--json").stdout)
    assert list(found) == plans.names()
    assert found["two-in-a-row"]["host"]["far"]["profile"] == "pix63"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "nosuch"], "topology 'nosuch': unknown; one of asymmetric, "),
        (["up", "/nonexistent.toml"], "topology /nonexistent.toml: No such file"),
        (["up", "one", "--gateway", "asa"], "--gateway: the topology one says it"),
        (["up", "--attach", "a b"], "--attach: attach 1: device: 'a b' is no name of a device"),
        (["topologies", "nosuch"], "topology 'nosuch': unknown"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(words: list[str], said: str) -> None:
    done = nfmailguard(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
