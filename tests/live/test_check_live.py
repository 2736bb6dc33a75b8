"""`check --live` before machines made wrong on purpose: each is named with its remedy, and nothing on right ones."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from pyroute2 import IPRoute

from nfmailguard import ruleset
from nfmailguard.config import load
from nfmailguard.lab.topology import CLIENT, GATEWAY, Topology
from nfmailguard.queues.kernel import KernelQueue
from nfmailguard.ruleset import Ruleset
from nfmailguard.service import live, machine
from nfmailguard.service.preflight import BRIDGED

pytestmark = pytest.mark.live


class Wrong(NamedTuple):
    """What is done to the router, and what has to be said of it."""

    name: str
    remedy: str
    rules: str = ""
    settings: tuple[str, ...] = ()
    do: Callable[[ExitStack], object] = lambda stack: None
    configuration: str = ""


def chain(rule: str, hook: str = "forward", kind: str = "filter", priority: str = "0") -> str:
    return f"table inet t {{\nchain c {{\ntype {kind} hook {hook} priority {priority};\n{rule}\n}}\n}}\n"


def dnat(rule: str) -> str:
    return chain(rule, "prerouting", "nat", "-100")


def sysctl(name: str, value: str) -> Callable[[ExitStack], object]:
    return lambda stack: Path("/proc/sys/net", name).write_text(value)


def default_routes(*ways: str, strict: bool = False) -> Callable[[ExitStack], None]:
    def do(stack: ExitStack) -> None:
        with IPRoute() as ip:
            for metric, way in enumerate(ways):
                ip.route("add", dst="default", gateway=way, priority=100 + metric)
        for name in ("outside", "inside"):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("1" if strict else "0")

    return do


def bridge(on: str, address: str | None = "10.25.9.1") -> Callable[[ExitStack], None]:
    def do(stack: ExitStack) -> None:
        if not BRIDGED.exists():
            pytest.skip("no br_netfilter")
        with IPRoute() as ip:
            ip.link("add", ifname="br0", kind="bridge")
            number = ip.link_lookup(ifname="br0")[0]
            for name in ("outside", "inside"):
                ip.link("set", index=ip.link_lookup(ifname=name)[0], master=number)
            ip.link("set", index=number, state="up")
            if address:
                ip.addr("add", index=number, address=address, prefixlen=24)
        for name in ("iptables", "ip6tables"):
            (BRIDGED / f"bridge-nf-call-{name}").write_text(on)

    return do


def reading(number: int) -> Callable[[ExitStack], None]:
    def do(stack: ExitStack) -> None:
        queue = KernelQueue(None, number, accept_all=True)
        queue.open()
        stack.callback(queue.close)

    return do


def listening(address: str, port: int) -> Callable[[ExitStack], None]:
    def do(stack: ExitStack) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = stack.enter_context(socket.socket(family))
        server.bind((address, port))
        server.listen()

    return do


def queueing(stack: ExitStack) -> None:
    Ruleset(7, 7, (25,), ("forward",)).apply()


def anothers(stack: ExitStack) -> None:
    """The same in a table of somebody else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ruleset, "TABLE", "theirs")
        queueing(stack)


MARKED = chain("meta mark set 5", "prerouting", priority="-150") + "table ip n {\nchain c {\n" + (
    "type nat hook prerouting priority -100;\ntcp dport 25 dnat to 10.25.2.2\n}\n}\n"
)  # fmt: skip
PUBLIC = "gateway.addresses=192.0.2.25"

WRONG = {
    "not forwarded": Wrong("forwarding", "net.ipv4.ip_forward=1", do=sysctl("ipv4/ip_forward", "0")),
    "IPv6 not forwarded": Wrong(
        "forwarding",
        "net.ipv6.conf.all.forwarding=1",
        settings=("gateway.addresses=fd25:2::2",),
        do=sysctl("ipv6/conf/all/forwarding", "0"),
    ),
    "queue taken": Wrong("queue_taken", "queue.numbers", do=reading(0)),
    "queue of another's rule": Wrong("queue_shared", "another number", settings=("queue.numbers=7",), do=anothers),
    "another's queue unread": Wrong("queue_unread", "bypass", do=anothers),
    "rules left by a crash": Wrong("rules_left", "rules remove", settings=("queue.numbers=7",), do=queueing),
    "port translated": Wrong("translated_port", "[25, 2525]", dnat("tcp dport 25 dnat ip to 10.25.2.2:2525")),
    "port translated on one interface": Wrong(
        "translated_port", "[25, 2525]", dnat('iifname "outside" tcp dport { 25, 26 } dnat ip to 10.25.2.2:2525')
    ),
    "port translated by a map": Wrong(
        "translated_port", "[25, 2525]", dnat("dnat ip to tcp dport map { 25 : 10.25.2.2 . 2525 }")
    ),
    "port translated behind jumps": Wrong(
        "translated_port",
        "[25, 2525]",
        "table ip d {\nchain docker {\ntcp dport 25 dnat to 10.25.2.2:2525\n}\nchain c {\n"
        "type nat hook prerouting priority -100;\nfib daddr type local jump docker\n}\n}\n",
    ),
    "redirected": Wrong("redirected", '["input", "output"]', dnat("tcp dport 25 redirect")),
    "public address": Wrong(
        "translated_address", "10.25.2.2", dnat("ip daddr 192.0.2.25 dnat ip to 10.25.2.2"), settings=(PUBLIC,)
    ),
    "public address in a rule": Wrong(
        "translated_address",
        "10.25.2.2",
        dnat("ip daddr 192.0.2.25 dnat ip to 10.25.2.2"),
        configuration='[[rule]]\nto = "192.0.2.25"\nprofile = "asa"\n',
    ),
    "mail host": Wrong("mail_host", "gateway.hook", do=listening("0.0.0.0", 25)),
    "mail host, IPv6": Wrong("mail_host", "gateway.hook", do=listening("::", 25)),
    "mail host by its address": Wrong("mail_host", "gateway.hook", settings=("gateway.addresses=10.25.2.1",)),
    "not tracked": Wrong("notrack", "leave tcp port 25", chain("tcp dport 25 notrack", "prerouting", priority="-300")),
    "answers not tracked": Wrong(
        "notrack", "both directions", chain("tcp sport { 20-30 } notrack", "prerouting", priority="-300")
    ),
    "dropped": Wrong("dropped", "let mail pass", chain("tcp dport 25 drop")),
    "rejected": Wrong("dropped", "let mail pass", chain("tcp dport 1-1023 reject")),
    "dropped by a map": Wrong("dropped", "let mail pass", chain("tcp dport vmap { 25 : drop, 26 : accept }")),
    "marked": Wrong("mark", "postrouting", MARKED),
    "connections marked": Wrong(
        "connection_mark", "queue.offload", chain("ct mark set 0x30000001"), settings=("queue.offload=yes",)
    ),
    "two uplinks": Wrong("uplinks", "on.wrong_interface", do=default_routes("10.25.1.2", "10.25.2.2")),
    "two uplinks, strict": Wrong("rp_filter", "=2", do=default_routes("10.25.1.2", "10.25.2.2", strict=True)),
    "one uplink, not strict": Wrong("rp_filter", "=1", do=default_routes("10.25.1.2")),
    "bridge past the hooks": Wrong("bridge", "br_netfilter", do=bridge("0")),
    "bridge without an address": Wrong("bridge_address", "br0", do=bridge("1", address=None)),
    "rule for a bridge's port": Wrong(
        "bridge_port", '"br0"', do=bridge("1"), configuration='[[rule]]\nin = "outside"\nprofile = "asa"\n'
    ),
    "rule for no interface": Wrong("no_interface", "`in`", configuration='[[rule]]\nin = "ppp0"\nprofile = "asa"\n'),
    "room in conntrack": Wrong(
        "conntrack_size", "nf_conntrack_max", settings=("limits.flows=5000000", "limits.memory=20000000000")
    ),
    "implicit TLS": Wrong(
        "implicit_tls", "take 465 out", configuration='[[rule]]\nports = [465]\nmode = "monitor"\nprofile = "asa"\n'
    ),
    "no folder for events": Wrong("log_folder", "install -d", settings=("log.eve=/nowhere/eve.json",)),
    "no events": Wrong("no_events", "log.eve", settings=("log.eve=",)),
    "no log host": Wrong("log_host", "correct the name", settings=("syslog.target=udp://nohost.invalid",)),
}


@pytest.fixture
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"cl{os.getpid()}-") as made:
        yield made


def put(rules: str) -> None:
    if rules:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def found(topology: Topology, wrong: Wrong, tmp_path: Path, root: Path | None = None) -> list[live.Trouble]:
    path = tmp_path / "nfmailguard.toml"
    path.write_text(wrong.configuration)
    settings = [f"log.eve={tmp_path}/eve.json", *wrong.settings]
    config = load(path, [one for one in settings if one != "log.eve="], mode="enforce")
    if "log.eve=" in wrong.settings:
        config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, eve=None))
    with topology.enter(GATEWAY), ExitStack() as stack:
        put(wrong.rules)
        wrong.do(stack)
        return live.troubles(config, machine.read(config, root or tmp_path))


@pytest.mark.parametrize("case", WRONG)
def test_a_machine_that_is_wrong_is_named_with_its_remedy(case: str, topology: Topology, tmp_path: Path) -> None:
    wrong = WRONG[case]
    told = found(topology, wrong, tmp_path)
    assert [one.remedy for one in told if one.name == wrong.name and wrong.remedy in one.remedy] != [], told
    assert all("\n" not in str(one) for one in told)


FIREWALL = """
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ct state invalid drop
        iifname "outside" oifname "inside" tcp dport { 25, 443 } ct state new accept
        ip saddr 203.0.113.0/24 drop
        tcp dport 23 drop
        limit rate 5/second reject
    }
    chain raw {
        type filter hook prerouting priority -300;
        udp dport 53 notrack
        tcp dport 443 notrack
    }
    chain mangle {
        type filter hook forward priority -150;
        tcp flags syn tcp option maxseg size set rt mtu
    }
}
table ip nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        ip daddr 192.0.2.25 tcp dport 25 dnat to 10.25.2.2
        tcp dport 443 dnat to 10.25.2.2:8443
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname "outside" masquerade
    }
}
"""
RIGHT = {
    "a router": Wrong("", ""),
    "a router with an uplink": Wrong("", "", do=default_routes("10.25.1.2", strict=True)),
    "two uplinks, allowed": Wrong(
        "", "", settings=("on.wrong_interface=pass",), do=default_routes("10.25.1.2", "10.25.2.2")
    ),
    "a firewall that translates": Wrong(
        "", "", FIREWALL, ("gateway.addresses=10.25.2.2",), do=default_routes("10.25.1.2", strict=True)
    ),
    "a port translated and inspected": Wrong(
        "", "", dnat("tcp dport 25 dnat ip to 10.25.2.2:2525"), settings=("gateway.ports=25,2525",)
    ),
    "a mail host": Wrong("", "", settings=("gateway.hook=input,output",), do=listening("0.0.0.0", 25)),
    "mail for itself only": Wrong("", "", do=listening("127.0.0.1", 25)),
    "a bridge with an address": Wrong("", "", do=bridge("1")),
    "a bridge beside the way": Wrong("", "", settings=("gateway.addresses=10.25.2.2",), do=bridge("0")),
    "another's queue": Wrong("", "", do=lambda stack: (reading(7)(stack), anothers(stack))),
}
RIGHT["another's queue"] = RIGHT["another's queue"]._replace(settings=("queue.numbers=3",))


@pytest.mark.parametrize("case", RIGHT)
def test_on_a_right_machine_nothing_is_named(case: str, topology: Topology, tmp_path: Path) -> None:
    assert found(topology, RIGHT[case], tmp_path) == []


@pytest.mark.parametrize("where", ["etc/nftables.conf", "etc/nftables.d/more.nft"])
def test_a_ruleset_in_use_that_flushes_is_named(where: str, topology: Topology, tmp_path: Path) -> None:
    main, file = tmp_path / "etc/nftables.conf", tmp_path / where
    file.parent.mkdir(parents=True)
    main.write_text('include "/etc/nftables.d/*.nft"\n')
    file.write_text("#!/usr/sbin/nft -f\n # flush ruleset\ntable inet filter {\n}\n")
    harmless = Wrong("", "")
    wanted = tmp_path / "etc/systemd/system/sysinit.target.wants/nftables.service"
    wanted.parent.mkdir(parents=True)
    wanted.touch()
    assert found(topology, harmless, tmp_path) == []  # a comment
    file.write_text("flush ruleset\ntable inet filter {\n}\n")
    assert [one.name for one in found(topology, harmless, tmp_path)] == ["flush_ruleset"]
    wanted.unlink()
    assert found(topology, harmless, tmp_path) == []  # a file as the distribution left it
    if file == main:
        in_use = Wrong("", "", "table inet filter {\nchain c {\ntype filter hook input priority 0;\n}\n}\n")
        assert [one.name for one in found(topology, in_use, tmp_path)] == ["flush_ruleset"]


def test_the_command_says_it_and_changes_nothing(topology: Topology, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[gateway]\nmode = "enforce"\n[log]\neve = "{tmp_path}/eve.json"\n')
    with topology.enter(GATEWAY):
        before = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
    for switch, code, told in (("1", 0, "no trouble found"), ("0", 1, "trouble: forwarding: ")):
        with topology.enter(GATEWAY):
            Path("/proc/sys/net/ipv4/ip_forward").write_text(switch)
        options = ["check", "--live", "-c", str(path)]
        done = topology.run(GATEWAY, ["nfmailguard", *options], capture_output=True, text=True)
        assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr
        done = topology.run(GATEWAY, ["nfmailguard", *options, "--json"], capture_output=True, text=True)
        assert done.returncode == code
        assert [one["name"] for one in msgspec.json.decode(done.stdout)["troubles"]] == ["forwarding"] * code
    with topology.enter(GATEWAY):
        assert subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == before


def test_without_privilege_the_command_says_what_it_could_not_see(topology: Topology) -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "nfmailguard", "check", "--live"]
    done = topology.run(CLIENT, [*command, "-c", "/dev/null"], capture_output=True, text=True)
    if "not found" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(f"this checkout is not readable for others: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "trouble: kernel: our table is refused: no permission; run as root or with CAP_NET_ADMIN" in done.stdout
    assert "not looked at: others' rules" in done.stdout
