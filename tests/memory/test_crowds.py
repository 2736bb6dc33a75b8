"""What few or many clients can take from all: a table full of their flows, memory full of what nobody takes.

Each time an honest client comes while the crowd is there, and its mail has to arrive: its packets are dropped or
taken, and it repeats what was dropped as a TCP sender does, with its time-out doubled each time.
"""

from __future__ import annotations

import pytest

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.memory.flood import ACK, CHECKSUM_PARTIAL, MEBIBYTE, PSH, SYN, Template

ACCEPT, REPLACE, DROP, EMIT = OperationKind.ACCEPT, OperationKind.REPLACE, OperationKind.DROP, OperationKind.EMIT
SECOND = 10**9
SEGMENT = 1448
HONEST = 0x0A010102, 40000
ISN = {True: 1000, False: 5000}


class Crowd:
    """An engine of its own clock, and packets of any client."""

    def __init__(self, **limits: float) -> None:
        self.engine = Engine(
            [FlowRule(Mode.ENFORCE, load_profile("pix63"))],
            limits=Limits(**limits),  # type: ignore[arg-type]
            records=False,
        )
        self.now = 10**18
        self.templates: dict[tuple[bool, int, bytes], Template] = {}

    def packet(
        self, client: tuple[int, int], to_server: bool, flags: int, seq: int, ack: int, payload: bytes = b""
    ) -> list[int]:
        """Sends it; the kinds of the answers."""
        kind = to_server, flags, payload
        template = self.templates.get(kind) or Template(to_server, flags, payload)
        if len(payload) < SEGMENT:
            self.templates[kind] = template
        self.now += 1000
        if (self.engine.next_deadline or self.now) < self.now:
            self.engine.expire(self.now)
        octets = template.of(*client, seq, ack)
        return [answer[0] for answer in self.engine.process(octets, self.now, 1, 0, 0, 0, CHECKSUM_PARTIAL)]

    def shake(self, client: tuple[int, int]) -> bool:
        """Whether the three packets of a handshake pass."""
        return (
            self.packet(client, True, SYN, ISN[True], 0)[-1] == ACCEPT
            and self.packet(client, False, SYN | ACK, ISN[False], ISN[True] + 1)[-1] in (ACCEPT, REPLACE)
            and self.packet(client, True, ACK, ISN[True] + 1, ISN[False] + 1) == [ACCEPT]
        )

    def count(self, name: str) -> int:
        return self.engine.counters()[name]


class Honest:
    """A client and its server; each repeats what was dropped, and acknowledges what has come."""

    def __init__(self, crowd: Crowd, client: tuple[int, int] = HONEST) -> None:
        self.crowd = crowd
        self.client = client
        self.next = {side: ISN[side] + 1 for side in (True, False)}
        self.waited = 0.0

    def opens(self) -> bool:
        return self.crowd.shake(self.client)

    def send(self, to_server: bool, payload: bytes) -> bool:
        """Sends until it passes; False when it never does."""
        again = 0.2
        while True:
            flags = PSH | ACK
            kinds = self.crowd.packet(
                self.client, to_server, flags, self.next[to_server], self.next[not to_server], payload
            )
            if ACCEPT in kinds or REPLACE in kinds:
                self.next[to_server] += len(payload)
                return True
            if again > 120:
                return False
            self.crowd.now += round(again * SECOND)
            self.waited += again
            again *= 2

    def says(self, to_server: bool, payload: bytes) -> bool:
        """Sends it, and has it acknowledged."""
        sent = self.send(to_server, payload)
        self.takes(to_server)
        return sent

    def takes(self, to_server: bool, behind: int = 0) -> None:
        self.crowd.packet(self.client, not to_server, ACK, self.next[not to_server], self.next[to_server] - behind)

    def mails(self, size: int, flight: int = 58_000) -> bool:
        """Whether a whole mail arrives, of which ``flight`` bytes are on the way at once."""
        steps = [
            *((False, b"220 mail ESMTP\r\n"), (True, b"HELO a\r\n"), (False, b"250 ok\r\n")),
            *((True, b"MAIL FROM:<a@a>\r\n"), (False, b"250 ok\r\n"), (True, b"RCPT TO:<b@b>\r\n")),
            *((False, b"250 ok\r\n"), (True, b"DATA\r\n"), (False, b"354 go\r\n")),
        ]
        if not all(self.says(*step) for step in steps):
            return False
        text = (b"x" * 76 + b"\r\n") * (SEGMENT // 78 + 1)
        sent = 0
        while sent < size:
            at = sent % 78
            if not self.send(True, text[at : at + SEGMENT]):
                return False
            sent += SEGMENT
            if sent >= flight:
                self.takes(True, behind=flight - 2 * SEGMENT)
        self.takes(True)
        at = sent % 78
        return self.says(True, text[at:78] + b"\r\n.\r\n") and self.says(False, b"250 queued\r\n")


GREETED = ((False, b"220 mail ESMTP\r\n"), (True, b"HELO a\r\n"), (False, b"250 ok\r\n"))


def greet(crowd: Crowd, client: tuple[int, int]) -> bool:
    """Whether a connection is greeted and its HELO accepted."""
    one = Honest(crowd, client)
    return all(one.says(*step) for step in GREETED)


def address(number: int, of: int) -> tuple[int, int]:
    """The client of the flow of a number, where ``of`` addresses have them all."""
    return 0x0B000000 + number % of, 1024 + number // of % 60_000


def test_131072_tricked_flows_of_three_addresses_keep_nobody_out() -> None:
    crowd = Crowd()
    for number in range(131_072):
        crowd.shake(address(number, 3))
    assert crowd.count("flows_refused") > 30_000
    crowd.now += 70 * SECOND
    for number in range(20_000):
        crowd.packet(address(number, 3), True, ACK, ISN[True] + 1, ISN[False] + 1)
        crowd.packet(address(number, 3), True, SYN, 77, 0)
    honest = Honest(crowd)
    assert honest.opens()
    assert honest.mails(100_000)
    crowd.now += 231 * SECOND
    crowd.engine.expire(crowd.now)
    assert crowd.count("flows_now") < 10  # no server has shown itself


def test_131072_accepted_connections_of_three_addresses_keep_nobody_out() -> None:
    crowd = Crowd(flows=32_768)
    opened = sum(crowd.shake(address(number, 3)) and greet(crowd, address(number, 3)) for number in range(32_768))
    assert opened == 24_576  # three parts of four
    honest = Honest(crowd)
    assert honest.opens()
    assert honest.mails(100_000)


def test_20000_idle_connections_of_one_address_keep_nobody_out() -> None:
    crowd = Crowd()
    assert all(crowd.shake(address(number, 1)) and greet(crowd, address(number, 1)) for number in range(20_000))
    honest = Honest(crowd)
    assert honest.opens()
    assert honest.mails(100_000)


def test_many_sources_without_an_accepted_command_give_way() -> None:
    crowd = Crowd(flows=16_384)
    for number in range(20_000):
        client = address(number, 20_000)
        if crowd.shake(client):
            Honest(crowd, client).says(*GREETED[0])
    honest = Honest(crowd)
    assert honest.opens()
    # Its server takes six seconds, and the crowd goes on coming.
    for number in range(20_000, 21_500):
        crowd.shake(address(number, 30_000))
        crowd.now += SECOND // 250
    assert honest.mails(100_000)


@pytest.mark.parametrize("addresses", [3, 31_000])
def test_31000_flows_that_nobody_takes_from_stop_no_mail(addresses: int) -> None:
    crowd = Crowd(memory=64 * MEBIBYTE)
    text = b"NOOP " + b"x" * 3993 + b"\r\n"
    refused = 0
    for number in range(31_000):
        client = address(number, addresses)
        if not (crowd.shake(client) and greet(crowd, client)):
            refused += 1
            continue
        one = Honest(crowd, client)
        one.next = {True: ISN[True] + 9, False: ISN[False] + 25}
        crowd.packet(client, True, PSH | ACK, one.next[True], one.next[False], text)
    assert crowd.count("memory_now") <= 64 * MEBIBYTE
    honest = Honest(crowd)
    assert honest.opens()
    assert honest.mails(10 * MEBIBYTE)
    assert honest.waited < 30
    assert crowd.count("memory_now") <= 64 * MEBIBYTE


def test_a_crowd_that_goes_on_does_not_stop_a_mail_either() -> None:
    crowd = Crowd(memory=16 * MEBIBYTE)
    text = b"NOOP " + b"x" * 3993 + b"\r\n"

    def come(first: int, last: int) -> None:
        for number in range(first, last):
            client = address(number, 1_000_000)
            if crowd.shake(client) and greet(crowd, client):
                crowd.packet(client, True, PSH | ACK, ISN[True] + 9, ISN[False] + 25, text)

    come(0, 4000)
    honest = Honest(crowd)
    assert honest.opens()

    class Pressed(Honest):
        came = 4000

        def takes(self, to_server: bool, behind: int = 0) -> None:
            super().takes(to_server, behind)
            self.crowd.now += SECOND // 50
            come(self.came, self.came + 1)
            self.came += 1

    honest = Pressed(crowd)
    assert honest.mails(MEBIBYTE)
