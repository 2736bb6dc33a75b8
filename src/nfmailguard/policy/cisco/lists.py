"""``access-list``, ``object``, ``object-group`` and ``name``: which hosts and ports an entry is about.

Promises: an entry becomes a value or a Fault that says what cannot be determined; groups of groups are resolved, each
once, and bounded. Does not know what a list is used for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nfmailguard.policy.cisco.match import Fault
from nfmailguard.policy.cisco.ports import EVERY, parse_range
from nfmailguard.policy.cisco.text import Section, Statement

__all__ = ["Entry", "Lists"]

_ANY = frozenset({"any", "any4", "any6"})
_TCP = frozenset({"tcp", "6"})
_MOST_NETWORKS = 1000
_DEEPEST = 16
_KINDS = ("object-group", "object")


@dataclass(frozen=True)
class Entry:
    """One line of an access-list. Empty ``source`` or ``destination``: any host. ``ports``: the server's."""

    statement: Statement
    permit: bool
    source: tuple[str, ...]
    destination: tuple[str, ...]
    ports: int
    uses: tuple[Statement, ...] = ()

    @property
    def of_all(self) -> bool:
        return not self.source and not self.destination


class Lists:
    """Definitions by name."""

    def __init__(self) -> None:
        # Access lists by name; each entry is stored by its words, so that a repeated line counts once.
        self.entries: dict[str, dict[tuple[str, ...], Statement]] = {}
        self._groups: dict[tuple[str, str], list[Section]] = {}
        self._names: dict[str, str] = {}
        self._resolved: dict[tuple[str, str, str], tuple[tuple[str, ...], int]] = {}
        self._used: list[Statement] = []

    def define(self, section: Section) -> None:
        """Stores a section that defines something; all others are ignored."""
        header, words = section.header, section.header.keywords
        if words[0] == "access-list" and len(words) > 2:
            self.entries.setdefault(header.words[1], {}).setdefault(header.words, header)
        elif words[:2] == ("no", "access-list") and len(words) > 2:
            self.entries.get(header.words[2], {}).pop(header.words[1:], None)
        elif words[0] in _KINDS and len(words) > 2:
            self._groups.setdefault((words[0], header.words[2]), []).append(section)
        elif words[0] == "name" and len(words) > 2:
            self._names.setdefault(header.words[2], header.words[1])

    def entry(self, statement: Statement) -> Entry | None:
        """The value of an entry; None for one without meaning. Raises Fault for what cannot be determined."""
        words = _Words(statement.words[2:])
        self._used = []
        if words.next_is("remark"):
            return None
        if words.next_is("line"):
            words.take(2)
        if words.next_is("extended"):
            words.take()
        if words.ends_with("inactive"):
            return None
        permit = words.take_one_of("permit", "deny") == "permit"
        ports = self._protocol(words)
        source = self._hosts(words)
        behind = self._ports(words)
        destination = self._hosts(words)
        if behind is not None:
            raise Fault("the client's port is not looked at", syntax=False)
        given = self._ports(words)
        return Entry(statement, permit, source, destination, ports if given is None else given, tuple(self._used))

    def _protocol(self, words: _Words) -> int:
        word = words.take()
        if word in _TCP or word == "ip":
            return EVERY
        if word in _KINDS:
            _, ports = self._resolve(word, words.take(raw=True), "service")
            if ports:
                return ports
            raise Fault("no TCP in it", syntax=False)
        raise Fault(f"{word[:40]} is no mail: only tcp and ip are looked at", syntax=False)

    def _hosts(self, words: _Words) -> tuple[str, ...]:
        word = words.take(raw=True)
        low = word.lower()
        if low in _ANY:
            return ()
        if low == "host":
            return (self._address(words.take(raw=True)),)
        if low in _KINDS:
            return self._resolve(low, words.take(raw=True), "network")[0]
        if low == "interface":
            raise Fault("an interface's own address is not known here", syntax=False)
        if "/" in word:
            return (self._network(word),)
        return (self._network(f"{self._address(word)}/{words.take(raw=True)}"),)

    def _ports(self, words: _Words) -> int | None:
        word = words.peek()
        if word in ("eq", "gt", "lt", "neq"):
            words.take()
            port = parse_range(*[words.take()] * 2)
            if word == "eq":
                return port
            below = port - 1 & EVERY
            return {"lt": below, "gt": EVERY & ~(below | port), "neq": EVERY & ~port}[word]
        if word == "range":
            words.take()
            return parse_range(words.take(), words.take())
        if word == "object-group" and self._is_service(words.peek(1, raw=True)):
            words.take()
            return self._resolve("object-group", words.take(raw=True), "service")[1]
        return None

    def _is_service(self, name: str) -> bool:
        return any(section.header.keywords[1] == "service" for section in self._groups.get(("object-group", name), ()))

    def _address(self, text: str) -> str:
        found = self._names.get(text, text)
        try:
            return str(ipaddress.ip_address(found))
        except ValueError:
            raise Fault(f"{text[:60]!r} is no address, nor a name of one in this text", syntax=False) from None

    def _network(self, text: str) -> str:
        try:
            return str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise Fault(f"{text[:60]!r} is no network", syntax=False) from None

    def _resolve(self, kind: str, name: str, what: str, depth: int = 0) -> tuple[tuple[str, ...], int]:
        """The networks, or the TCP ports, for which a name stands."""
        key = kind, name, what
        sections = self._groups.get((kind, name))
        if sections is None:
            raise Fault(f"no {kind} {name} in this text; give all of it", syntax=False)
        if depth > _DEEPEST:
            raise Fault(f"{kind} {name}: groups of groups, more than {_DEEPEST} deep", syntax=False)
        self._used += [section.header for section in sections]
        if key not in self._resolved:
            networks: dict[str, None] = {}
            ports = 0
            for section in sections:
                # The protocol in the header of a service group, as in `object-group service MAIL tcp`.
                own = section.header.keywords[3:4]
                for line in section.body:
                    some, more = self._member(line, own, depth)
                    networks |= dict.fromkeys(some)
                    ports |= more
                    if len(networks) > _MOST_NETWORKS:
                        raise Fault(f"{kind} {name}: more than {_MOST_NETWORKS} networks", syntax=False)
            if what == "network" and not networks:
                raise Fault(f"{kind} {name} has no address that can be told", syntax=False)
            self._resolved[key] = tuple(networks), ports
        return self._resolved[key]

    def _member(self, line: Statement, protocol: tuple[str, ...], depth: int) -> tuple[Iterable[str], int]:
        """One line of a group or an object."""
        words = _Words(line.words)
        word = words.take()
        members: dict[str, Callable[[], tuple[Iterable[str], int]]] = {
            "network-object": lambda: (self._hosts(words), 0),
            "host": lambda: ((self._address(words.take(raw=True)),), 0),
            "subnet": lambda: (self._hosts(words), 0),
            "range": lambda: (self._range(words.take(raw=True), words.take(raw=True)), 0),
            "group-object": lambda: self._of_group(words.take(raw=True), depth + 1),
            "port-object": lambda: ((), (self._ports(words) or 0) if protocol in ((), ("tcp",), ("tcp-udp",)) else 0),
            "service-object": lambda: ((), self._service(words, depth)),
            "service": lambda: ((), self._service(words, depth)),
            "protocol-object": lambda: ((), EVERY if words.take() in (*_TCP, "ip") else 0),
            "description": lambda: ((), 0),
            "exit": lambda: ((), 0),
        }
        if word not in members:
            raise Fault(f"{line.place}: {word[:40]} cannot be told", syntax=False)
        return members[word]()

    def _of_group(self, name: str, depth: int) -> tuple[tuple[str, ...], int]:
        what = "service" if self._is_service(name) else "network"
        return self._resolve("object-group", name, what, depth)

    def _service(self, words: _Words, depth: int) -> int:
        word = words.take()
        if word == "object":
            return self._resolve("object", words.take(raw=True), "service", depth + 1)[1]
        if word not in (*_TCP, "tcp-udp", "ip"):
            return 0
        if words.peek() == "source":
            raise Fault("the client's port is not looked at", syntax=False)
        if words.peek() == "destination":
            words.take()
        ports = self._ports(words)
        return EVERY if ports is None else ports

    def _range(self, first: str, last: str) -> list[str]:
        low, high = ipaddress.ip_address(self._address(first)), ipaddress.ip_address(self._address(last))
        try:
            return [str(network) for network in ipaddress.summarize_address_range(low, high)]
        except (TypeError, ValueError):
            raise Fault(f"{first[:60]} to {last[:60]} is no range", syntax=False) from None


class _Words:
    """The words of a line, taken one by one; raises Fault when there is none left."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._at = 0

    def peek(self, ahead: int = 0, *, raw: bool = False) -> str:
        word = "".join(self._words[self._at + ahead : self._at + ahead + 1])
        return word if raw else word.lower()

    def next_is(self, word: str) -> bool:
        return self.peek() == word

    def ends_with(self, word: str) -> bool:
        return self._words[-1:] == (word,)

    def take(self, count: int = 1, *, raw: bool = False) -> str:
        word = self.peek(raw=raw)
        if not word:
            raise Fault("the line ends too early; give all of it", syntax=False)
        self._at += count
        return word

    def take_one_of(self, *words: str) -> str:
        word = self.take()
        if word not in words:
            raise Fault(f"{word[:40]!r}: {' or '.join(words)} was expected", syntax=False)
        return word
