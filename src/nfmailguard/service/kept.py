"""Queues and state that a service manager keeps from the end of one gateway to the start of the next (systemd's
descriptor store, FileDescriptorStoreMax= of systemd.service(5)).

    gateway, is to end                       manager                            gateway, started
    leaves its queues ──▶ state and sockets, by name
    ends, and leaves the rules               ──▶ hands them to what it starts next
                                                                                reads the state, confirms ──▶ forgets it
                                                                                reads the queues

Promises: in between packets wait in the kernel's queue, and none passes; what cannot be taken over is closed, and
reported. Does not know whether a manager restarts a service or ends it: the command that runs at its end (ExecStopPost)
does, and removes the rules.
"""

from __future__ import annotations

from nfmailguard.cext.handover import state
from nfmailguard.config import Config
from nfmailguard.errors import NfmailguardError
from nfmailguard.ruleset import installed
from nfmailguard.service.changes import fixed_changes, fixed_values
from nfmailguard.service.handover import Predecessor
from nfmailguard.service.notify import Systemd

__all__ = ["KEPT_QUEUE", "KEPT_STATE", "KeptGateway"]

#: Names of the file descriptors that systemd keeps: one for the state, and one for each queue, with the queue's number
#: appended.
KEPT_STATE, KEPT_QUEUE = "nfmailguard-state", "nfmailguard-queue-"


class KeptGateway(Predecessor):
    """What ``systemd`` has kept of the previous gateway, for one of ``config``; ``rules``: whether this program manages
    the rules.
    """

    def __init__(self, config: Config, systemd: Systemd, *, rules: bool = True) -> None:
        super().__init__()
        self._config, self._systemd, self._rules = config, systemd, rules

    def ask(self) -> None:
        kept = self._systemd.take_kept()
        self._files = list(kept.values())
        self.sockets = {
            int(number): file for name, file in kept.items() if (number := name.removeprefix(KEPT_QUEUE)).isdecimal()
        }
        if KEPT_STATE in kept:
            self._read(kept[KEPT_STATE])
        else:
            self.reason = "the service manager has kept queues without their state"
        handed = self.handed
        if handed is None:
            self._give_up(self.reason)
            return
        self.process, self.version, self.left = handed.pid, handed.version, handed.left
        wanted = range(self._config.queue.first, self._config.queue.last + 1)
        differs = fixed_changes(handed.fixed, fixed_values(self._config))
        if differs or set(self.sockets) != set(wanted):
            self._give_up("; ".join(change for change, _ in differs) or "its queues are others")
        elif bool(handed.placed.get("rules")) is not self._rules:
            self._give_up("of the two gateways one has --no-rules")
        else:
            self.answers = True
            if handed.state != state.version():
                self.does_not_fit(f"its state is that of another version ({self.version}, process {self.process})")
            elif self._rules and not _rules_are_there():
                self.does_not_fit("its rules were taken away meanwhile, and mail passed uninspected")

    def _give_up(self, reason: str) -> None:
        """Closes the kept queues: packets that wait in them are dropped, and their senders retransmit them."""
        self.handed, self.reason, self.sockets = None, reason, {}
        self.close()
        self.commit()

    def commit(self) -> None:
        self._systemd.forget_kept()


def _rules_are_there() -> bool:
    try:
        return installed() is not None
    except NfmailguardError:
        return False
