"""Sets of TCP ports as Cisco devices write them; each set is an integer with a bit for each port.

Promises: adding, removing and listing cost the same for one port and for all. Does not know what a port is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from nfmailguard.policy.cisco.match import Fault

__all__ = ["EVERY", "MAIL", "every", "listed", "parse_ports", "parse_range", "runs"]

#: The port set with TCP port 25 only; a port set is an integer whose bit N stands for port N.
MAIL = 1 << 25
EVERY = (1 << 65536) - 2
#: Port names that Cisco devices write; only ports used for mail have names here.
_NAMES = {"smtp": 25, "submission": 587, "smtps": 465, "ssmtp": 465}


def _port(text: str) -> int:
    if text.lower() in _NAMES:
        return _NAMES[text.lower()]
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise Fault(f"{text[:40]!r} is no port known here; write its number, 1 to 65535")
    return int(text)


def parse_range(first: str, last: str) -> int:
    """The ports from ``first`` to ``last``; Fault if this is no range."""
    low, high = _port(first), _port(last)
    if low > high:
        raise Fault(f"{first}-{last}: the first port is above the last; write {last}-{first}")
    return (1 << (high + 1)) - (1 << low)


def parse_ports(words: Sequence[str]) -> int:
    """The set of ports and ranges like ``25-26``; Fault names the word that is none."""
    ports = 0
    for word in words:
        first, dash, last = word.partition("-")
        ports |= parse_range(first, last if dash else first)
    return ports


def _ends(ports: int) -> Iterator[tuple[int, int]]:
    place = 0
    while ports:
        gap = (ports & -ports).bit_length() - 1
        ports >>= gap
        length = (~ports & (ports + 1)).bit_length() - 1
        yield place + gap, place + gap + length - 1
        place += gap + length
        ports >>= length


def runs(ports: int) -> tuple[str, ...]:
    """The set as ports and ranges, in order: ``("25", "2500-2510")``."""
    return tuple(str(first) if first == last else f"{first}-{last}" for first, last in _ends(ports))


def listed(ports: int) -> str:
    """The set as readable text, the first few ports of it."""
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in islice(_ends(ports), 6)]
    return ", ".join([*shown[:5], "..."] if len(shown) > 5 else shown)


def every(ports: int) -> tuple[int, ...]:
    """The set's ports, in order."""
    return tuple(port for first, last in _ends(ports) for port in range(first, last + 1))
