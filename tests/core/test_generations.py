"""Rules that are replaced a thousand times under traffic: the memory they take does not grow."""

from __future__ import annotations

import ctypes

import pytest

from nfmailguard.policy.model import Limits
from tests.rules.gateway import ACCEPT, REPLACE, Connection, Gateway
from tests.support.wire import RST

#: Of one set of rules, in octets.
A_GENERATION = 40_000


NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def allocated() -> int:
    """Octets that C has from malloc; under a sanitizer's own allocator always 0, and its own look at leaks counts."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    found = libc.mallinfo2()
    return int(found.uordblks + found.hblkhd)


@pytest.mark.parametrize("others", [False, True], ids=["two by turns", "each another"])
def test_a_thousand_reloads_under_traffic_take_no_memory(*, others: bool) -> None:
    gateway = Gateway("pix63", limits=Limits(cookies=0, startup=0))
    engines = (gateway.engine, gateway.watching, gateway.dry)
    stays = Connection(gateway, port=50000).greeted()
    open_now: list[Connection] = []
    most = after_some = 0
    for number in range(1100):
        policy = "asa" if number % 2 == 0 else "pix63"
        gateway.reload(policy, limits=Limits(cookies=0, closing=1, pending_segments=64 + others * number))
        connection = Connection(gateway, port=1024 + number).greeted()
        assert connection.client(b"EHLO a.example\r\n") == [ACCEPT if policy == "asa" else REPLACE]
        open_now.append(connection)
        if len(open_now) > 10:
            done = open_now.pop(0)
            assert done.send(False, RST, seq=done.has(False)) == [ACCEPT]
            gateway.now += 100_000_000
            for engine in engines:
                engine.expire(gateway.now)
        gateway.records.clear()
        gateway.watched.clear()
        gateway.dry.drain()
        most = max(most, *(len(engine.generations()) for engine in engines))
        after_some = allocated() if number == 100 else after_some
    assert stays.client(b"EHLO a.example\r\n") == [REPLACE]
    assert most <= (30 if others else 3)
    assert allocated() - after_some < 30 * len(engines) * A_GENERATION
