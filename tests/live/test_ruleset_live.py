"""The ruleset in a kernel: exactly the wanted table, and live packets through it."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_network

import pytest
from pyroute2 import Conntrack
from queue_router import SERVER, Router, router_or_skip

from nfmailguard import ruleset
from nfmailguard.queues.injector import INJECT_MARK
from nfmailguard.queues.kernel import KernelQueue, queue_states
from nfmailguard.ruleset import Ruleset

pytestmark = pytest.mark.live

PORT = 2525
SO_MARK = 36


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


def listed(router: Router) -> str:
    """What the kernel holds, without the queue statement: nft cannot show the compat target everywhere."""
    listing = router.run(
        router.gateway,
        lambda: subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout,
    )
    lines = [line for line in listing.splitlines() if line.strip() and "XT target" not in line and "#" not in line]
    lines = [line.replace("flags != syn / syn,ack", "flags & (syn | ack) != syn") for line in lines]  # as some write it
    return "\n".join("\t\tcounter" if line.startswith("\t\tcounter ") else line for line in lines)


def wanted(rules: Ruleset) -> str:
    text = rules.render().partition("\n\n")[2]
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join("\t\tcounter" if line.startswith("\t\tcounter ") else line for line in lines)


@contextmanager
def listening(router: Router, number: int) -> Iterator[KernelQueue]:
    queue = KernelQueue(None, number, accept_all=True)
    router.run(router.gateway, queue.open)
    running = router.start(router.gateway, queue.run)
    try:
        yield queue
    finally:
        queue.stop()
        running.result(60)
        queue.close()


def packets() -> int:
    table = ruleset.installed()
    assert table
    assert (table.queue_first, table.queue_last) == (3, 3)
    return table.packets


def all_seen(router: Router, queue: KernelQueue) -> bool:
    """Whether the rule's counter and the queue's come to agree: packets are still on their way."""
    for _ in range(100):
        if router.run(router.gateway, packets) == queue.counters()["packets"]:
            return True
        time.sleep(0.02)
    return False


def applied(router: Router, *ports: int, **options: object) -> Ruleset:
    rules = Ruleset(3, 3, ports or (PORT,), options.pop("hooks", ("forward",)), **options)  # type: ignore[arg-type]
    router.run(router.gateway, rules.apply)
    return rules


def test_whatever_was_there_the_table_is_the_wanted_one(router: Router) -> None:
    several = Ruleset(
        0, 3, (25, 587), ("forward", "input", "output"), bypass=True, addresses=[ip_network("10.0.0.0/8")]
    )
    one = Ruleset(9, 9, (25,), ("input",), addresses=[ip_network("2001:db8::25"), ip_network("2001:db8::/33")])
    apart = Ruleset(9, 9, (25,), ("forward",), connections=True)
    for rules in (several, several, one, one, apart, several):
        router.run(router.gateway, rules.apply)
        assert listed(router) == wanted(rules)


def test_other_rules_in_the_same_chains_are_the_wanted_table(router: Router) -> None:
    several = Ruleset(3, 3, (25, 587), ("forward", "input", "output"), bypass=True, conntrack=False)
    others = Ruleset(3, 3, (26,), ("forward", "input", "output"), connections=True, addresses=[ip_network("10.0.0.1")])
    router.run(router.gateway, several.apply)
    for rules in (others, several, several, others):
        router.run(router.gateway, lambda rules=rules: rules.apply(same_chains=True))  # type: ignore[misc]
        assert listed(router) == wanted(rules)


def test_other_rules_in_the_same_chains_leave_what_waits_in_the_queue(router: Router) -> None:
    queue = KernelQueue(None, 3, accept_all=True)
    router.run(router.gateway, queue.open)  # and nobody reads it
    applied(router)

    def waiting() -> int:
        return router.run(router.gateway, queue_states)[3].total

    def connect() -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((SERVER[4], PORT))
        return client

    with router.run(router.client, connect):
        assert eventually(waiting)
        router.run(router.gateway, lambda: Ruleset(3, 3, (PORT, 26), ("forward",)).apply(same_chains=True))
        assert waiting() >= 1
        # Whereas with its chains goes what they queued: nf_queue_nf_hook_drop.
        router.run(router.gateway, Ruleset(3, 3, (PORT,), ("forward",)).apply)
        assert waiting() == 0
    router.run(router.gateway, queue.close)


def eventually(condition: Callable[[], object], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(met)


def test_what_is_installed_can_be_asked(router: Router) -> None:
    assert router.run(router.gateway, ruleset.installed) is None
    router.run(router.gateway, Ruleset(4, 6, (25,), ("input",)).apply)
    assert router.run(router.gateway, ruleset.installed) == (4, 6, 0, 0)


def test_nothing_of_anybody_else_is_touched(router: Router) -> None:
    theirs = "table inet filter {\n\tchain nfmailguard {\n\t\ttcp dport 25 accept\n\t}\n}\n"
    command = ["nft", "-f", "-"]
    router.run(router.gateway, lambda: subprocess.run(command, input=theirs, text=True, check=True))
    before = listed(router)
    rules = applied(router)
    assert listed(router) != before
    router.run(router.gateway, rules.remove)
    assert listed(router) == before


def test_removing_is_idempotent(router: Router) -> None:
    applied(router)
    for _ in range(2):
        router.run(router.gateway, ruleset.remove)
        assert listed(router) == ""


@pytest.mark.parametrize("version", [4, 6])
def test_live_packets_go_through_the_queue_and_are_counted(router: Router, version: int) -> None:
    applied(router)
    with listening(router, 3) as queue:
        data = bytes(range(256)) * 400
        assert router.transfer(data, version) == data
        assert queue.counters()["packets"] > 4
        assert all_seen(router, queue)


def test_without_a_listener_bypass_decides(router: Router) -> None:
    applied(router, bypass=True)
    assert router.transfer(b"mail") == b"mail"
    applied(router)

    def connect() -> None:
        socket.create_connection((SERVER[4], PORT), timeout=1.5)

    with pytest.raises(TimeoutError):
        router.run(router.client, connect)


def test_other_ports_and_other_servers_are_left_alone(router: Router) -> None:
    applied(router, 25)
    assert router.transfer(b"another port") == b"another port"
    applied(router, addresses=[ip_network("10.99.2.3"), ip_network("fd99:3::/64")])
    assert router.transfer(b"another server") == b"another server"
    assert router.transfer(b"another server", 6) == b"another server"


@pytest.mark.parametrize(("version", "network"), [(4, "10.99.2.0/29"), (6, "fd99:2::2")])
def test_the_protected_server_is_inspected_both_ways(router: Router, version: int, network: str) -> None:
    applied(router, addresses=[ip_network(network)])
    with listening(router, 3) as queue:
        # Enough of them: the last one may not have been counted yet, and data and FIN may be one.
        assert router.transfer(bytes(300_000), version) == bytes(300_000)
        assert queue.counters()["packets"] > 20
        assert all_seen(router, queue)


def reset_over_loopback() -> None:
    """Two packets: a SYN to a closed port, and its answer."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", PORT), timeout=60)


@pytest.mark.parametrize("hooks", [("input",), ("output",), ("input", "output"), ("forward", "output", "input")])
def test_on_loopback_each_packet_is_queued_once(router: Router, hooks: tuple[str, ...]) -> None:
    applied(router, hooks=hooks)
    with listening(router, 3) as queue:
        router.run(router.gateway, reset_over_loopback)
        assert queue.counters()["packets"] == 2


def test_marked_packets_are_not_queued(router: Router) -> None:
    applied(router, hooks=("output",))

    def talk() -> bytes:
        with socket.socket() as server, socket.socket() as client:
            for end in (server, client):
                end.setsockopt(socket.SOL_SOCKET, SO_MARK, INJECT_MARK)
            server.bind(("127.0.0.1", PORT))
            server.listen()
            client.settimeout(60)
            client.connect(("127.0.0.1", PORT))
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"220")
                return client.recv(3)

    assert router.run(router.gateway, talk) == b"220"


SAVED = """table inet saved {
    chain sent {
        type filter hook output priority mangle;
        ct mark set meta mark
    }
    chain left {
        type filter hook postrouting priority mangle;
        meta mark 0x6d67 counter
        ct mark set meta mark
    }
}
"""


@pytest.mark.parametrize("hooks", [("forward",), ("input", "output")])
def test_nobody_can_save_our_mark_with_the_connection(router: Router, hooks: tuple[str, ...]) -> None:
    applied(router, hooks=hooks)
    router.run(router.gateway, lambda: subprocess.run(["nft", "-f", "-"], input=SAVED, text=True, check=True))

    def send() -> list[int]:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, SO_MARK, INJECT_MARK)
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.connect(("10.99.2.77", PORT))
        with Conntrack() as table:
            return [entry.get_attr("CTA_MARK") for entry in table.dump() if entry.get_attr("CTA_MARK") is not None]

    marks = router.run(router.gateway, send)
    assert marks
    assert not any(marks)
    listing = router.run(
        router.gateway,
        lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout,
    )
    assert "meta mark 0x00006d67 counter packets 0 " in listing
    assert router.run(router.gateway, packets) == 0


def put_on_all(router: Router, mark: int) -> None:
    """As somebody who keeps a connection's mark puts it on its later packets."""
    chain = f"chain c {{ type filter hook prerouting priority mangle; meta mark set {mark:#x}; }}"
    theirs = f"table inet kept {{ {chain}; }}"
    router.run(router.gateway, lambda: subprocess.run(["nft", "-f", "-"], input=theirs, text=True, check=True))


def test_our_mark_on_what_comes_lets_nothing_past(router: Router) -> None:
    applied(router)
    put_on_all(router, INJECT_MARK)
    with listening(router, 3) as queue:
        assert router.transfer(bytes(300_000)) == bytes(300_000)
        assert queue.counters()["packets"] > 20


def test_what_offloads_on_what_comes_offloads_nothing(router: Router) -> None:
    """Not even while nobody listens, when no verdict could take it off."""
    for bypass in (False, True):
        applied(router, offload=True, bypass=bypass)
        put_on_all(router, ruleset.OFFLOAD_MARK)
        with nullcontext() if bypass else listening(router, 3):
            before = router.run(router.gateway, packets)
            assert router.transfer(bytes(300_000)) == bytes(300_000)
            assert router.run(router.gateway, packets) - before > 20

        def marks() -> list[int]:
            with Conntrack() as table:
                return [entry.get_attr("CTA_MARK") or 0 for entry in table.dump()]

        found = router.run(router.gateway, marks)
        assert found
        assert not any(mark & ruleset.OFFLOAD_MARK for mark in found)


def test_several_queues_share_the_packets(router: Router) -> None:
    rules = Ruleset(3, 4, (PORT,), ("forward",))
    router.run(router.gateway, rules.apply)
    with listening(router, 3) as one, listening(router, 4) as two:
        assert router.transfer(b"mail") == b"mail"
        # Both directions of a flow go to one of them.
        assert sorted(queue.counters()["packets"] > 0 for queue in (one, two)) == [False, True]


def fragments(payload: bytes) -> list[bytes]:
    """A SYN with ``payload`` to a host that is not there, in two IPv4 fragments."""
    segment = struct.pack("!HHIIBBHHH", 40000, PORT, 1, 0, 5 << 4, 2, 1024, 0, 0) + payload
    cut = 24
    packets = []
    for offset, part, more in ((0, segment[:cut], 0x2000), (cut // 8, segment[cut:], 0)):
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), 77, more | offset, 64, 6, 0)
        packets.append(header + socket.inet_aton("10.99.1.2") + socket.inet_aton("10.99.2.77") + part)
    return packets


def test_fragments_arrive_put_together(router: Router) -> None:
    applied(router)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for packet in fragments(bytes(40)):
                raw.sendto(packet, ("10.99.2.77", 0))

    with listening(router, 3) as queue:
        router.run(router.client, send)
        for _ in range(50):
            if queue.counters()["packets"]:
                break
            time.sleep(0.02)
        assert (queue.counters()["packets"], queue.counters()["bytes"]) == (1, 80)


def test_others_translating_chains_are_found_and_no_flowtables_where_none_are(router: Router) -> None:
    theirs = """table ip nat {
    chain one {
        type nat hook prerouting priority -100;
    }
    chain two {
        type nat hook postrouting priority 100;
    }
}
"""
    assert router.run(router.gateway, ruleset.others) == ((), ())
    router.run(router.gateway, lambda: subprocess.run(["nft", "-f", "-"], input=theirs, text=True, check=True))
    applied(router)
    assert router.run(router.gateway, ruleset.others) == ((), ("prerouting ip nat one", "postrouting ip nat two"))
