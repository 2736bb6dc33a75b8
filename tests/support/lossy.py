"""A lab whose links lose, repeat and delay: namespaces of their own between the hosts.

    client ── [link0] ── gateway ── [link1] ── server

``link.c`` is the link of tests: every fate, seeded. Where rate is what counts, the link is a bridge
and nftables' random numbers: it only loses, repeats no run, and carries about twice as much.

Promises: the hosts and addresses are those of ``Topology``; a link without fates is a plain cable.
On a lossy link every segment travels alone, so that a loss is the loss of one segment; where they
may, hosts merge what arrives in order, as a network card does: super-packets reach the queue.
Does not know what is carried.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute, netns

from nfmailguard.errors import LabError
from nfmailguard.lab.topology import Address, Topology

__all__ = ["BEFORE", "BEYOND", "Fates", "LossyTopology"]

#: The links: between client and gateway, between gateway and server.
BEFORE, BEYOND = 0, 1
SOURCE = Path(__file__).with_name("link.c")
BINARY = Path(__file__).parents[2] / "build" / "link"
SIOCETHTOOL = 0x8946
#: ETHTOOL_STXCSUM, _STSO, _SGRO of linux/ethtool.h.
OFFLOADS = {"tx": 0x17, "tso": 0x1F, "gro": 0x2C}
#: How long a host waits for more to merge: about what a network card's interrupts are apart.
MERGE_NANOSECONDS = 50_000
WAYS = {"to_right": "left", "to_left": "right"}


class Fates(NamedTuple):
    """Probabilities for each segment of one link, in both directions."""

    loss: float = 0.0
    twice: float = 0.0
    late: float = 0.0


def program() -> Path:
    """``link``, compiled where there is none or its source is newer."""
    if not BINARY.exists() or BINARY.stat().st_mtime < SOURCE.stat().st_mtime:
        BINARY.parent.mkdir(exist_ok=True)
        made = BINARY.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, SOURCE], check=True)
        made.rename(BINARY)
    return BINARY


def offload(interface: str, **features: bool) -> None:
    """Switches offloads of an interface of the calling thread's namespace, like ``ethtool -K``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for name, on in features.items():
            value = array.array("I", [OFFLOADS[name], on])
            request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)


class LossyTopology(Topology):
    """``fates``: what a segment meets on each lossy link. One ``seed``, one sequence of fates.

    A late segment is late by up to ``late_ms``. ``in_kernel`` links only lose. ``counts``: what each
    link did in each direction (``to_right`` is towards the server), from ``stop_links`` or the end on.
    ``merging``: whether the hosts merge segments.
    """

    def __init__(
        self,
        fates: Mapping[int, Fates],
        *,
        seed: int = 1,
        late_ms: float = 3.0,
        in_kernel: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        if in_kernel and any(fate.twice or fate.late for fate in fates.values()):
            raise ValueError("a link in the kernel only loses")
        self.fates = dict(fates)
        self.seed = seed
        self.late_ms = late_ms
        self.in_kernel = in_kernel
        self.counts: dict[int, dict[str, dict[str, int]]] = {}
        self.merging = False
        self._programs: dict[int, subprocess.Popen[str]] = {}

    def _between(self, number: int) -> str:
        return self.namespace(f"link{number}")

    def _make(self) -> None:
        for number in self.fates:
            netns.create(self._between(number))
        super()._make()
        for number, fates in self.fates.items():
            if self.in_kernel:
                self._bridge(number, fates)
            else:
                self._start(number, fates)

    def _link(self, number: int, left: Address, right: Address) -> None:
        if number not in self.fates:
            super()._link(number, left, right)
            return
        between = f"link{number}"
        with self.enter(between):
            # Nothing of its own is ever said here.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        for end, side in ((left, "left"), (right, "right")):
            with self.enter(end.host), IPRoute() as ip:
                peer = {"ifname": side, "net_ns_fd": self.namespace(between)}
                ip.link("add", ifname=end.interface, index=100 + number, kind="veth", peer=peer)
                offload(end.interface, tx=False, tso=False, gro=True)
            self._wait_and_merge(end)
            with self.enter(between), IPRoute() as ip:
                offload(side, tso=False)  # else the other end expects nothing to merge
                ip.link("set", index=ip.link_lookup(ifname=side)[0], state="up")

    def _wait_and_merge(self, end: Address) -> None:
        settings = {"gro_flush_timeout": MERGE_NANOSECONDS, "napi_defer_hard_irqs": 1}
        script = "; ".join(f"echo {value} >/sys/class/net/{end.interface}/{key}" for key, value in settings.items())
        # The namespace's own /sys, which only this command mounts.
        command = ["ip", "netns", "exec", self.namespace(end.host), "sh", "-ec", script]
        # The root of a user namespace may not; there segments stay alone.
        self.merging = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _start(self, number: int, fates: Fates) -> None:
        numbers = [self.seed * 2 + number, round(self.late_ms * 1000), *fates]
        command = [str(program()), "left", "right", *map(str, numbers)]
        started = self.popen(f"link{number}", command, stdout=subprocess.PIPE, text=True)
        self._programs[number] = started
        if started.stdout is None or started.stdout.readline() != "ready\n":
            raise LabError(f"lab: link{number} did not start: exit {started.wait(60)}")

    def _bridge(self, number: int, fates: Fates) -> None:
        with self.enter(f"link{number}"), IPRoute() as ip:
            ip.link("add", ifname="bridge", kind="bridge", br_mcast_snooping=0)
            bridge = ip.link_lookup(ifname="bridge")[0]
            for side in WAYS.values():
                ip.link("set", index=ip.link_lookup(ifname=side)[0], master=bridge)
            ip.link("set", index=bridge, state="up")
        rules = [
            f"iifname {side} meta l4proto tcp {match}counter name {way}_{what}"
            for way, side in WAYS.items()
            for what, match in (
                ("frames", ""),
                ("lost", f"numgen random mod 1000000 < {round(fates.loss * 1e6)} "),
            )
        ]
        text = "\n".join(
            [
                "table bridge lossy {",
                *(f"counter {way}_{what} {{\n}}" for way in WAYS for what in ("frames", "lost")),
                "chain ways {\ntype filter hook forward priority 0;",
                *(rule + (" drop" if rule.endswith("lost") else "") for rule in rules),
                "}\n}\n",
            ]
        )
        self.run(f"link{number}", ["nft", "-f", "-"], input=text, text=True, check=True)

    def stop_links(self) -> None:
        """Reads what the links did; programs end with it. Raises LabError when one had failed."""
        if self.in_kernel:
            self.counts = {number: self._bridge_counts(number) for number in self.fates}
        for number, started in self._programs.items():
            if number in self.counts:
                continue
            started.terminate()
            told = started.communicate(timeout=60)[0]
            if started.returncode:
                raise LabError(f"lab: link{number} failed: exit {started.returncode}")
            self.counts[number] = json.loads(told)

    def _bridge_counts(self, number: int) -> dict[str, dict[str, int]]:
        command = ["nft", "-j", "list", "counters"]
        told = self.run(f"link{number}", command, capture_output=True, text=True, check=True).stdout
        packets = {
            entry["counter"]["name"]: int(entry["counter"]["packets"])
            for entry in json.loads(told)["nftables"]
            if "counter" in entry
        }
        return {way: {what: packets[f"{way}_{what}"] for what in ("frames", "lost")} for way in WAYS}

    def close(self) -> None:
        """As ``Topology.close``, with the links' namespaces."""
        try:
            if self.exists() and not self.in_kernel:
                self.stop_links()
        finally:
            super().close()
            for number in self.fates:
                if Path("/run/netns", self._between(number)).exists():
                    with contextlib.suppress(OSError):
                        netns.remove(self._between(number))
