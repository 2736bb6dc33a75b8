"""Lists the flows of a running gateway, slice by slice between two batches of packets.

Promises: no packet waits longer than a slice takes, and no more is kept than is asked for. The list has only numbers,
addresses and fixed names, nothing a peer has sent. Does not know how it is shown.
"""

from __future__ import annotations

import heapq
import ipaddress
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nfmailguard.cext.census import FlowCensus
from nfmailguard.errors import NfmailguardError, RefusedError
from nfmailguard.events.records import address_text
from nfmailguard.policy.model import FlowRule
from nfmailguard.service.control import Request
from nfmailguard.service.signals import masked
from nfmailguard.service.worker import QueueWorker
from nfmailguard.settings import network
from nfmailguard.smtp.states import State
from nfmailguard.smtp.verbs import VERBS, Input

__all__ = ["MOST", "STATES", "Lister", "Wanted", "listed"]

#: States of a flow in the order of FlowState in cext/flow/table.pxd, with the names used by the counters of evicted
#: flows.
STATES = ("embryonic", "unconfirmed", "one_sided", "greeted", "established", "closing")
#: What happens to a flow's packets, in the order of FlowMode in cext/flow/table.pxd.
_INSPECTION = ("inspected", "passed", "dropped", "reset")
#: Most flows that may be asked for in one request.
MOST = 10_000
#: Number of flows listed between two batches of packets: at most 0.6 ms even if none of them is in a CPU cache (a
#: million flows: 7,841 slices, 1.5 s).
SLICE = 128
#: Seconds after which a queue's loop that does not answer is given up.
PATIENCE = 5.0


class Wanted(NamedTuple):
    """Which flows: the ``limit`` oldest in this state (an index of STATES, -1: any) of clients in this network."""

    limit: int = 100
    state: int = -1
    client: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Wanted:
        """What a request asks for. Raises RefusedError."""
        limit, state, client = arguments.get("limit", 100), arguments.get("state"), arguments.get("client")
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST:
            raise RefusedError(f"flows: limit is a number from 1 to {MOST}")
        if state is not None and state not in STATES:
            raise RefusedError(f"flows: state is one of {', '.join(STATES)}")
        try:
            within = None if client is None else network(str(client))
        except ValueError as error:
            raise RefusedError(f"flows: client: {error}") from error
        return cls(limit, -1 if state is None else STATES.index(state), within)


class _Flow(NamedTuple):
    """A flow as ``FlowCensus.take`` returns it."""

    number: int
    rule: int
    client: bytes
    client_port: int
    server: bytes
    server_port: int
    state: int
    mode: int
    session: int
    applied: bool
    started: int
    seen: int
    octets: tuple[int, int]
    packets: tuple[int, int]
    held: int
    ahead: int
    outstanding: int
    waiting: bool
    verb: int
    reads: int
    syn_ack: bool
    answered: bool
    confirmed: bool


def listed(workers: Sequence[QueueWorker], wanted: Wanted) -> dict[str, Any]:
    """The flows, oldest first, and their total number. May take seconds. Raises RefusedError if a
    loop does not respond.
    """
    count = 0

    def counted() -> Iterator[tuple[int, int, _Flow, QueueWorker]]:
        nonlocal count
        for worker in workers:
            for flow in _census(worker, wanted):
                count += 1
                yield flow.started, count, flow, worker

    oldest = heapq.nsmallest(wanted.limit, counted())
    return {"flows": [_told(flow, worker) for _, _, flow, worker in oldest], "of": count}


class Lister:
    """Lists flows in a thread of its own, one request at a time, since it takes a while if there are many flows."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def answer(self, request: Request, workers: Sequence[QueueWorker]) -> None:
        """Raises RefusedError for an invalid request, and while another one is being answered."""
        wanted = Wanted.of(request.arguments)
        if not self._busy.acquire(blocking=False):
            raise RefusedError("flows: they are being counted out to another; ask again")

        def run() -> None:
            masked()
            try:
                request.reply(listed(workers, wanted))
            except NfmailguardError as error:
                request.fail(*error.lines)
            except Exception as error:  # noqa: BLE001 - a fault of ours costs an answer
                request.fail(f"internal error: {type(error).__name__}: {error}")
            finally:
                self._busy.release()

        threading.Thread(target=run, name="flows", daemon=True).start()


def _census(worker: QueueWorker, wanted: Wanted) -> Iterator[_Flow]:
    networks = [(wanted.client.network_address.packed, wanted.client.prefixlen)] if wanted.client else []
    census = FlowCensus(worker.engine, SLICE)
    while not census.ended:
        census.ask()
        deadline = time.monotonic() + PATIENCE
        worker.driver.turn()
        while not census.filled:
            if time.monotonic() > deadline:
                raise RefusedError(f"flows: the loop of queue {worker.number} does not turn")
            time.sleep(0.0001)
        yield from map(_Flow._make, census.take(wanted.state, networks))


def _told(flow: _Flow, worker: QueueWorker) -> dict[str, Any]:
    family = 4 if len(flow.client) == 4 else 6
    now = worker.driver.clock
    rule, place, last = _rule(flow, worker)
    return {
        "flow_id": (worker.number << 44) | flow.number,
        "queue": worker.number,
        "client": address_text(family, flow.client),
        "client_port": flow.client_port,
        "server": address_text(family, flow.server),
        "server_port": flow.server_port,
        "state": STATES[flow.state],
        "inspection": _INSPECTION[flow.mode],
        "mode": str(rule.mode) if rule else "?",
        "applied": flow.applied,
        "rule": None if last else place,
        "profile": rule.policy.name if rule else "?",
        "smtp_state": State(flow.session).name.lower(),
        "age": round(max(0, now - flow.started) / 1e9, 3),
        "idle": round(max(0, now - flow.seen) / 1e9, 3),
        "bytes_toserver": flow.octets[1],
        "bytes_toclient": flow.octets[0],
        "pkts_toserver": flow.packets[1],
        "pkts_toclient": flow.packets[0],
        "held": flow.held,
        "waits_for": _awaited(flow),
    }


def _rule(flow: _Flow, worker: QueueWorker) -> tuple[FlowRule | None, int, bool]:
    """The flow's rule, its place in its configuration, and whether it is the rule for all other flows."""
    for first, (rules, _) in worker.known.items():
        if 0 <= (place := flow.rule - first) < len(rules):
            return rules[place], place + 1, place + 1 == len(rules)
    return None, 0, True  # The flow has ended since it was listed, and its rules are forgotten.


def _awaited(flow: _Flow) -> str:
    """What the flow waits for."""
    verb = VERBS[flow.verb].name if flow.verb < len(VERBS) else ""
    reply = "the greeting" if verb == "<greeting>" else f"the reply to {verb.strip('<>') or 'a command'}"
    if STATES[flow.state] == "closing":
        return "nothing, it has ended"
    if flow.mode:
        return "its end"
    if not flow.syn_ack:
        return "the server's SYN and ACK"
    if not flow.answered:
        return "the client's ACK"
    if flow.held:
        return f"what stands before {flow.held} held packets"
    if not flow.confirmed:
        return "the server's first word"
    if flow.waiting or flow.outstanding:
        return reply
    if flow.reads == Input.DATA or flow.reads == Input.CHUNK:
        return "the rest of a message"
    return "the client"
