"""Hand-over: a running gateway leaves its queues, with its whole state, to a gateway that has just been started.

    successor                                gateway
    asks for a hand-over, with its           refuses, or stops reading its queues and waits
    fixed settings ──▶
    reads the queues' sockets, the           ◀── descriptors, and one of a sealed memory file with its state
    control socket and the state
    taken ──▶                                ends; gives no more verdicts, and leaves the rules
    reads the queues                         (if "taken" does not come: continues as before)

Where a service manager keeps queues and state in between (``service.kept``), only the reading is the same.

Promises: at any moment at most one of the two reads a queue; no packet gets a verdict from both, or from neither; what
does not fit is reported, and then the successor takes over only the queues, as after a crash. Does not know what an
engine's state is.
"""

from __future__ import annotations

import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from nfmailguard import __version__
from nfmailguard.cext.handover import state
from nfmailguard.config import Config
from nfmailguard.errors import ConfigError, ControlError, NfmailguardError
from nfmailguard.events.eve import Standing
from nfmailguard.policy.model import FlowRule, Policy
from nfmailguard.sealed import is_sealed, sealed_file
from nfmailguard.service.asking import Asking
from nfmailguard.service.changes import fixed_values
from nfmailguard.service.worker import QueueWorker

__all__ = ["PATIENCE", "Predecessor", "RunningGateway", "Taken", "refusal", "stage"]

#: Seconds a gateway waits for its successor to confirm the take-over; meanwhile nobody reads its queues.
PATIENCE = 10.0
#: Seconds the successor waits for the state: the running gateway reads its queues until it answers.
_ANSWER = 30.0
#: Most queues in one hand-over: a message carries at most SCM_MAX_FD descriptors, and the control socket and the state
#: file are two of them.
MOST_QUEUES = 250
#: Largest answer in bytes that comes together with the descriptors.
_MOST_ANSWER = 1 << 16
_WORD = 8


class HandedRules(msgspec.Struct, frozen=True):
    """Rules that flows are under: their configuration, and the policies as they were read then."""

    config: Config
    policies: tuple[Policy, ...]

    def flow_rules(self) -> tuple[FlowRule, ...]:
        """Raises ConfigError."""
        rules = self.config.flow_rules()
        replaced = zip(rules, self.policies, strict=False)
        return tuple(msgspec.structs.replace(rule, policy=policy) for rule, policy in replaced)


class LoopStanding(msgspec.Struct, frozen=True):
    """State of a queue's loop: its clock, in nanoseconds, and its counters."""

    wall_offset: int
    core_now: int
    counters: dict[str, int]


class HandedQueue(msgspec.Struct, frozen=True):
    """One queue: where its engine's image is in the file, and the loop's state. ``rules``: for each rule number in the
    image, which of the rules that are handed over it is, and the rules' digest, in hexadecimal.
    """

    number: int
    offset: int
    size: int
    rules: dict[int, tuple[int, str]]
    standing: LoopStanding
    events: Standing | None


class Handed(msgspec.Struct, frozen=True):
    """What is in the file before the images. ``state``: their version; ``fixed``: what cannot change while a gateway
    runs; ``left``: since when nobody reads the queues, in nanoseconds of the monotonic clock.
    """

    version: str
    pid: int
    state: tuple[int, int]
    fixed: dict[str, Any]
    left: int
    queues: tuple[HandedQueue, ...]
    rules: tuple[HandedRules, ...]
    placed: dict[str, Any]


class Taken(NamedTuple):
    """What a successor has taken over, for its ``status``."""

    at: float
    process: int
    version: str
    flows: int
    held: int
    #: Milliseconds during which nobody read the queues.
    unread: int

    def standing(self) -> dict[str, Any]:
        return {**self._asdict(), "at": round(self.at, 3)}


def stage(
    workers: Sequence[QueueWorker], configs: dict[int, Config], placed: dict[str, Any], fixed: dict[str, Any], left: int
) -> int:
    """A sealed memory file with the state of queues that have been left; ``configs``: configurations that flows are
    under, by number.

    The other arguments are as in ``Handed``. The caller closes the descriptor. Raises OSError, MemoryError.
    """
    serials: dict[int, int] = {}
    rules: list[HandedRules] = []
    queues: list[HandedQueue] = []
    offset = 0
    for worker in workers:
        numbers: dict[int, tuple[int, str]] = {}
        for number, digest in worker.engine.rules_in_use.items():
            found, serial = worker.rules_of(number)
            if serial not in serials:
                serials[serial] = len(rules)
                rules.append(HandedRules(configs[serial], tuple(rule.policy for rule in found)))
            numbers[number] = serials[serial], digest.hex()
        size = worker.engine.state_size
        events = worker.writer.standing() if worker.writer else None
        queues.append(
            HandedQueue(worker.number, offset, size, numbers, LoopStanding(**worker.standing_of_loop()), events)
        )
        offset += size
    handed = Handed(__version__, os.getpid(), state.version(), fixed, left, tuple(queues), tuple(rules), placed)
    head = msgspec.json.encode(handed)
    head += b" " * (-len(head) % _WORD)
    images = (_image(worker, queue.size) for worker, queue in zip(workers, queues, strict=True))
    return sealed_file("nfmailguard state", chain([len(head).to_bytes(_WORD, "little") + head], images))


def _image(worker: QueueWorker, size: int) -> bytearray:
    image = bytearray(size)
    worker.engine.save_state(image)
    return image


class Predecessor(ABC):
    """A gateway whose queues another gateway takes over.

    After ``ask``: ``answers``: whether there are queues to take over; ``sockets``: the queues' sockets by number;
    ``control``: its control socket, or -1; a user of these closes them; ``reason``: why its state is missing, or does
    not fit, "" if it fits.
    """

    def __init__(self) -> None:
        self._files: list[int] = []
        self._image: mmap.mmap | None = None
        self.handed: Handed | None = None
        self.answers = False
        self.reason = self.version = ""
        self.process = 0
        #: Monotonic time in nanoseconds at which the predecessor stopped reading its queues.
        self.left = 0
        self.control = -1
        self.sockets: dict[int, int] = {}

    @abstractmethod
    def ask(self) -> None:
        """Asks for the queues and the state. Raises NfmailguardError."""

    @abstractmethod
    def commit(self) -> None:
        """From here on this process owns the queues. Raises NfmailguardError if it does not."""

    def _read(self, file: int) -> None:
        """Reads the state from a sealed file, which nobody can change any more."""
        try:
            if not is_sealed(file):
                raise ValueError("it is not sealed")
            size = os.fstat(file).st_size
            self._image = mmap.mmap(file, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
            length = int.from_bytes(self._image[:_WORD], "little")
            self.handed = msgspec.json.decode(self._image[_WORD : _WORD + length], type=Handed)
            self._images = _WORD + length
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            self.handed = None
            self.reason = f"its state cannot be read: {error}"

    def load(self, workers: Sequence[QueueWorker]) -> list[Config]:
        """Loads the state into the workers' engines; returns the configurations, except ours, that flows are under.

        Raises ValueError with the reason if the state does not fit; the workers must not be used then.
        """
        if self.handed is None or self._image is None:
            raise ValueError(self.reason)
        queues = {queue.number: queue for queue in self.handed.queues}
        try:
            known = [(rules.config, rules.flow_rules()) for rules in self.handed.rules]
            used: dict[int, int] = {}
            for worker in workers:
                queue = queues[worker.number]
                begin = self._images + queue.offset
                with memoryview(self._image) as whole, whole[begin : begin + queue.size] as image:
                    self._load(worker, queue, image, known, used)
        except (LookupError, NfmailguardError, OSError) as error:
            raise ValueError(str(error)) from error
        return [known[place][0] for place in used]

    @staticmethod
    def _load(
        worker: QueueWorker,
        queue: HandedQueue,
        image: memoryview,
        known: Sequence[tuple[Config, tuple[FlowRule, ...]]],
        used: dict[int, int],
    ) -> None:
        prepared = {}
        for number, (place, digest) in queue.rules.items():
            generation = worker.prepare(*known[place], older=True)
            if generation.digest.hex() != digest:
                raise ValueError("its rules mean something else here")
            prepared[number] = generation, place
        worker.take_over(image, prepared, used)

    def standing(self, number: int) -> dict[str, Any] | None:
        """State of a queue's loop; None: it is not known."""
        found = [queue.standing for queue in self.handed.queues if queue.number == number] if self.handed else []
        return msgspec.structs.asdict(found[0]) if found else None

    @property
    def placed(self) -> dict[str, Any]:
        """State of its rules in the kernel; empty: it is not known."""
        return self.handed.placed if self.handed else {}

    def give_events(self, workers: Sequence[QueueWorker]) -> None:
        """Passes what is known of unfinished mails to the writers of events."""
        for queue in self.handed.queues if self.handed else ():
            for worker in workers:
                if worker.number == queue.number and worker.writer and queue.events:
                    worker.writer.take_over(queue.events)

    def does_not_fit(self, reason: str) -> None:
        """Only the queues are taken over, not the state. ``reason`` says why."""
        self.handed, self.reason = None, reason

    def keep(self, file: int) -> int:
        """A copy of a descriptor, which the caller keeps and closes."""
        self._files.remove(file)
        return file

    def close(self) -> None:
        """Closes what is not used. Without ``commit`` the predecessor then continues. May be called repeatedly."""
        if self._image is not None:
            with suppress(BufferError):
                self._image.close()
        for file in self._files:
            os.close(file)
        self._files = []


class RunningGateway(Predecessor):
    """The running gateway, if there is one: it hands over to one of ``config``. Raises ConfigError: it cannot be asked.

    ``rules``: whether this program manages the nftables rules.
    """

    def __init__(self, config: Config, *, rules: bool = True) -> None:
        super().__init__()
        self._rules = rules
        if not config.service.control:
            raise ConfigError("--hand-over: the gateway that runs is asked at service.control, which is empty")
        self._config = config
        self._asking: Asking | None = None

    def ask(self) -> None:
        """From then on it waits for ``commit``, or for this process to end. Raises RefusedError with its objections."""
        try:
            self._asking = Asking(self._config.service.control, _ANSWER)
        except ControlError as error:
            self.reason = str(error)
            return
        fixed = fixed_values(self._config)
        request = {"state": state.version(), "version": __version__, "fixed": fixed, "rules": self._rules}
        answer, self._files = self._asking.ask_for_files("hand-over", MOST_QUEUES + 2, _MOST_ANSWER, **request)
        try:
            files = list(self._files)
            self.process, self.version = int(answer["pid"]), str(answer["version"])
            self.reason = str(answer["reason"])
            self.left = int(answer["left"])
            self.control = files.pop(0)
            self.sockets = {int(number): files.pop(0) for number in answer["queues"]}
            wanted = range(self._config.queue.first, self._config.queue.last + 1)
            if set(self.sockets) != set(wanted):
                raise ValueError("its queues are others")
            self.answers = True
            if not self.reason:
                self._read(files.pop(0))
        except (LookupError, TypeError, ValueError) as error:
            raise ControlError(f"hand-over: its answer makes no sense: {error}") from error

    def commit(self) -> None:
        """From here on the predecessor has ended and its queues are ours. Raises ControlError, RefusedError if they are
        not.
        """
        assert self._asking is not None
        self._asking.ask("taken")

    def close(self) -> None:
        super().close()
        if self._asking is not None:
            self._asking.close()


def refusal(number: int, workers: Sequence[QueueWorker], *, tapped: bool, bypassed: bool) -> str:
    """Why queues cannot be handed over to a process of this user; "" if they can."""
    if number not in (0, os.geteuid()):
        return f"hand-over: user {number} may not take the queues; root and user {os.geteuid()} may"
    if tapped:
        return "hand-over: --tap: what is captured is of one process; stop it, and start another"
    if bypassed:
        return "hand-over: bypass is on; `nfmailguard bypass off` first"
    if not all(worker.begins_anew for worker in workers):
        return "hand-over: only the kernel driver's queues can be handed over"
    if len(workers) > MOST_QUEUES:
        return f"hand-over: at most {MOST_QUEUES} queues can be handed over"
    return ""
