"""The gateway's nftables rules while it runs: put in place, checked, removed.

Promises: another gateway's rules are not replaced; rules that were removed by others are reported, and not put back;
packets that bypass the queue are counted. Does not know what the queue is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from nfmailguard.config import Config
from nfmailguard.errors import RulesetError
from nfmailguard.queues.kernel import QueueState, holder
from nfmailguard.ruleset import Installed, Others, Ruleset, installed, others
from nfmailguard.service.changes import Treatment
from nfmailguard.service.preflight import beside, flowtable_warnings, refuse_flowtables, ruleset
from nfmailguard.service.worker import QueueWorker

__all__ = ["PlacedRules"]


class PlacedRules:
    """The rules of ``config`` in the kernel; ``wanted`` False leaves them to the operator."""

    def __init__(self, config: Config, *, wanted: bool) -> None:
        self._config = config
        self._queues = (config.queue.first, config.queue.last)
        self._ruleset: Ruleset | None = ruleset(config) if wanted else None
        self._told: set[str] = set()
        self._noted: set[str] = set()
        self._placed = False
        self._packets = self._seen = self._seen_before = 0
        self._uninspected = self._uninspected_before = 0
        # True if the table was replaced since the last check, so that its packet counter began at zero.
        self._anew = False
        self.bypassed = False
        #: Whether the kernel's rules send packets to the queue, as far as can be determined; None: the rules are the
        #: operator's own.
        self.in_place: bool | None = None
        #: Counters of the packets that the rule matched, and of those among them that the queue did not receive.
        self.passed: dict[str, int] = {}

    def look_around(self, config: Config | None = None) -> list[str]:
        """What other tables' rules do to ours; RulesetError if mail that must be inspected could bypass the queue.

        ``config``: the configuration that is to follow; only what was not reported before is returned.
        """
        config = config or self._config
        # If the operator manages the rules, the kernel may have no nf_tables at all.
        around = Others((), ())
        with suppress(RulesetError):
            around = others()
        refuse_flowtables(config, around)
        self._told |= set(flowtable_warnings(config, around))
        found = [line for line in beside(config, around) if line not in self._noted]
        self._noted.update(found)
        return found

    def new_flowtables(self) -> list[str]:
        """Flowtables loaded after the gateway's start. Each is reported once; the gateway is not stopped for it."""
        found = []
        with suppress(RulesetError):
            found = [line for line in flowtable_warnings(self._config, others()) if line not in self._told]
        self._told.update(found)
        return found

    def apply(self, queues: Mapping[int, QueueState]) -> None:
        """Puts the rules in place. Raises RulesetError, also if another gateway's rules are there; ``queues``: all
        bound queues.
        """
        if self._ruleset is None:
            return
        self.refuse_another(queues)
        self._placed = True
        self._ruleset.apply()
        self.in_place = True

    def refuse_another(self, queues: Mapping[int, QueueState]) -> None:
        """Raises RulesetError if another gateway's rules are in place."""
        before = installed() if self._ruleset is not None else None
        if before:
            first, last = self._queues
            foreign = set(range(before.queue_first, before.queue_last + 1)) - set(range(first, last + 1))
            for number, state in queues.items():
                if number in foreign:
                    raise RulesetError(
                        f"rules: those of another nfmailguard are in place, queue {number} is read by"
                        f" {holder(state.portid)}; stop it, or use --no-rules; two on one machine are"
                        " one `run --queue 0-1`"
                    )

    def change(self, config: Config, treated: Treatment, workers: Sequence[QueueWorker]) -> bool:
        """Replaces the rules in the same chains, in one transaction; whether they differ. RulesetError changes nothing.

        Rules that others removed stay removed, as do those of a bypass until it ends.
        """
        if self._ruleset is None:
            self._config = config
            return False
        after = ruleset(config, treated)
        differs = after.render() != self._ruleset.render()
        if differs and self._placed:
            self.look(workers)  # Replacing the table clears its counters, so they are read first.
            if self.in_place:
                after.apply(same_chains=True)
                self._anew = True
        self._config, self._ruleset = config, after
        return differs

    def leave(self) -> dict[str, Any]:
        """The rules' state, for another process that takes them over; from its confirmation on they
        are no longer ours.
        """
        counted = (self._packets, self._seen, self._seen_before, self._uninspected, self._uninspected_before)
        render = self._ruleset.render() if self._ruleset is not None else ""
        return {"rules": render, "counted": list(counted), "anew": self._anew}

    def forget(self) -> None:
        """Another process owns the rules now."""
        self._placed = False

    def take_over(self, standing: Mapping[str, Any], treated: Treatment, queues: Mapping[int, QueueState]) -> None:
        """Takes over rules as another process left them (``leave``); those that have to differ are replaced.

        Raises RulesetError. ``treated``: of all configurations that flows are under; ``standing``: empty if not known.
        """
        if self._ruleset is None:
            return
        self._ruleset = ruleset(self._config, treated)
        self.refuse_another(queues)
        table = installed()
        self._placed = True
        if table is None or (table.queue_first, table.queue_last) != self._queues:
            self._ruleset.apply()
        elif standing.get("rules") != self._ruleset.render():
            self._ruleset.apply(same_chains=True)
        if standing:
            counted = (int(one) for one in standing["counted"])
            self._packets, self._seen, self._seen_before, self._uninspected, self._uninspected_before = counted
            self._anew = bool(standing["anew"]) or standing["rules"] != self._ruleset.render()
        self.in_place = True

    def remove(self) -> None:
        """Removes the rules; does nothing if they were never put in place."""
        if self._ruleset is not None and self._placed:
            self._ruleset.remove()
            self.in_place = False
        self._placed = False

    @property
    def standing(self) -> str:
        """The rules' state in a word or two."""
        if self.bypassed:
            return "away: bypass is on"
        return {True: "in place", False: "gone", None: "the operator's own"}[self.in_place]

    def trouble(self) -> dict[str, str]:
        """What is wrong with the rules, by name."""
        if self.bypassed:
            return {"bypass": "bypass is on, nothing is inspected; `nfmailguard bypass off` ends it"}
        if self.in_place is False:
            back = "`nfmailguard rules apply` or a restart puts them back"
            return {"rules": f"our rules are gone, nothing is inspected; {back}"}
        return {}

    def look(self, workers: Sequence[QueueWorker]) -> None:
        """Checks whether the rules are still there, and reads their counters."""
        table = None
        if self._ruleset is not None:
            table = installed()
            self.in_place = table is not None and (table.queue_first, table.queue_last) == self._queues
        self.passed = self._passed_by(table, workers)

    def _passed_by(self, table: Installed | None, workers: Sequence[QueueWorker]) -> dict[str, int]:
        # The rule counts what it sends to the queue; packets that the queue neither numbered nor dropped passed
        # uninspected. The queue's counters are read before the rule's: packets in transit between the two are not taken
        # for a loss. Without GSO the kernel splits super-packets after the rule, so the two counts cannot be compared.
        queues = [worker.driver.counters() for worker in workers]
        parts = (
            {"queue.fragments_unseen": table.fragments}
            if table and self._ruleset and not self._ruleset.conntrack
            else {}
        )
        if not self._config.queue.gso or any("kernel_id_sequence" not in queue for queue in queues):
            return parts
        seen = sum(queue["kernel_id_sequence"] + queue["kernel_queue_dropped"] for queue in queues)
        if table is None or table.packets < self._packets or self._anew:
            # No table, or a different one than at the last check: its counter started at zero, while the queue's
            # counter did not.
            self._seen_before = seen if table is None else self._seen
            self._uninspected_before = self._uninspected
            self._anew = False
        self._packets, self._seen = table.packets if table else 0, seen
        if table is None:
            return parts
        passed = table.packets - (seen - self._seen_before)
        self._uninspected = self._uninspected_before + max(0, passed)
        return {"queue.rule_packets": table.packets, "queue.uninspected": self._uninspected, **parts}
