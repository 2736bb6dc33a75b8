"""``bench flows``: the cost of a packet, and the memory of a flow, with many flows at once.

Promises: access is spread evenly: between two packets of a flow are those of up to 131,072 others. The time to make the
packets is measured separately and subtracted. Does not know the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nfmailguard.bench.dialogues import rounds as dialogue
from nfmailguard.bench.results import Benchmark
from nfmailguard.cext.bench.core_bench import Drill
from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode

__all__ = ["COUNTS", "flows"]

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
#: Flows that are in the middle of a command at the same time.
BLOCK = 1 << 17
#: Flows that are in the TCP handshake at the same time.
OPENING = 1024


def flows(rounds: int, tell: Callable[[str], object], counts: Sequence[int] = COUNTS) -> Benchmark:
    """Measures nanoseconds per packet and bytes per flow, enforcing pix63."""
    found = Benchmark(
        "flows",
        "Commands, replies and ACKs spread over so many flows, enforce pix63",
        {"time": "ns a packet", "memory": "octets an idle flow"},
        "enforce pix63",
        more=False,
    )
    opening, turns = dialogue(rounds + 1)
    for count in counts:
        repeat = max(1, 30_000 // count)
        group = f"{count:,} flows"
        # Memory limits just large enough for these flows and the data they have in transit.
        limits = Limits(flows=count, flows_per_source=count, memory=2 * (count * 400 + BLOCK * 4096))
        engine = Engine([FlowRule(Mode.ENFORCE, load_profile("pix63"))], limits=limits, records=False)
        Drill(engine, opening).spread(count, OPENING)
        # The first dialogue is not timed: it touches memory that the kernel then has to provide.
        Drill(engine, turns[0]).spread(count, BLOCK)
        for turn in turns[1:]:
            drill = Drill(engine, turn)
            making = min(Drill(None, turn).spread(count, BLOCK) for _ in range(repeat))
            taken = drill.spread(count, BLOCK) - making
            assert drill.counts["dropped"] == 0, drill.counts
            counters = engine.counters()
            # Bytes per flow as malloc takes them from the system, with the flow's share of the table.
            memory = (counters["memory_now"] + counters["table_octets"]) / count
            found.add(group, "enforce pix63", time=taken / count / len(turn), memory=memory)
        tell(f"flows: {group}")
    return found
