"""A full flow table, floods of SYNs, streams that nobody acknowledges: does memory stay under its cap?

``python -m tests.memory.flood --flows 1000000`` opens so many flows, floods them with as
many SYNs from random addresses again and again, lets some flows fill all memory that
streams may have, and checks after each step that every other flow goes on: commands are
masked, replies find their commands, mail is taken. Prints a table and exits with 1 when
something did not hold. Packets are templates, patched; checksums count as not ready, so
that the engine does not look at them.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode

ACCEPT, REPLACE, DROP = OperationKind.ACCEPT, OperationKind.REPLACE, OperationKind.DROP
#: A server's packet may leave with a lower window, as memory runs short.
PASSED = ACCEPT, REPLACE
CHECKSUM_PARTIAL = 1  # cext/wire/packet.pxd: PACKET_CHECKSUM_PARTIAL
SYN, PSH, ACK = 0x02, 0x08, 0x10
SERVER = 0x0A190202
CLIENT_ISN, SERVER_ISN = 1000, 5000
#: RFC 7323: windows of 65,535 << 10, so that one flow may have 64 MB on the way.
SCALE = b"\x03\x03\x0a\x00"
GREETING = b"220 mail.example.com ESMTP\r\n"
HELLO, REPLY = b"HELO a.example\r\n", b"250 ok\r\n"
MICROSECOND = 1000
MEBIBYTE = 1 << 20
#: Flows that take all the memory they can get.
HOGS = 40


def resident() -> int:
    """Octets of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


class Template:
    """An IPv4 packet of one kind; only the client's address and port, and numbers, change."""

    def __init__(self, to_server: bool, flags: int, payload: bytes = b"", options: bytes = b"") -> None:
        header = 40 + len(options)
        self.octets = bytearray(header + len(payload))
        ends = (0, 0, 0, SERVER) if to_server else (0, 0, SERVER, 0)
        struct.pack_into("!BBHHHBBHII", self.octets, 0, 0x45, 0, len(self.octets), 0, 0x4000, 64, 6, *ends[1:])
        ports = (0, 25) if to_server else (25, 0)
        struct.pack_into("!HHIIBBHHH", self.octets, 20, *ports, 0, 0, (20 + len(options)) << 2, flags, 65535, 0, 0)
        self.octets[40:header] = options
        self.octets[header:] = payload
        self.header = header
        self.address_at, self.port_at = (12, 20) if to_server else (16, 22)
        self.length = len(payload)
        self.to_server = to_server

    def of(self, address: int, port: int, seq: int, ack: int) -> bytearray:
        struct.pack_into("!I", self.octets, self.address_at, address)
        struct.pack_into("!H", self.octets, self.port_at, port)
        struct.pack_into("!II", self.octets, 24, seq, ack)
        return self.octets


def client_of(flow: int) -> tuple[int, int]:
    """Address and port of a flow's client."""
    # Each of a source of its own: nobody alone may have all of a table.
    return 0x0B000000 + flow, 1024 + flow % 40_000


class Group:
    """Flows that are treated alike, and where both sides of each have got to."""

    def __init__(self, flows: Sequence[int], like: Group | None = None) -> None:
        self.flows = flows
        self.client = like.client if like else CLIENT_ISN + 1 + len(HELLO)
        self.server = like.server if like else SERVER_ISN + 1 + len(GREETING) + len(REPLY)


class Load:
    """An engine under load; what every flow has said is known, so nothing is kept for each."""

    def __init__(self, flows: int, memory: int) -> None:
        self.rss_before = resident()
        self.memory = memory
        self.flows = flows
        self.engine = Engine(
            [FlowRule(Mode.ENFORCE, load_profile("pix63"))],
            limits=Limits(cookies=0, flows=flows, memory=memory, idle=1e6),
            records=False,
        )
        self.now = 10**18
        self.syn = Template(True, SYN, options=SCALE)
        self.syn_ack = Template(False, SYN | ACK, options=SCALE)
        self.ack = Template(True, ACK)
        self.greeting = Template(False, PSH | ACK, GREETING)
        self.hello, self.reply = Template(True, PSH | ACK, HELLO), Template(False, PSH | ACK, REPLY)
        self.chance = random.Random(25)
        self.faults: list[str] = []

    def expect(self, condition: bool, text: str) -> None:
        if not condition:
            self.faults.append(text)
            sys.stdout.write(f"FAULT: {text}\n")

    def process(self, template: Template, flow: int, seq: int, ack: int) -> list[tuple[int, int, bytes | None, bool]]:
        self.now += MICROSECOND
        return self.engine.process(template.of(*client_of(flow), seq, ack), self.now, 1, 0, 0, 0, CHECKSUM_PARTIAL)

    def open(self, flows: Sequence[int]) -> int:
        """Handshake, greeting and a command that is accepted; how many packets did not pass as they should."""
        wrong = 0
        for flow in flows:
            client, server = CLIENT_ISN + 1, SERVER_ISN + 1
            wrong += self.process(self.syn, flow, CLIENT_ISN, 0)[0][0] != ACCEPT
            wrong += self.process(self.syn_ack, flow, SERVER_ISN, client)[0][0] not in PASSED
            wrong += self.process(self.ack, flow, client, server)[0][0] != ACCEPT
            wrong += self.process(self.greeting, flow, server, client)[0][0] != REPLACE
            server += len(GREETING)
            wrong += self.process(self.hello, flow, client, server)[0][0] != ACCEPT
            client += len(HELLO)
            wrong += self.process(self.reply, flow, server, client)[0][0] not in PASSED
            wrong += self.process(self.ack, flow, client, server + len(REPLY))[0][0] != ACCEPT
        return wrong

    def flood(self, syns: int) -> tuple[int, int]:
        """SYNs from anywhere; how many passed, and how many were dropped."""
        passed = 0
        process, template, bits = self.engine.process, self.syn.octets, self.chance.getrandbits
        struct.pack_into("!II", template, 24, CLIENT_ISN, 0)
        for _ in range(syns):
            # 128.0.0.0/1: the flows' clients are not there.
            struct.pack_into("!I", template, 12, 0x80000000 | bits(31))
            struct.pack_into("!H", template, 20, bits(16))
            self.now += MICROSECOND
            passed += process(template, self.now, 1, 0, 0, 0, CHECKSUM_PARTIAL)[0][0] == ACCEPT
        return passed, syns - passed

    def exchange(self, group: Group) -> int:
        """A denied command and its reply on each flow; how many packets did not pass as they should."""
        wrong = 0
        command, reply = Template(True, PSH | ACK, b"EHLO a.example\r\n"), Template(False, PSH | ACK, b"250 ok\r\n")
        client, server = group.client, group.server
        group.client += command.length
        group.server += reply.length
        for flow in group.flows:
            [(kind, _, data, _)] = self.process(command, flow, client, server)
            wrong += kind != REPLACE or data is None or data[40:] != b"XXXX a.example\r\n"
            wrong += self.process(reply, flow, server, group.client)[0][0] not in PASSED
            wrong += self.process(self.ack, flow, group.client, group.server)[0][0] != ACCEPT
        return wrong

    def mail(self, group: Group) -> int:
        """A whole mail on each flow; how many packets did not pass."""
        wrong = 0
        steps = (
            (True, b"HELO a\r\n"),
            (False, b"250 ok\r\n"),
            (True, b"MAIL FROM:<a@a>\r\n"),
            (False, b"250 ok\r\n"),
            (True, b"RCPT TO:<b@b>\r\n"),
            (False, b"250 ok\r\n"),
            (True, b"DATA\r\n"),
            (False, b"354 go on\r\n"),  # without DATA outstanding it would end the flow
            (True, b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n.\r\n"),
            (False, b"250 queued\r\n"),
        )
        for to_server, octets in steps:
            template = Template(to_server, PSH | ACK, octets)
            for flow in group.flows:
                ends = (group.client, group.server) if to_server else (group.server, group.client)
                wrong += self.process(template, flow, *ends)[0][0] not in ((ACCEPT,) if to_server else PASSED)
            if to_server:
                group.client += len(octets)
            else:
                group.server += len(octets)
        for flow in group.flows:
            wrong += self.process(self.ack, flow, group.client, group.server)[0][0] != ACCEPT
        return wrong

    def fill(self, group: Group) -> Iterator[bool]:
        """Replies that no client acknowledges, 16,000 octets a packet, by turns; yields whether one had to wait."""
        command = Template(True, PSH | ACK, b"HELO a\r\n")
        lines = Template(False, PSH | ACK, (b"250-" + b"x" * 994 + b"\r\n") * 16)
        for flow in group.flows:
            self.process(command, flow, group.client, group.server)
        group.client += command.length
        alive = group.flows
        while alive:
            left = []
            for flow in alive:
                fell = self.process(lines, flow, group.server, group.client)[0][0] == DROP
                if not fell:
                    left.append(flow)
                yield fell
            alive = left
            group.server += lines.length


class Table:
    """What is printed."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.started = time.perf_counter()
        titles = ("step", "flows", "memory_now", "RSS growth", "cap", "of cap", "seconds")
        sys.stdout.write("{:42} {:>9} {:>11} {:>11} {:>9} {:>7} {:>8}\n".format(*titles))

    def row(self, step: str) -> None:
        load = self.load
        counters = load.engine.counters()
        grown = resident() - load.rss_before
        seconds, self.started = time.perf_counter() - self.started, time.perf_counter()
        sys.stdout.write(
            f"{step:42} {counters['flows_now']:9,} {counters['memory_now'] / MEBIBYTE:7.1f} MiB"
            f" {grown / MEBIBYTE:7.1f} MiB {load.memory / MEBIBYTE:5.0f} MiB {grown / load.memory:7.3f}"
            f" {seconds:8.1f}\n"
        )
        sys.stdout.flush()
        load.expect(counters["memory_now"] <= load.memory, f"{step}: memory_now is above limits.memory")
        # Outside the cap: pointers, 8 to 16 octets a flow, and what does not grow (the ring of records).
        outside = 16 * load.flows + 4 * MEBIBYTE
        load.expect(grown <= load.memory + outside, f"{step}: {grown} octets resident, cap {load.memory}")


def cost(load: Load, group: Group, rounds: int = 3) -> float:
    """Microseconds the engine takes for a packet, on flows in the order of the group: without the call from Python."""
    other = [
        Template(to_server, flags, octets)
        for to_server, flags, octets in ((True, PSH | ACK, b"EHLO a.example\r\n"), (False, PSH | ACK, b"250 ok\r\n"))
    ]
    other.append(Template(True, ACK))
    for template in other:
        struct.pack_into("!HH", template.octets, 20, 26, 26)  # a port that nobody inspects
        template.port_at = 30  # where it disturbs nothing
    inspected, called = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        load.expect(load.exchange(group) == 0, "a packet of the measurement")
        inspected.append(time.perf_counter() - began)
        began = time.perf_counter()
        for flow in group.flows:
            for template in other:
                load.process(template, flow, 1, 1)
        called.append(time.perf_counter() - began)
    return (min(inspected) - min(called)) / (3 * len(group.flows)) * 1e6


def run(flows: int) -> list[str]:
    """Everything, with ``flows`` flows; what did not hold."""
    small = Load(1_000, 4 * MEBIBYTE)
    small.open(range(1_000))
    at_small = cost(small, Group(range(1_000)), 30)

    first = flows * 9 // 10
    hogs, measured = Group(range(HOGS)), Group([flow for flow in range(HOGS, flows) if flow % 10 == 0])
    random.Random(25).shuffle(measured.flows)  # type: ignore[arg-type]
    others = Group([flow for flow in range(HOGS, flows) if flow % 10])
    load = Load(flows, 1_280 * flows)
    counters = load.engine.counters
    table = Table(load)
    table.row("nothing yet")

    load.expect(load.open(range(first)) == 0, "opening")
    table.row("nine tenths open")

    passed, dropped = load.flood(flows)
    load.expect(dropped == 0, f"{dropped} SYNs were dropped although there was room")
    load.expect(counters()["flows_now"] == flows, "the table is not full")
    load.expect(counters()["flows_evicted"] == first, "SYNs evicted something else than SYNs")
    table.row(f"{flows:,} SYNs into the last tenth")

    wrong = 0
    for at in range(first, flows, 1000):
        wrong += load.flood(1000)[1]
        wrong += load.open(range(at, min(at + 1000, flows)))
    load.expect(wrong == 0, f"{wrong} packets of flows that open in a flood")
    load.expect(counters()["finding.flow.limit"] == 0, "a flow was refused")
    table.row("the last tenth opens in the flood")

    passed, dropped = load.flood(flows)
    load.expect(dropped == flows == counters()["finding.flow.limit"], f"{passed} SYNs found room")
    table.row(f"{flows:,} SYNs on a full table")

    for group in (hogs, measured, others):
        load.expect(load.exchange(group) == 0, "a command or reply after the flood")
    load.expect(counters()["finding.command.denied"] == flows, "denied commands")
    load.expect(counters()["finding.reply.unsolicited"] == 0, "a reply that found no command")
    table.row("every flow: a command masked, a reply")

    at_large = cost(load, measured)
    table.row("cost of a packet measured on a tenth")

    filling = load.fill(hogs)
    while not next(filling):
        pass
    load.expect(counters()["drop.memory"] == 1, "the limit was not met")
    table.row(f"{HOGS} flows fill the memory of streams")

    wrong = 0
    sample = others.flows[:: max(1, len(others.flows) // 2000)]
    for at in range(0, len(sample), 20):
        some = Group(sample[at : at + 20], others)
        wrong += load.exchange(some) + load.mail(some)
        next(filling, None)
    load.expect(wrong == 0, f"{wrong} packets of other flows while memory is full")
    load.expect(counters()["finding.reply.unsolicited"] == 0, "a reply that found no command")
    load.expect(counters()["finding.stream.memory_limit"] == counters()["flows_reset"] == 0, "flows fell")
    load.expect(counters()["drop.memory"] <= HOGS, "the wrong flows had to wait")
    table.row(f"mail on {len(sample):,} others meanwhile")

    load.engine.finish(load.now)
    load.expect(counters()["flows_now"] == counters()["memory_now"] == 0, "something is left")
    table.row("everything ended")
    load.expect(load.open(range(flows)) == 0, "opening again")
    table.row("opened again")

    sys.stdout.write(
        f"\na flow: {FLOW_BYTES} octets; a packet (the engine alone): {at_small:.2f} us with 1,000 flows,"
        f" {at_large:.2f} us with {flows:,}\n"
    )
    return load.faults


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1_000_000)
    faults = run(parser.parse_args().flows)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
